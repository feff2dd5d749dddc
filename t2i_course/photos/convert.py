"""Make a folder in COCO's layout from pictures and a table of captions."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.photos.caption_table import CaptionTable
from t2i_course.photos.coco_folder import check_choice, leads_out
from t2i_course.photos.pictures import SKIP_HINT

SPLIT = "train"  # the course itself divides a folder that has one split only


@dataclass(frozen=True)
class Converted:
    """What came of a table.

    Attributes:
        folder: the new folder, in COCO's layout, with so many pictures and captions.
        columns: how the table was understood.
        left_out: what is wrong with each picture that was left out.
    """

    folder: Path
    pictures: int
    captions: int
    columns: str
    left_out: list[str]


def convert_table(
    table: str | Path,
    pictures: str | Path,
    output: str | Path,
    on_bad_image: str = "raise",
) -> Converted:
    """Write a folder in COCO's layout.

    Pictures are linked where the disk allows it, else copied; the originals stay as they are.

    Args:
        table: see `caption_table`.
        pictures: the folder that its file names are relative to.
        output: the new folder; it must not exist.
        on_bad_image: "raise", or "skip": leave out pictures that are missing or no pictures.

    Raises:
        FileNotFoundError: the table, the folder or a picture is missing.
        FileExistsError: `output` exists.
        ValueError: the table is not one, or a picture cannot be opened; the message names the line.
    """
    table, pictures, output = (Path(p).expanduser() for p in (table, pictures, output))
    check_choice(on_bad_image)
    if not pictures.is_dir():
        raise FileNotFoundError(f"no folder of pictures {pictures}: name the one that holds them")
    if output.exists():
        raise FileExistsError(f"{output} exists: name a new folder, or remove it")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"no folder {output.parent}: make it first, or name another place")
    read = CaptionTable(table, pictures)
    captions, sizes, left_out = _collect(read, on_bad_image)
    images, entries = [], []
    for number, (name, texts) in enumerate(captions.items(), start=1):
        images.append({"id": number, "file_name": name} | sizes[name])
        entries += [{"image_id": number, "caption": text} for text in texts]
    entries = [{"id": number} | entry for number, entry in enumerate(entries, start=1)]
    document = {"info": {"description": table.name}, "images": images, "annotations": entries}
    with runtime.atomic_folder(output) as whole:
        for name in captions:
            _link(pictures / name, whole / SPLIT / name)
        file = whole / "annotations" / f"captions_{SPLIT}.json"
        file.parent.mkdir()
        file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return Converted(output, len(images), len(entries), str(read.columns), left_out)


def _collect(
    read: CaptionTable, on_bad_image: str
) -> tuple[dict[str, list[str]], dict[str, dict[str, int]], list[str]]:
    """Gather captions and sizes by the pictures' names, and what is wrong with the others."""
    captions, sizes, faults = {}, {}, {}
    for line, written, name, texts in tqdm(read.captions(), disable=None):
        if written in faults or name in faults:
            continue
        try:
            if name is None:
                raise _missing(written, read.pictures)
            if name not in sizes:
                sizes[name] = _size(read.pictures / name)
            captions.setdefault(name, []).extend(texts)
        except (FileNotFoundError, ValueError) as error:
            fault = f"{read.table}, line {line}: {error}"
            if on_bad_image == "raise":
                raise type(error)(fault) from error
            faults[name or written] = fault
    if not captions:
        raise ValueError(
            f"{read.table} names no picture that can be read: {next(iter(faults.values()))}"
        )
    return captions, sizes, list(faults.values())


def _missing(name: str, pictures: Path) -> Exception:
    if leads_out(name):
        return ValueError(f"{name!r} leads out of {pictures}")
    if os.path.islink(pictures / name):
        return FileNotFoundError(f"{pictures / name} is a link to a file that is not there")
    return FileNotFoundError(
        f"no picture {pictures / name}. Correct the name, name the folder that it is relative to, "
        f"or {SKIP_HINT}"
    )


def _size(picture: Path) -> dict[str, int]:
    """Width and height of a picture that can be opened."""
    try:
        with Image.open(picture) as image:
            return {"width": image.width, "height": image.height}
    except Exception as error:  # of damaged files nearly any
        raise ValueError(f"{picture} is no picture ({error}). Mend it, or {SKIP_HINT}") from error


def _link(source: Path, target: Path) -> None:
    """Give a file, or what a link leads to, a second name; where that cannot be, copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
