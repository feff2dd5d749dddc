"""The command `metric-network`: train a network that measures pictures or teaches generators."""

from __future__ import annotations

import argparse
import sys

from t2i_course import checkpoints, latent_space, multitask
from t2i_course.commands.console import add_shared, check_steps, command_line, say
from t2i_course.metrics import caption_matcher, photo_features, scene_features
from t2i_course.metrics.networks import train_network
from t2i_course.scenes import drawing
from t2i_course.text_encoder import TextEncoder

MODULES = (scene_features, photo_features, caption_matcher, multitask, latent_space)
PREPARE = {module.NAME: module.prepare for module in MODULES}
READING = (caption_matcher.NAME, multitask.NAME, latent_space.NAME)  # they take a text encoder
CROWDED = 50_000  # scenes that the captioner learns from, most of them with three objects


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add which network, what it learns from, and how long."""
    add = parser.add_argument
    add("network", choices=PREPARE, help="scene-features, for FD-scenes; caption-matcher, for "
        "retrieval; photo-features, for distances of photos, trained without labels; captioner, "
        "which words pictures and teaches a generator word by word, and draws "
        f"{CROWDED:,} scenes to learn from, most with three objects, unless --data is given; "
        "shared-space, one space for pictures and captions, which may teach one, too")  # fmt: skip
    add_shared(parser, "--data")
    add("--encoder", metavar="NAME|PATH", help="of caption-matcher, captioner and "
        "shared-space; default: caption-bert")  # fmt: skip
    add("--steps", type=int, help="default: 3000, for shared-space 1800, for captioner 8000")
    add("--size", type=int, default=64, help="side of the pictures, pixels; default: %(default)s")
    add_shared(parser, "--on-bad-image")
    add("--output", metavar="NAME|PATH", help="default: my-NETWORK")
    add_shared(parser, "--seed", "--device")


def run(args: argparse.Namespace) -> int:
    """Train a network, and write its weights and model card."""
    if args.steps is not None:
        check_steps(args)
    output = checkpoints.check_output(args.output or f"my-{args.network}")
    pictures, device, bars = args.settings.data, args.settings.device, sys.stderr.isatty()
    encoder = None
    if args.network in READING:
        encoder = TextEncoder(args.encoder, device=device)
    if args.data is None and args.network == scene_features.NAME:
        pictures = "scenes"
    elif args.data is None and args.network == multitask.NAME and pictures == "scenes":
        pictures = str(drawing.more_scenes(CROWDED, crowded=True, progress=bars))
    file = train_network(
        PREPARE[args.network],
        pictures,
        output,
        args.steps,
        args.size,
        args.settings.seed,
        str(device),
        encoder,
        on_bad_image=args.on_bad_image,
        command=command_line(args),
        progress=bars,
    )
    say(f"weights: {file}")
    return 0
