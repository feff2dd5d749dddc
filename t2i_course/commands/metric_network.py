"""The command `metric-network`: train a network that measures pictures, or the captioner."""

from __future__ import annotations

import argparse
import sys

from t2i_course import captioner, checkpoints
from t2i_course.commands.console import (
    add_bad_image,
    add_common,
    add_data,
    check_steps,
    command_line,
    say,
)
from t2i_course.metrics import caption_matcher, photo_features, scene_features
from t2i_course.metrics.networks import train_network
from t2i_course.text_encoder import TextEncoder

READERS = (caption_matcher, captioner)  # those that take the text encoder's features or tokens
MODULES = {m.NAME: m for m in (scene_features, photo_features, *READERS)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which network, what it learns from, and how long."""
    add = parser.add_argument
    add("network", choices=MODULES, help="scene-features, for FD-scenes; caption-matcher, for "
        "retrieval; photo-features, for distances of photos, trained without labels; captioner, "
        "which words pictures and teaches a generator word by word")  # fmt: skip
    add_data(parser)
    add("--encoder", metavar="NAME|PATH", help="of caption-matcher and captioner; default: "
        "caption-bert")  # fmt: skip
    add("--steps", type=int, default=3000, help="default: %(default)s")
    add("--size", type=int, default=64, help="side of the pictures, pixels; default: %(default)s")
    add_bad_image(parser)
    add("--output", metavar="NAME|PATH", help="default: my-NETWORK")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Train scene-features, photo-features, the caption-matcher or the captioner."""
    check_steps(args)
    module = MODULES[args.network]
    output = checkpoints.check_output(args.output or f"my-{args.network}")
    data, device = args.settings.data, args.settings.device
    if module is scene_features and args.data is None:
        data = "scenes"
    file = train_network(
        module.prepare,
        data,
        output,
        args.steps,
        args.size,
        args.settings.seed,
        str(device),
        TextEncoder(args.encoder, device=device) if module in READERS else None,
        on_bad_image=args.on_bad_image,
        command=command_line(args),
        progress=sys.stderr.isatty(),
    )
    say(f"weights: {file}")
    return 0
