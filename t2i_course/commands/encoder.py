"""The command `encoder`: pre-train the small BERT, caption-bert, or one of your own captions."""

from __future__ import annotations

import argparse

from t2i_course.commands.console import add_shared, command_line, say
from t2i_course.scenes import pretraining


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is read, and how long."""
    add = parser.add_argument
    add("--captions", metavar="FILE", action="append", default=[],
        help="a COCO captions file to learn from as well; may be repeated")  # fmt: skip
    add("--data", metavar="FOLDER", help="learn the training captions of this folder in COCO's "
        "layout, in any language, in place of those of scenes")  # fmt: skip
    add("--output", metavar="NAME|PATH", help="a name in data/encoders, or a path; default: "
        "caption-bert")  # fmt: skip
    add("--mlm-steps", type=int, help="steps on masked words")
    add("--contrastive-steps", type=int, help="steps on pairs of captions")
    add("--reading-steps", type=int, help="steps in which linear layers read the facts")
    add_shared(parser, "--seed", "--device")


def run(args: argparse.Namespace) -> int:
    """Pre-train caption-bert, or with --data an encoder of those captions alone."""
    steps = {
        "mlm_steps": args.mlm_steps,
        "contrastive_steps": args.contrastive_steps,
        "reading_steps": args.reading_steps,
    }
    folder = pretraining.pretrain(
        captions_files=args.captions,
        output=args.output,
        seed=args.settings.seed,
        device=str(args.settings.device),
        folder=args.data,
        command=command_line(args),
        **{name: number for name, number in steps.items() if number is not None},
    )
    say(f"encoder: {folder}")
    return 0
