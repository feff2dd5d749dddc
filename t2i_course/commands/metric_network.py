"""The command `metric-network`: train a network that measures pictures, or the captioner."""

from __future__ import annotations

import argparse
import os
import sys

from t2i_course import captioner, runtime
from t2i_course.commands.console import check_steps, command_line, given, say
from t2i_course.metrics import caption_matcher, photo_features, scene_features
from t2i_course.metrics.networks import train_network
from t2i_course.text_encoder import TextEncoder

READERS = (caption_matcher, captioner)  # those that take the text encoder's features or tokens
MODULES = {m.NAME: m for m in (scene_features, photo_features, *READERS)}


def run(args: argparse.Namespace) -> int:
    """Train scene-features, photo-features, the caption-matcher or the captioner."""
    check_steps(args)
    module = MODULES[args.network]
    data = runtime.settings(os.environ | given(T2I_DATA=args.data)).data
    if module is scene_features and args.data is None:
        data = "scenes"
    device = runtime.choose_device(args.device)
    file = train_network(
        module.prepare,
        data,
        args.output or f"my-{args.network}",
        args.steps,
        args.size,
        args.seed,
        args.device,
        TextEncoder(args.encoder, device=device) if module in READERS else None,
        on_bad_image=args.on_bad_image,
        command=command_line(args),
        progress=sys.stderr.isatty(),
    )
    say(f"weights: {file}")
    return 0
