"""The command `evaluate`: measure what a model draws, or a folder of pictures."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from t2i_course import data, generation, report, runtime
from t2i_course.checkpoints import checkpoint_path
from t2i_course.commands.console import command_line, given, note, say
from t2i_course.metrics import held_out, judged_pictures, protocol
from t2i_course.metrics.instruments import load_instruments
from t2i_course.photos import shared_pictures


def run(args: argparse.Namespace) -> int:
    """Measure a model's pictures, or a folder of them; print the table, add rows to the ledger."""
    ledger = report.check_name(args.ledger)
    current = runtime.settings(os.environ | given(T2I_DATA=args.data))
    device, bars = runtime.choose_device(args.device), sys.stderr.isatty()
    grid = Path(args.grid).expanduser() if args.grid else None
    if grid is not None:
        generation.check_picture_path(grid)
    if args.pictures is None:
        generator, encoder, card = generation.load_model(args.model, device, args.truncation)
        size = generator.image_size
    else:
        folder = judged_pictures.read_drawn(args.pictures, bars)
        size = folder.size
    if current.data != "scenes":
        val = data.find_data(current.data, "val")
        if args.pictures is None and "trained_on" in card:
            shared_pictures.check_unseen(card["trained_on"], val, args.model)
        elif args.pictures is None and card["data"] != "scenes":
            note(f"the card of {args.model} does not say which captions it has learnt from")
        shared_pictures.check_splits(val.folder)  # real pictures of train are measured as well
    held = held_out.open_held_out(current.data, args.split, size, args.on_bad_image, bars)
    if args.pictures is None:
        rows = held_out.choose_captions(held, 2000 if args.samples is None else args.samples)
    else:
        judged = judged_pictures.match_captions(folder, held, args.samples)
        rows = judged.caption_rows
    if args.fid or args.inception_weights:
        protocol.check_samples(len(rows), held)  # before a download
    instruments = load_instruments(
        held, args.extractor, args.matcher, args.fid, args.inception_weights, device, bars,
        args.clip_weights,
    )  # fmt: skip
    if args.pictures is None:
        if card["data"] != held.data:
            note(f"{args.model} was trained on {card['data']} and is judged on {held.data}")
        judged = judged_pictures.draw_captions(
            checkpoint_path(args.model).name, generator, encoder, held, rows, args.seed, bars
        )
    if grid is not None:
        judged_pictures.write_pairs(grid, judged, held)
        say(f"grid: {grid}")
    found = protocol.evaluate(judged, held, instruments, progress=bars)
    say(str(found))
    if ledger is not None:
        command = command_line(args)
        say(f"ledger: {report.add_rows(f'{ledger}.json', found.rows(ledger, command))}")
    return 0
