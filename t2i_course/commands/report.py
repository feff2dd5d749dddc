"""The command `report`: tables, figures and a LaTeX document from the ledger."""

from __future__ import annotations

import argparse

from t2i_course import report, thesis
from t2i_course.commands.console import add_shared, say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add where it goes, and in which language."""
    add = parser.add_argument
    add("--output", metavar="FOLDER", required=True, help="a new folder; nothing is ever replaced")
    add("--language", choices=tuple(thesis.WORDS), default="en", help="of the document: zh is "
        "Chinese, for xelatex with ctex; default: %(default)s")  # fmt: skip
    add("--captions", type=int, default=100, metavar="N", help="fresh captions on which the "
        "generators are compared, each drawn twice; default: %(default)s")  # fmt: skip
    add_shared(parser, "--device")


def run(args: argparse.Namespace) -> int:
    """Write the folder, and say how to compile the document."""
    rows, device = report.read_rows(), args.settings.device
    document = thesis.write_report(args.output, rows, args.language, args.captions, device)
    say(f"report: {len(rows)} numbers of the ledger, {document}\n"
        f"to compile it, in that folder: {thesis.COMPILE[args.language]}")  # fmt: skip
    return 0
