"""What the commands share: options that all take, and how they write, one process of several.

Results go to stdout, notes to stderr. No library is imported here: `--help` needs none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from t2i_course.runtime import Settings


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed of all that is drawn at random."""
    parser.add_argument("--seed", metavar="N", help="default: T2I_SEED, else 0")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add where it computes."""
    parser.add_argument(
        "--device", help="auto, cpu, cuda, cuda:N or mps; default: T2I_DEVICE, else auto"
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add seed and device."""
    add_seed(parser)
    add_device(parser)


def add_data(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add what names a data set; `more` says what else is to be said of the default."""
    parser.add_argument(
        "--data", metavar="DATA", help="scenes, or a folder in COCO's layout, or of shards; "
        f"default: T2I_DATA, else scenes{'; ' * bool(more)}{more}",
    )  # fmt: skip


def add_bad_image(parser: argparse.ArgumentParser) -> None:
    """Add what is done with a picture that cannot be read."""
    parser.add_argument(
        "--on-bad-image", choices=("raise", "skip"), default="raise", help="what to do with a "
        "missing or damaged picture: stop, or leave it out and say so; default: %(default)s",
    )  # fmt: skip


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
        print(text, flush=True)


def note(text: str) -> None:
    """Write a remark to stderr."""
    if first_process():
        print(f"t2i_course: note: {text}", file=sys.stderr, flush=True)


def command_line(args: argparse.Namespace) -> str:
    """Return the command that was given, for cards and the ledger."""
    return shlex.join(["python", "-m", "t2i_course", *args.argv])


def check_steps(args: argparse.Namespace) -> None:
    """Raise ValueError unless there are steps enough to train by."""
    if args.steps < 10:
        raise ValueError(f"--steps {args.steps}: 10 are needed at least")


class LastingStream:
    """A stream that may lose its reader, as in `train | head` or when a terminal is closed.

    What is written after that goes nowhere, and the work goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if anybody reads."""
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Send what was written, if anybody reads."""
        with self._lasting():
            self._stream.flush()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Let stdout and stderr outlive their readers, and show what a console has no letters for."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (stream and LastingStream(stream) for stream in before)  # None: closed
    try:
        yield
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # here, where it may fail, and not when Python ends
    finally:
        sys.stdout, sys.stderr = before
