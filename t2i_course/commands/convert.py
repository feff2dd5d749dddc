"""The command `convert`: from a table of captions to a folder in COCO's layout."""

from __future__ import annotations

import argparse

from t2i_course.commands.console import add_shared, note, say
from t2i_course.photos.convert import convert_table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the table, the pictures, and the new folder."""
    add = parser.add_argument
    add("table", metavar="CAPTIONS.csv", help="file names and captions, by a header such as "
        "image,caption, or as Flickr8k and Flickr30k have them")  # fmt: skip
    add("pictures", metavar="FOLDER", help="the file names are relative to it")
    add("--output", metavar="FOLDER", required=True, help="a new folder")
    add_shared(parser, "--on-bad-image")


def run(args: argparse.Namespace) -> int:
    """Make a folder in COCO's layout from pictures and a table."""
    made = convert_table(args.table, args.pictures, args.output, args.on_bad_image)
    for fault in made.left_out[:5]:
        note(fault)
    left_out = f"; {len(made.left_out):,} pictures left out" if made.left_out else ""
    say(f"read: {made.pictures:,} pictures, {made.captions:,} captions ({made.columns}){left_out}")
    say(f"ready: --data {made.folder}, or T2I_DATA={made.folder}")
    return 0
