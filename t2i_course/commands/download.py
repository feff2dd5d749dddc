"""The command `download`: COCO, checked and resumed."""

from __future__ import annotations

import argparse

from t2i_course import runtime
from t2i_course.commands.console import say
from t2i_course.photos.download import download_coco


def run(args: argparse.Namespace) -> int:
    """Download COCO into a folder that --data takes."""
    splits = ("train", "val") if args.split == "all" else (args.split,)
    output = args.output or runtime.data_folder() / "coco"
    folder = download_coco(output, splits, args.year, args.subset, args.mirror, say=say)
    say(f"ready: --data {folder}, or T2I_DATA={folder}")
    return 0
