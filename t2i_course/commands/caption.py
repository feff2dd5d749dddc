"""The command `caption`: from picture files to sentences."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from torch import Tensor

from t2i_course import multitask
from t2i_course.checkpoints import read_card
from t2i_course.commands.console import add_shared, note, say
from t2i_course.data import image_transform, to_uint8
from t2i_course.photos.pictures import decode_picture, upright
from t2i_course.scenes.caption_reader import is_true
from t2i_course.scenes.drawing import SIDE
from t2i_course.scenes.oracle import read_picture


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the pictures, who words them, and how long it searches."""
    add = parser.add_argument
    add("picture", nargs="+", metavar="PICTURE", help="a picture file of any kind and size; its "
        "central square is read")  # fmt: skip
    add("--model", metavar="NAME|PATH", default=multitask.NAME, help="a name in data/checkpoints, "
        "or a path; default: %(default)s")  # fmt: skip
    add("--width", type=int, default=4, metavar="K", help="captions that the search keeps at each "
        "word; 1 is greedy; default: %(default)s")  # fmt: skip
    add_shared(parser, "--device")


def run(args: argparse.Namespace) -> int:
    """Word each picture, and say how probable the caption is and whether the picture is a scene."""
    if args.width < 1:
        raise ValueError(f"--width {args.width}: choose 1 (greedy) or more")
    device, failed = args.settings.device, 0
    network, encoder = multitask.load_captioner(args.model, device)
    scenes = read_card(args.model)["data"] == "scenes"
    for name in args.picture:
        try:
            image = read_square(name, network.image_size)  # [3, S, S]
        except (ValueError, OSError) as error:
            note(str(error))
            failed += 1
            continue
        words, scores = network.search(image[None], encoder, args.width)
        (caption,) = multitask.to_text(words[:, 0], encoder)
        length = max(int((words[0, 0] == encoder.tokenizer.sep_token_id).int().argmax()), 1)
        sure = math.exp(float(scores[0, 0]) / length)
        say(f"{name}: {caption or '(nothing)'} ({sure:.0%} sure of a word, on average)")
        if scenes and (remark := doubt(caption, image)):
            note(f"{name}: {remark}")
    return 2 if failed else 0


def read_square(name: str, size: int) -> Tensor:
    """Read the central square of a picture file, upright: uint8 [3, size, size].

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: it is empty, or no picture.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{name} is a folder: name picture files")
    if not path.is_file():
        raise FileNotFoundError(f"no picture {name}: check the path")
    if not path.stat().st_size:
        raise ValueError(f"{name} is empty: copy it again")
    try:
        image = upright(decode_picture(path, name))
    except ValueError as error:
        why = str(error.__cause__ or error).splitlines()[0].replace(str(path), "the file")
        raise ValueError(f"{name} cannot be read as a picture ({why})") from error
    side = min(image.size)  # cropped first: a picture of one pixel's width would grow enormous
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    return to_uint8(image_transform(size)(square))


def doubt(caption: str, image: Tensor) -> str:
    """What is to be said against a caption of a scene's picture [3, S, S]; "" if nothing.

    The oracle reads the picture without any training, so it may contradict the network.
    """
    scene = read_picture(image.permute(1, 2, 0).numpy()) if image.shape[1] == SIDE else None
    if scene is None:
        return ""
    if not scene.readable:
        return "this is no scene that the model knows, so its caption may say anything"
    true = is_true(caption, scene)
    if true is None:
        return "the caption is no sentence of the grammar, so it was not checked"
    return "" if true else "the oracle reads the picture otherwise"
