"""The command `wordings`: teach a copy of a GAN's text encoder freer wordings."""

from __future__ import annotations

import argparse
import sys

from t2i_course.commands.console import check_steps, command_line, say
from t2i_course.scenes import wording_lessons


def run(args: argparse.Namespace) -> int:
    """Teach the encoder of a GAN's prompts freer wordings."""
    check_steps(args)
    folder = wording_lessons.teach_wordings(
        args.model, args.output, args.steps, seed=args.seed, device=args.device,
        command=command_line(args),
        progress=sys.stderr.isatty(), init=args.init,
    )  # fmt: skip
    say(f"encoder: {folder}")
    return 0
