"""The command `generate`: from prompts to pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from t2i_course import generation
from t2i_course.commands.console import add_shared, note, say


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is drawn, by what, and whereto."""
    add = parser.add_argument
    add("prompt", nargs="*", help="what to draw")
    add("--prompts", metavar="FILE", help="a file of prompts, UTF-8, one a line")
    add("--count", type=int, default=8, help="samples of each prompt; default: %(default)s")
    add("--model", metavar="NAME|PATH", default="gan", help="a name in data/checkpoints, or a "
        "path; default: %(default)s")  # fmt: skip
    add("--output", metavar="FILE.png", help="where the grid goes; default: generated.png, unless "
        "--output-dir is given")  # fmt: skip
    add("--output-dir", metavar="DIR", help="write one PNG a sample and captions.json here")
    add("--overwrite", action="store_true", help="replace what an earlier generate wrote in DIR")
    add_shared(parser, "--truncation", "--seed", "--device")


def run(args: argparse.Namespace) -> int:
    """Draw prompts: a grid, a folder of samples, or both."""
    prompts = generation.read_prompts(args.prompt, args.prompts)
    folder = Path(args.output_dir).expanduser() if args.output_dir else None
    picture = Path(args.output or "generated.png").expanduser()
    wants_picture = args.output is not None or folder is None
    if wants_picture:
        generation.check_picture_path(picture)
    if folder is not None:
        generation.check_sample_folder(folder, args.overwrite)
    device, seed = args.settings.device, args.settings.seed
    generator, encoder, card = generation.load_model(args.model, device, args.truncation)
    for remark in generation.check_prompts(encoder, prompts, card):
        note(remark)
    if generator.noise_dim == 0 and args.count > 1:
        note(f"the model {args.model} draws without noise: all samples of a prompt are the same")

    batches = generation.sample(generator, encoder, prompts, args.count, seed)
    if wants_picture:
        images = torch.cat(list(batches))  # [P * C, 3, S, S]
        batches = iter(images.split(generation.BATCH))
    if folder is not None:
        generation.write_samples(folder, batches, prompts, args.count, seed, args.model)
        say(f"{len(prompts) * args.count} samples: {folder}")
    if wants_picture:
        generation.write_grid(picture, images, prompts)
        say(f"grid: {picture}")
    return 0
