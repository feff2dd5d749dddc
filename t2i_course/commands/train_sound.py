"""The command `train-sound`: train the network that `sound` hears with, or that of FD-sounds."""

from __future__ import annotations

import argparse
import sys

from t2i_course import checkpoints
from t2i_course.commands.console import add_common, check_steps, command_line, say
from t2i_course.metrics.sound_features import train_sound_features
from t2i_course.video_to_audio import NAME, train_video_to_audio


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which network, and how long."""
    add = parser.add_argument
    add("network", nargs="?", choices=(NAME, "sound-features"), default=NAME,
        help="video-to-audio, which sound hears with; sound-features, for FD-sounds; default: "
        "%(default)s")  # fmt: skip
    add("--steps", type=int, default=3200, help="default: %(default)s")
    add("--output", metavar="NAME|PATH", help="default: my-NETWORK")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Train a network from nothing; write its weights and model card."""
    check_steps(args)
    train = train_video_to_audio if args.network == NAME else train_sound_features
    file = train(
        checkpoints.check_output(args.output or f"my-{args.network}"), args.steps,
        seed=args.settings.seed, device=str(args.settings.device), command=command_line(args),
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    say(f"weights: {file}")
    return 0
