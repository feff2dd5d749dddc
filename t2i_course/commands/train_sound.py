"""The command `train-sound`: train the network that `sound` hears with, or that of FD-sounds."""

from __future__ import annotations

import argparse
import sys
import time

from t2i_course import checkpoints, runtime, video_to_audio
from t2i_course.commands.console import add_shared, check_steps, command_line, say
from t2i_course.metrics import sound_features
from t2i_course.metrics.networks import NO_ENCODER

TRAIN = {module.NAME: module.train for module in (video_to_audio, sound_features)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which network, and how long."""
    add = parser.add_argument
    add("network", nargs="?", choices=TRAIN, default=video_to_audio.NAME,
        help="video-to-audio, which sound hears with; sound-features, for FD-sounds; default: "
        "%(default)s")  # fmt: skip
    add("--steps", type=int, default=3200, help="default: %(default)s")
    add("--output", metavar="NAME|PATH", help="default: my-NETWORK")
    add_shared(parser, "--seed", "--device")


def run(args: argparse.Namespace) -> int:
    """Train a network from nothing; write its weights and model card."""
    check_steps(args)
    output = checkpoints.check_output(args.output or f"my-{args.network}")
    seed, start = args.settings.seed, time.perf_counter()
    network, metrics = TRAIN[args.network](
        args.steps, seed, args.settings.device, progress=sys.stderr.isatty()
    )
    file = checkpoints.save_weights(output, network, {
        "encoder": NO_ENCODER,
        "data": "bouncing balls",
        "command": command_line(args),
        "steps": args.steps,
        "seconds": round(time.perf_counter() - start, 1),
        "hardware": runtime.hardware(),
        "metrics": metrics,
        "license": "Apache-2.0",
        "seed": seed,
    })  # fmt: skip
    say(f"weights: {file}")
    return 0
