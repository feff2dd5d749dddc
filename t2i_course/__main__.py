"""The command line: `python -m t2i_course doctor | download | train | generate | evaluate | ...`.

An expected error is one line on stderr and exit status 2; with T2I_DEBUG=1 it is a traceback. A
command is a file in `t2i_course.commands` with its options, `add_options`, and with what it does,
`run`. It is imported when it is asked for, so that `--help` and `doctor` need no library.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from t2i_course import __version__
from t2i_course.commands.console import note, read_settings, write

COMMANDS = {
    "doctor": "check that everything the course needs is there",
    "download": "download COCO",
    "convert": "make a folder in COCO's layout from a table",
    "train": "train a generator",
    "generate": "draw prompts with a trained generator",
    "evaluate": "measure what a model draws",
    "caption": "word what pictures show",
    "encoder": "pre-train the small BERT, caption-bert",
    "metric-network": "train a network that measures pictures",
    "sound": "hear a video of bouncing balls",
    "clips": "draw clips of bouncing balls, with their true sound",
    "train-sound": "train a network of video to audio",
    "report": "write tables, figures and a LaTeX document from the ledger",
    "reproduce": "measure a row of the ledger again",
}


def load_command(name: str) -> ModuleType:
    """Import a command's module."""
    return importlib.import_module(f"t2i_course.commands.{name.replace('-', '_')}")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Describe the commands, and the options of one of them."""
    parser = argparse.ArgumentParser(
        prog="python -m t2i_course", description="Text to image from scratch: the command line."
    )
    parser.add_argument("--version", action="version", version=f"t2i_course {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, told in COMMANDS.items():
        options = commands.add_parser(name, help=told, description=told)
        if name == command:
            load_command(name).add_options(options)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: note(str(message))
        try:
            args = build_parser(next((w for w in argv if w in COMMANDS), None)).parse_args(argv)
            args.argv = argv
            if args.command != "doctor":  # which says itself what is wrong with a variable
                args.settings = read_settings(args)
            return load_command(args.command).run(args)
        except KeyboardInterrupt as stop:
            write(f"t2i_course: {str(stop) or 'stopped'}", sys.stderr)
            return 130
        except Exception as error:
            if os.environ.get("T2I_DEBUG") == "1":
                raise
            told = " ".join(str(error).split())
            if not isinstance(error, (ValueError, OSError, FloatingPointError)):
                told = f"{type(error).__name__}: {told} (T2I_DEBUG=1 shows where)"
            write(f"t2i_course: error: {told}", sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
