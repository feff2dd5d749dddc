"""The command `evaluate`: measure what a model draws, or a folder of pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from t2i_course import data, generation, report
from t2i_course.checkpoints import checkpoint_path
from t2i_course.commands.console import add_shared, command_line, note, say
from t2i_course.metrics import held_out, protocol
from t2i_course.photos import shared_pictures
from t2i_course.report import Evaluation


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is measured, on what, and with what."""
    add = parser.add_argument
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--model", metavar="NAME|PATH", default="gan", help="a name in "
        "data/checkpoints, or a path; default: %(default)s")  # fmt: skip
    either.add_argument("--pictures", metavar="DIR", help="a folder of pictures with captions.json,"
        " as `generate --output-dir` writes it")  # fmt: skip
    add_shared(parser, "--data")
    add("--split", choices=("val", "test"), default="val", help="whose captions: val for choices, "
        "test for what is reported; default: %(default)s")  # fmt: skip
    add("--captions", metavar="FILE", help="scene accuracy on other captions with what they state, "
        "five pictures of each, in place of all else; see benchmarks/own_words.txt")  # fmt: skip
    add("--samples", type=int, metavar="N", help="pictures, one a caption; default: 2000, or all "
        "of DIR")  # fmt: skip
    add("--fid", action="store_true", help="FID, too; its weights are downloaded once (96 MB)")
    add("--inception-weights", metavar="FILE", help="FID, too, with weights from this file")
    add("--clip-weights", metavar="FOLDER", help="CLIP score, too, with CLIP's weights from this "
        "folder; a name on the hub, OWNER/NAME, is downloaded")  # fmt: skip
    add("--grid", metavar="FILE.png", help="the first 24 of the measured pictures beside the real "
        "ones, with their captions")  # fmt: skip
    add_shared(parser, "--truncation", "--extractor", "--matcher", "--on-bad-image")
    add("--ledger", metavar="NAME", help="add the rows to data/results/NAME.json")
    add_shared(parser, "--seed", "--device")


def run(args: argparse.Namespace) -> int:
    """Measure pictures; print the table, add rows to the ledger."""
    ledger = report.check_name(args.ledger)
    grid = Path(args.grid).expanduser() if args.grid else None
    if grid is not None:
        generation.check_picture_path(grid)
    model = None
    if args.pictures is None:
        model = generation.load_model(args.model, args.settings.device, args.truncation)
    if args.captions is None:
        found = _evaluate(args, model, grid)
    elif model is None or grid is not None:
        raise ValueError("--captions FILE is for a model, and goes without --grid")
    else:
        name, file = checkpoint_path(args.model).name, Path(args.captions).expanduser()
        found = protocol.evaluate_captions(
            name, *model[:2], file, seed=args.settings.seed, progress=sys.stderr.isatty()
        )
    say(str(found))
    if ledger is not None:
        rows = found.rows(ledger, command_line(args))
        say(f"ledger: {report.add_rows(f'{ledger}.json', rows)}")
    return 0


def _evaluate(args: argparse.Namespace, model: tuple | None, grid: Path | None) -> Evaluation:
    """Measure a model's pictures of held-out captions, or those of a folder."""
    current, bars = args.settings, sys.stderr.isatty()
    folder = held_out.read_drawn(args.pictures, bars) if model is None else None
    if current.data != "scenes":
        _check_photos(args, current.data, None if model is None else model[2])
    size = folder.images.shape[-1] if model is None else model[0].image_size
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
        current.device, bars,
    )  # fmt: skip
    varied = None
    if model is not None:
        generator, encoder, card = model
        if card["data"] != held.data:
            note(f"{args.model} was trained on {card['data']} and is measured on {held.data}")
        drawn = (checkpoint_path(args.model).name, generator, encoder, held)
        pictures = held_out.draw_captions(*drawn, rows, current.seed, bars)
        varied = held_out.draw_varied(*drawn, seed=current.seed, progress=bars)
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
    shared_pictures.check_splits(split.folder, args.split)  # those of train are measured as well
