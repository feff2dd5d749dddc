"""What the commands share: options that all take, and how they write, one process of several.

Results go to stdout, notes to stderr. No library is imported here: `--help` needs none.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from t2i_course.runtime import Settings


SHARED = {  # options of several commands
    "--seed": {"metavar": "N", "help": "default: T2I_SEED, else 0"},
    "--device": {"help": "auto, cpu, cuda, cuda:N or mps; default: T2I_DEVICE, else auto"},
    "--data": {"metavar": "DATA", "help": "scenes, or a folder in COCO's layout, or of shards; "
               "default: T2I_DATA, else scenes"},
    "--on-bad-image": {"choices": ("raise", "skip"), "default": "raise", "help": "what to do with "
                       "a missing or damaged picture: stop, or leave it out and say so; default: "
                       "%(default)s"},
    "--truncation": {"type": float, "default": 1.0, "metavar": "PSI", "help": "of the style "
                     "decoder: 0 draws one picture a caption, 1 is off; default: %(default)s"},
    "--extractor": {"metavar": "NAME|PATH", "help": "network for distances; default: "
                    "scene-features on scenes, none on photos"},
    "--matcher": {"metavar": "NAME|PATH", "help": "network for retrieval; default: "
                  "caption-matcher on scenes, none on photos"},
}  # fmt: skip


def add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add options that several commands take."""
    for name in names:
        parser.add_argument(name, **SHARED[name])


def read_settings(args: argparse.Namespace) -> Settings:
    """Read the settings: an option goes before its variable, and that before the default.

    A variable with a bad value is an error in every command, even in one that has no use for it.
    Only where data come into being may T2I_DATA name a folder that is not there yet.

    Raises:
        ValueError, FileNotFoundError: as `runtime.settings`.
    """
    from t2i_course import runtime

    names = ("profile", "data", "device", "seed")
    told = {f"T2I_{name.upper()}": getattr(args, name, None) for name in names}
    if args.command in ("download", "convert"):
        told["T2I_DATA"] = "scenes"
    return runtime.settings(os.environ | {n: value for n, value in told.items() if value})


def first_process() -> bool:
    """Say whether this process speaks for the others, too."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Write a result to stdout."""
    if first_process():
        write(text, sys.stdout)


def note(text: str) -> None:
    """Write a remark to stderr."""
    if first_process():
        write(f"t2i_course: note: {text}", sys.stderr)


def write(text: str, stream: TextIO | None) -> None:
    """Write a line, if anybody reads: the work goes on after `train | head`, or without a terminal.

    What a console has no letters for is shown by its number.
    """
    if stream is None:  # closed from the beginning
        return
    letters = stream.encoding or "utf-8"
    try:
        print(text.encode(letters, "backslashreplace").decode(letters), file=stream, flush=True)
    except OSError:  # from here on, nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def command_line(args: argparse.Namespace) -> str:
    """Return the command that makes the same again, for cards and the ledger."""
    words = [word for word in args.argv if word not in ("--resume", "--restart")]
    return shlex.join(["python", "-m", "t2i_course", *words])


def check_steps(args: argparse.Namespace) -> None:
    """Raise ValueError unless there are steps enough to train by."""
    if args.steps < 10:
        raise ValueError(f"--steps {args.steps}: 10 are needed at least")
