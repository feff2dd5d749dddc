"""What the commands share: the models they know, and how they write, one process of several.

Results go to stdout, notes to stderr. No library is imported here: `--help` needs none.
"""

from __future__ import annotations

import os
import sys

# model: decoder, learning rate, and steps in the fast and in the full profile
MODELS = {
    "baseline": ("residual", 2e-3, 300, 6000),
    "article": ("article", 2e-4, 300, 6000),
    "gan": ("gan", 5e-4, 10_000, 10_000),  # a short run of it shows little
    "style": ("style", 5e-4, 10_000, 10_000),
}
ADVERSARIAL = ("gan", "style")  # both before the same discriminator


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
