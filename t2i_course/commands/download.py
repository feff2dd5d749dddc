"""The command `download`: COCO, checked and resumed."""

from __future__ import annotations

import argparse

from t2i_course import runtime
from t2i_course.commands.console import say
from t2i_course.photos.download import download_coco


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is downloaded, and whereto."""
    add = parser.add_argument
    add("--split", choices=("train", "val", "all"), default="val", help="val 1 GB, train 18 GB in "
        "2017; captions 0.2 GB come with either; default: %(default)s")  # fmt: skip
    add("--year", choices=("2017", "2014"), default="2017", help="default: %(default)s")
    add("--subset", type=int, metavar="N", help="the first N images of each split only, one by one")
    add("--mirror", metavar="URL", help="in place of COCO's own hosts, with the same paths below")
    add("--output", metavar="FOLDER", help="default: data/coco")


def run(args: argparse.Namespace) -> int:
    """Download COCO into a folder that --data takes."""
    splits = ("train", "val") if args.split == "all" else (args.split,)
    output = args.output or runtime.data_folder() / "coco"
    folder = download_coco(output, splits, args.year, args.subset, args.mirror, say=say)
    say(f"ready: --data {folder}, or T2I_DATA={folder}")
    return 0
