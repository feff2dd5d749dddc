"""What the commands write: results on stdout, notes on stderr, each by one process of several."""

from __future__ import annotations

import os
import sys


def first_process() -> bool:
    """Say whether this process speaks for the others, too."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Write a line to stdout."""
    if first_process():
        print(text, flush=True)


def note(text: str) -> None:
    """Write a remark to stderr."""
    if first_process():
        print(f"t2i_course: note: {text}", file=sys.stderr, flush=True)


def given(**values: str | None) -> dict[str, str]:
    """Environment variables for the options that were given on the command line."""
    return {name: value for name, value in values.items() if value is not None}
