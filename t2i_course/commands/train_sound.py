"""The command `train-sound`: train the network that `sound` hears with."""

from __future__ import annotations

import argparse
import sys

from t2i_course.commands.console import check_steps, command_line, say
from t2i_course.video_to_audio import train_video_to_audio


def run(args: argparse.Namespace) -> int:
    """Train video-to-audio from nothing; write its weights and model card."""
    check_steps(args)
    file = train_video_to_audio(
        args.output, args.steps, args.batch_size, args.seed, args.device,
        command_line(args), sys.stderr.isatty(),
    )  # fmt: skip
    say(f"weights: {file}")
    return 0
