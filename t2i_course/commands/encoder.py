"""The command `encoder`: pre-train the small BERT, caption-bert, or one of your own captions."""

from __future__ import annotations

import argparse

from t2i_course.commands.console import command_line, say
from t2i_course.scenes import pretraining


def run(args: argparse.Namespace) -> int:
    """Pre-train caption-bert, or with --data an encoder of those captions alone."""
    steps = {
        "mlm_steps": args.mlm_steps,
        "contrastive_steps": args.contrastive_steps,
        "reading_steps": args.reading_steps,
    }
    files = list(args.captions)
    if args.data is not None:
        files += pretraining.caption_files(args.data)
    folder = pretraining.pretrain(
        captions_files=files,
        output=args.output,
        seed=args.seed,
        device=args.device,
        scenes=args.data is None,
        command=command_line(args),
        **{name: number for name, number in steps.items() if number is not None},
    )
    say(f"encoder: {folder}")
    return 0
