"""The command `evaluate`: measure what a model draws, or a folder of pictures."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from t2i_course import data, generation, report, runtime
from t2i_course.checkpoints import checkpoint_path
from t2i_course.commands.console import command_line, given, note, say
from t2i_course.metrics import held_out, protocol
from t2i_course.photos import shared_pictures


def run(args: argparse.Namespace) -> int:
    """Measure pictures; print the table, add rows to the ledger."""
    ledger = report.check_name(args.ledger)
    grid = Path(args.grid).expanduser() if args.grid else None
    if grid is not None:
        generation.check_picture_path(grid)
    device, bars = runtime.choose_device(args.device), sys.stderr.isatty()
    model = None
    if args.pictures is None:
        model = generation.load_model(args.model, device, args.truncation)
    name = checkpoint_path(args.model).name
    if args.captions is None:
        found = _evaluate(args, model, name, grid, device, bars)
    elif model is None or grid is not None:
        raise ValueError("--captions FILE is for a model, and goes without --grid")
    else:
        file = Path(args.captions).expanduser()
        found = protocol.evaluate_captions(name, *model[:2], file, seed=args.seed, progress=bars)
    say(str(found))
    if ledger is not None:
        rows = found.rows(ledger, command_line(args))
        say(f"ledger: {report.add_rows(f'{ledger}.json', rows)}")
    return 0


def _evaluate(
    args: argparse.Namespace,
    model: tuple | None,
    name: str,
    grid: Path | None,
    device: torch.device,
    bars: bool,
) -> report.Evaluation:
    """Measure a model's pictures of held-out captions, or those of a folder."""
    current = runtime.settings(os.environ | given(T2I_DATA=args.data))
    folder = held_out.read_drawn(args.pictures, bars) if model is None else None
    if current.data != "scenes":
        _check_photos(args, current.data, None if model is None else model[2])
    size = folder.size if model is None else model[0].image_size
    held = held_out.open_held_out(current.data, args.split, size, args.on_bad_image, bars)
    if model is None:
        pictures = held_out.match_captions(folder, held, args.samples)
        rows = pictures.caption_rows
    else:
        rows = held_out.choose_captions(held, 2000 if args.samples is None else args.samples)
    if args.fid or args.inception_weights:
        protocol.check_samples(len(rows), held)  # before a download
    networks = protocol.load_networks(
        held, args.extractor, args.matcher, args.fid, args.inception_weights, args.clip_weights,
        device, bars,
    )  # fmt: skip
    varied = None
    if model is not None:
        generator, encoder, card = model
        if card["data"] != held.data:
            note(f"{args.model} was trained on {card['data']} and is measured on {held.data}")
        drawn = (name, generator, encoder, held)
        pictures = held_out.draw_captions(*drawn, rows, args.seed, bars)
        varied = held_out.draw_varied(*drawn, seed=args.seed, progress=bars)
    if grid is not None:
        held_out.write_pairs(grid, pictures, held)
        say(f"grid: {grid}")
    return protocol.evaluate(pictures, held, networks, progress=bars, varied=varied)


def _check_photos(args: argparse.Namespace, name: str, card: dict | None) -> None:
    """Refuse photos that the model has learnt from, and a split that shares some with train."""
    split = data.find_data(name, args.split)
    if card is not None and "trained_on" in card:
        shared_pictures.check_unseen(card["trained_on"], split, args.model)
    elif card is not None and card["data"] != "scenes":
        note(f"the card of {args.model} does not say which captions it has learnt from")
    shared_pictures.check_splits(split.folder)  # real pictures of train are measured as well
