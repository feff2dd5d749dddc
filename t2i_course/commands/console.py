"""What the commands share: the models they know, and how they write, one process of several.

Results go to stdout, notes to stderr. No library is imported here: `--help` needs none.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """What `train` takes for a model unless told otherwise."""

    decoder: str
    learning_rate: float
    fast: int  # steps in the fast profile
    full: int
    batch_size: int = 64
    scenes: int | None = None  # training pictures, where the data are scenes; None: 10,000
    crowded: bool = False  # most of them with three objects


MODELS = {
    "baseline": Model("residual", 2e-3, 300, 6000),
    "article": Model("article", 2e-4, 300, 6000),
    "gan": Model("gan", 5e-4, 10_000, 10_000),  # a short run of it shows little
    "style": Model("style", 5e-4, 10_000, 10_000),
    "flow": Model("flow", 1e-3, 24_000, 24_000, batch_size=48, scenes=50_000, crowded=True),
}
ADVERSARIAL = ("gan", "style")  # both before the same discriminator

# Options of `train` for photos. The number of steps is for a GPU that sustains 20 TFLOP/s: a step
# takes 21.4 GFLOP an image at width 64, 12.2 at width 48 (counted with a D of 768).
_PHOTOS = {"model": "gan", "encoder": "bert-base-uncased", "size": 64, "flips": True,
           "checkpoint_minutes": 10.0, "on_bad_image": "skip"}  # fmt: skip
PRESETS = {
    "coco-day": _PHOTOS | {  # COCO's train2017: 77 million images, 650 epochs
        "batch_size": 256, "steps": 300_000, "validate_every": 5000, "checkpoint_every": 5000,
        "ingredients": ["width=64", "augment=translation"],
    },
    "val-hour": _PHOTOS | {  # its val2017 alone: 5 million images, 1,100 epochs of 4,500
        "batch_size": 128, "steps": 40_000, "validate_every": 1000, "checkpoint_every": 1000,
        "ingredients": ["width=48", "augment=translation,cutout"],
    },
}  # fmt: skip


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


def command_line(args: argparse.Namespace) -> str:
    """Return the command that was given, for cards and the ledger."""
    return shlex.join(["python", "-m", "t2i_course", *args.argv])


def check_steps(args: argparse.Namespace) -> None:
    """Raise ValueError unless there are steps enough to train by."""
    if args.steps < 10:
        raise ValueError(f"--steps {args.steps}: 10 are needed at least")
