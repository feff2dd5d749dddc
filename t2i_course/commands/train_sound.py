"""The command `train-sound`: train the network that `sound` hears with, or that of FD-sounds."""

from __future__ import annotations

import argparse
import sys

from t2i_course.commands.console import check_steps, command_line, say
from t2i_course.metrics.sound_features import train_sound_features
from t2i_course.video_to_audio import NAME, train_video_to_audio


def run(args: argparse.Namespace) -> int:
    """Train a network from nothing; write its weights and model card."""
    check_steps(args)
    train = train_video_to_audio if args.network == NAME else train_sound_features
    file = train(
        args.output or f"my-{args.network}", args.steps, seed=args.seed, device=args.device,
        command=command_line(args), progress=sys.stderr.isatty(),
    )  # fmt: skip
    say(f"weights: {file}")
    return 0
