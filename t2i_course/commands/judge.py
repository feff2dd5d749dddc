"""The command `judge`: train a network that judges pictures."""

from __future__ import annotations

import argparse
import os
import sys

from t2i_course import captioner, runtime
from t2i_course.commands.console import check_steps, command_line, given, say
from t2i_course.metrics import caption_matcher, photo_features, scene_features
from t2i_course.scenes import drawing, part_lessons


def run(args: argparse.Namespace) -> int:
    """Train scene-features, photo-features, the caption-matcher, the captioner or a part-judge."""
    check_steps(args)
    common = {
        "output": args.output or f"my-{args.network}",
        "steps": args.steps,
        "seed": args.seed,
        "device": args.device,
        "command": command_line(args),
        "progress": sys.stderr.isatty(),
    }
    current = runtime.settings(os.environ | given(T2I_DATA=args.data))
    if args.network == captioner.NAME:
        common["begin"] = args.init
    elif args.network == "part-judge":
        common["begin"] = args.init or "gan"
    elif args.init is not None:
        raise ValueError(f"--init is for captioner and part-judge: {args.network} begins anew")
    if args.network == "scene-features":
        if args.data not in (None, "scenes"):
            raise ValueError("scene-features learn from scenes only: photos carry no facts")
        if args.size != drawing.SIDE:
            raise ValueError(f"--size {args.size}: scene-features read {drawing.SIDE} pixels")
        file = scene_features.train_scene_features(**common)
    elif args.network == "part-judge":
        file = part_lessons.teach_part_judge(current.data, **common)
    elif args.network == "photo-features":
        file = photo_features.train_photo_features(
            current.data, size=args.size, on_bad_image=args.on_bad_image, **common
        )
    else:
        learn = {
            caption_matcher.NAME: caption_matcher.train_caption_matcher,
            captioner.NAME: captioner.train_captioner,
        }[args.network]
        file = learn(
            current.data, size=args.size, encoder_name=args.encoder,
            on_bad_image=args.on_bad_image, **common,
        )  # fmt: skip
    say(f"weights: {file}")
    return 0
