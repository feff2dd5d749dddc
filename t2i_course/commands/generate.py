"""The command `generate`: from prompts to pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from t2i_course import generation, runtime
from t2i_course.commands.console import note, say


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
    device = runtime.choose_device(args.device)
    generator, encoder, card = generation.load_model(args.model, device, args.truncation)
    for remark in generation.check_prompts(encoder, prompts, card):
        note(remark)
    if generator.noise_dim == 0 and args.count > 1:
        note(f"the model {args.model} draws without noise: all samples of a prompt are the same")

    batches = generation.sample(generator, encoder, prompts, args.count, args.seed)
    if wants_picture:
        images = torch.cat(list(batches))  # [P * C, 3, S, S]
        batches = iter(images.split(generation.BATCH))
    if folder is not None:
        generation.write_samples(folder, batches, prompts, args.count, args.seed, args.model)
        say(f"{len(prompts) * args.count} samples: {folder}")
    if wants_picture:
        generation.write_grid(picture, images, prompts)
        say(f"grid: {picture}")
    return 0
