"""The command line: `python -m t2i_course doctor | download | train | generate | evaluate | ...`.

An expected error is one line on stderr and exit status 2; with T2I_DEBUG=1 it is a traceback.
A command is a file in `t2i_course.commands` with a function `run`, imported when it is asked for,
so that `--help` and `doctor` need no library.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from t2i_course import __version__
from t2i_course.commands.console import MODELS, PRESETS, note


def build_parser(preset: str | None = None) -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m t2i_course", description="Text to image from scratch: the command line."
    )
    parser.add_argument("--version", action="version", version=f"t2i_course {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("doctor", help="check that everything the course needs is there")

    fetch = commands.add_parser("download", help="download COCO")
    add = fetch.add_argument
    add("--split", choices=("train", "val", "all"), default="val", help="val 1 GB, train 18 GB in "
        "2017; captions 0.2 GB come with either; default: %(default)s")  # fmt: skip
    add("--year", choices=("2017", "2014"), default="2017", help="default: %(default)s")
    add("--subset", type=int, metavar="N", help="the first N images of each split only, one by one")
    add("--mirror", metavar="URL", help="in place of COCO's own hosts, with the same paths below")
    add("--output", metavar="FOLDER", help="default: data/coco")

    convert = commands.add_parser("convert", help="make a folder in COCO's layout from a table")
    add = convert.add_argument
    add("table", metavar="CAPTIONS.csv", help="file names and captions, by a header such as "
        "image,caption, or as Flickr8k and Flickr30k have them")  # fmt: skip
    add("pictures", metavar="FOLDER", help="the file names are relative to it")
    add("--on-bad-image", choices=("raise", "skip"), default="raise",
        help="what to do with a missing or damaged picture; default: %(default)s")  # fmt: skip
    add("--output", metavar="FOLDER", required=True, help="a new folder")

    train = commands.add_parser("train", help="train a generator")
    add = train.add_argument
    add("--model", choices=MODELS, default="baseline", help="default: %(default)s")
    add("--data", metavar="DATA", help="scenes, or a folder in COCO's layout, or of shards; "
        "default: T2I_DATA")  # fmt: skip
    add("--encoder", metavar="NAME", help="text encoder, by name or folder; default: caption-bert")
    add("--pooling", choices=("mean", "cls"), default="mean", help="default: %(default)s")
    add("--profile", choices=("fast", "full"), help="how long to train; default: T2I_PROFILE")
    add("--preset", choices=PRESETS, help="options for photos: coco-day for a day of one GPU on "
        "COCO's train2017, val-hour for an hour on val2017; what else is given goes "
        "before")  # fmt: skip
    add("--init", metavar="NAME|PATH", help="begin with the weights of this checkpoint, and with "
        "those of its discriminator if they are there")  # fmt: skip
    add("--init-discriminator", metavar="NAME|PATH", help="begin with the discriminator of this "
        "checkpoint")  # fmt: skip
    add("--teach-parts", action="store_true", help="with --set parts=on: teach the reader of parts "
        "that comes with --init, too")  # fmt: skip
    add("--steps", type=int, help="updates; default: by profile")
    add("--batch-size", type=int, help="images a step, over all processes; default: by model")
    add("--accumulate", type=int, default=1, metavar="N", help="take a step in N parts, for small "
        "memory; default: %(default)s")  # fmt: skip
    add("--learning-rate", type=float, help="default: by model; the GAN's two are set by --set")
    add("--set", metavar="NAME=VALUE", action="append", default=[], dest="ingredients",
        help="an ingredient of the GAN, such as penalty=r1; may be repeated")  # fmt: skip
    add("--captioner", metavar="NAME|PATH", help="network for --set redescription=WEIGHT; default: "
        "captioner on scenes, none on photos")  # fmt: skip
    add("--average-decay", type=float, default=0.999, help="share of the old in averaged weights; "
        "0: no averages; default: %(default)s")  # fmt: skip
    add("--size", type=int, default=64, help="side of the images, pixels; default: %(default)s")
    add("--precision", choices=("auto", "float32", "bf16"), default="auto",
        help="auto takes bf16 where it is faster; default: %(default)s")  # fmt: skip
    add("--compile", action="store_true", help="by torch.compile: minutes before the first step, "
        "faster ones then on a GPU")  # fmt: skip
    add("--scenes", type=int, metavar="N", help="number of training pictures, drawn on "
        "first use, where the data are scenes; default: 10000")  # fmt: skip
    add("--crowded", action="store_true", help="with --scenes: most of them with three objects")
    add("--flips", action="store_true", help="mirror every other photo, unless its caption says "
        "left or right")  # fmt: skip
    add("--checkpoint-every", type=int, default=500, metavar="N", help="default: %(default)s steps")
    add("--checkpoint-minutes", type=float, default=0.0, metavar="N", help="and after so many "
        "minutes; default: 0, off")  # fmt: skip
    add("--validate-every", type=int, default=500, metavar="N", help="default: %(default)s steps")
    add("--evaluate-every", type=int, default=0, metavar="N", help="measure the pictures every N "
        "steps, into the run's evaluations.jsonl; default: 0, off")  # fmt: skip
    add("--evaluate-samples", type=int, default=2000, metavar="N", help="default: %(default)s")
    _add_metric_networks(train)
    add("--tensorboard", action="store_true", help="write losses, speed and evaluations for "
        "TensorBoard, into data/runs/NAME")  # fmt: skip
    add("--ledger", metavar="NAME", help="add losses, speed and memory to data/results/NAME.json")
    add("--output", metavar="NAME|PATH", help="where the weights go: a name in data/checkpoints, "
        "or a path; default: my-MODEL")  # fmt: skip
    both = train.add_mutually_exclusive_group()
    both.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    both.add_argument("--restart", action="store_true", help="throw the last checkpoint away")
    _add_common(train)
    train.set_defaults(**PRESETS.get(preset, {}))

    generate = commands.add_parser("generate", help="draw prompts with a trained generator")
    add = generate.add_argument
    add("prompt", nargs="*", help="what to draw")
    add("--prompts", metavar="FILE", help="a file of prompts, UTF-8, one a line")
    add("--count", type=int, default=8, help="samples of each prompt; default: %(default)s")
    add("--model", metavar="NAME|PATH", default="gan", help="a name in data/checkpoints, or a "
        "path; default: %(default)s")  # fmt: skip
    add("--output", metavar="FILE.png", help="where the grid goes; default: generated.png, unless "
        "--output-dir is given")  # fmt: skip
    add("--output-dir", metavar="DIR", help="write one PNG a sample and captions.json here")
    add("--overwrite", action="store_true", help="replace what an earlier generate wrote in DIR")
    _add_truncation(generate)
    _add_common(generate)

    evaluate = commands.add_parser("evaluate", help="measure what a model draws")
    add = evaluate.add_argument
    either = evaluate.add_mutually_exclusive_group()
    either.add_argument("--model", metavar="NAME|PATH", default="gan", help="a name in "
        "data/checkpoints, or a path; default: %(default)s")  # fmt: skip
    either.add_argument("--pictures", metavar="DIR", help="a folder of pictures with captions.json,"
        " as `generate --output-dir` writes it")  # fmt: skip
    add("--data", metavar="DATA", help="scenes, or a folder in COCO's layout, or of shards; "
        "default: T2I_DATA")  # fmt: skip
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
    _add_truncation(evaluate)
    _add_metric_networks(evaluate)
    add("--ledger", metavar="NAME", help="add the rows to data/results/NAME.json")
    _add_common(evaluate)

    encoder = commands.add_parser("encoder", help="pre-train the small BERT, caption-bert")
    add = encoder.add_argument
    add("--captions", metavar="FILE", action="append", default=[],
        help="a COCO captions file to learn from as well; may be repeated")  # fmt: skip
    add("--data", metavar="FOLDER", help="learn the training captions of this folder in COCO's "
        "layout, in any language, in place of those of scenes")  # fmt: skip
    add("--output", metavar="FOLDER", help="default: data/encoders/caption-bert")
    add("--mlm-steps", type=int, help="steps on masked words")
    add("--contrastive-steps", type=int, help="steps on pairs of captions")
    add("--reading-steps", type=int, help="steps in which linear layers read the facts")
    _add_common(encoder)

    wordings = commands.add_parser("wordings", help="teach a copy of a GAN's text encoder freer "
        "wordings, for its prompts")  # fmt: skip
    add = wordings.add_argument
    add("--model", metavar="NAME|PATH", default="gan", help="trained on scenes, with parts; its "
        "card names the copy then; default: %(default)s")  # fmt: skip
    add("--init", metavar="NAME|PATH", help="an encoder that earlier lessons made, to go on with; "
        "default: that of the GAN's training")  # fmt: skip
    add("--steps", type=int, default=4000, help="default: %(default)s")
    add("--output", metavar="NAME|PATH", default="my-caption-bert-free", help="a new folder, in "
        "data/encoders, or a path; default: %(default)s")  # fmt: skip
    _add_common(wordings)

    network = commands.add_parser("metric-network", help="train a network that measures pictures")
    add = network.add_argument
    add("network", choices=("scene-features", "caption-matcher", "photo-features", "captioner"),
        help="scene-features, for FD-scenes; caption-matcher, for retrieval; photo-features, for "
        "distances of photos, trained without labels; captioner, which words pictures and teaches "
        "a generator word by word")  # fmt: skip
    add("--data", metavar="scenes|FOLDER", help="what to learn from; scene-features know scenes "
        "only; default: T2I_DATA, else scenes")  # fmt: skip
    add("--encoder", metavar="NAME|PATH", help="of caption-matcher and captioner; default: "
        "caption-bert")  # fmt: skip
    add("--steps", type=int, default=3000, help="default: %(default)s")
    add("--size", type=int, default=64, help="side of the pictures, pixels; default: %(default)s")
    add("--on-bad-image", choices=("raise", "skip"), default="raise", help="stop, or leave the "
        "image out and say so; default: %(default)s")  # fmt: skip
    add("--output", metavar="NAME|PATH", help="default: my-NETWORK")
    _add_common(network)

    _add_sound_commands(commands)
    return parser


def _add_sound_commands(commands: argparse._SubParsersAction) -> None:
    """Describe the commands of video to audio."""
    sound = commands.add_parser("sound", help="hear a video of bouncing balls")
    add = sound.add_argument
    add("clip", metavar="CLIP", help="a video file of any kind; its first 30 s are read")
    add("--output", metavar="FILE.wav", default="sound.wav", help="default: %(default)s")
    add("--video", metavar="FILE.mp4", help="the clip with its sound, too")
    add("--model", metavar="NAME|PATH", default="video-to-audio", help="a name in "
        "data/checkpoints, or a path; default: %(default)s")  # fmt: skip
    add("--device", help="auto, cpu, cuda, cuda:N or mps; default: T2I_DEVICE")

    clips = commands.add_parser("clips", help="draw clips of bouncing balls, with their true sound")
    add = clips.add_argument
    add("--output", metavar="FOLDER", required=True, help="a new folder")
    add("--count", type=int, default=6, help="default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")

    train = commands.add_parser("train-sound", help="train a network of video to audio")
    add = train.add_argument
    add("network", nargs="?", choices=("video-to-audio", "sound-features"),
        default="video-to-audio", help="video-to-audio, which sound hears with; sound-features, "
        "for FD-sounds; default: %(default)s")  # fmt: skip
    add("--steps", type=int, default=3200, help="default: %(default)s")
    add("--output", metavar="NAME|PATH", help="default: my-NETWORK")
    _add_common(train)


def _add_metric_networks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--extractor", metavar="NAME|PATH", help="network for distances; default: scene-features "
        "on scenes, none on photos")  # fmt: skip
    add("--matcher", metavar="NAME|PATH", help="network for retrieval; default: caption-matcher on "
        "scenes, none on photos")  # fmt: skip
    add("--on-bad-image", choices=("raise", "skip"), default="raise",
        help="what to do with a missing or damaged picture; default: %(default)s")  # fmt: skip


def _add_truncation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--truncation", type=float, default=1.0, metavar="PSI", help="of the style "
        "decoder: 0 draws one picture a caption, 1 is off; default: %(default)s")  # fmt: skip


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps; default: T2I_DEVICE")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a prompt may hold what the console cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    if preset := getattr(args, "preset", None):
        args = build_parser(preset).parse_args(argv)
    args.argv = argv
    show_warning = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: note(str(message))
    try:
        command = importlib.import_module(f"t2i_course.commands.{args.command.replace('-', '_')}")
        return command.run(args)
    except KeyboardInterrupt as stop:
        print(f"t2i_course: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("T2I_DEBUG") == "1":
            raise
        print(f"t2i_course: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        warnings.showwarning = show_warning


if __name__ == "__main__":
    sys.exit(main())
