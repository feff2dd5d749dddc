"""The command `convert`: from a table of captions to a folder in COCO's layout."""

from __future__ import annotations

import argparse

from t2i_course.commands.console import say
from t2i_course.photos.convert import convert_table


def run(args: argparse.Namespace) -> int:
    """Make a folder in COCO's layout from pictures and a CSV file."""
    folder = convert_table(args.table, args.pictures, args.output)
    say(f"ready: --data {folder}, or T2I_DATA={folder}")
    return 0
