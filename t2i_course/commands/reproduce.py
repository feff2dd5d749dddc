"""The command `reproduce`: measure a row of the ledger again, and compare."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from t2i_course import report, reproduction
from t2i_course.checkpoints import checkpoint_path
from t2i_course.commands.console import say
from t2i_course.runtime import CHECKOUT, hardware


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which row, and how long it may take."""
    parser.add_argument("row", metavar="ROW", help="its id, as pages quote it and data/results has "
        "it, such as gan-evaluation-gan-fd-scenes-test-n2000")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=15, metavar="N", help="refuse a row whose "
        "measurement took longer when it was recorded; default: %(default)s")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run a row's command; return 0 if the value lies within its tolerance, 1 if not."""
    rows = report.read_rows()
    row = next((row for row in rows if row.id == args.row), None)
    if row is None:
        near = [other.id for other in rows if args.row in other.id][:3]
        raise ValueError(f"the ledger has no row {args.row!r}"
                         + (f"; there are {', '.join(near)}" if near else ""))  # fmt: skip
    took = reproduction.seconds_of(row, rows)
    say(f"row:      {row.id}\nmetric:   {row.metric}\nrecorded: {shown(row)}, {row.date}, on "
        f"{row.hardware}, {took:,.0f} s\ncommand:  {row.command}")  # fmt: skip
    reason = reproduction.obstacle(row, is_here)
    if reason is None and "no GPU" not in row.hardware and not torch.cuda.is_available():
        reason = f"it was measured on {row.hardware}, and there is no GPU here"
    if reason is None and took > 60 * args.minutes:
        reason = (
            f"it took {took / 60:,.0f} minutes on {row.hardware}: --minutes {took // 30 + 1:.0f} "
            "gives it twice that"
        )
    if reason is not None:
        raise ValueError(f"{row.id} cannot be measured again here: {reason}")
    again, seconds = reproduction.rerun(row)
    low, high, rule = reproduction.tolerance(row)
    inside = low <= again.value <= high
    say(f"now:      {shown(again)}, on {hardware()}, {seconds:,.0f} s\n"
        f"{'within' if inside else 'OUTSIDE'} {low:.6g} to {high:.6g}, {rule}")  # fmt: skip
    return 0 if inside else 1


def shown(row: report.Row) -> str:
    """A value with its interval."""
    if row.interval is None:
        return f"{row.value:.6g}"
    return f"{row.value:.6g} ({row.interval[0]:.6g} to {row.interval[1]:.6g})"


def is_here(option: str, value: str) -> bool:
    """Whether the weights, the data or the file that an option names are on this machine."""
    if option in ("--data", "--captions"):
        return value == "scenes" or (CHECKOUT / value).exists() or Path(value).exists()
    try:
        return checkpoint_path(value).with_suffix(".safetensors").exists()
    except (OSError, ValueError):
        return False
