"""The command `encoder`: pre-train the small BERT, caption-bert."""

from __future__ import annotations

import argparse

from t2i_course.commands.console import say
from t2i_course.scenes import pretraining


def run(args: argparse.Namespace) -> int:
    """Pre-train caption-bert."""
    steps = {
        "mlm_steps": args.mlm_steps,
        "contrastive_steps": args.contrastive_steps,
        "reading_steps": args.reading_steps,
    }
    folder = pretraining.pretrain(
        captions_files=args.captions,
        output=args.output,
        seed=args.seed,
        device=args.device,
        **{name: number for name, number in steps.items() if number is not None},
    )
    say(f"encoder: {folder}")
    return 0
