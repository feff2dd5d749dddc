"""Make a folder in COCO's layout from pictures and a table of captions.

The table is a CSV file of two columns, file name and caption, with a row for each caption: the form
in which Flickr8k, Flickr30k and most collections of one's own come.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.photos.coco_folder import leads_out

SPLIT = "train"  # the course itself divides a folder that has one split only


def convert_table(
    table: str | Path, pictures: str | Path, output: str | Path, progress: bool | None = None
) -> Path:
    """Write a folder in COCO's layout.

    Pictures are linked where the disk allows it, else copied; the originals stay as they are.

    Args:
        table: the CSV file; a header row is passed over, and commas, semicolons, tabs or bars may
            stand between the columns.
        pictures: the folder that the file names are relative to.
        output: the new folder; it must not exist.
        progress: show a bar; None where there is a terminal.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: the table, the folder or a picture is missing.
        FileExistsError: `output` exists.
        ValueError: the table is not one, or a picture cannot be opened; the message names the line.
    """
    table, pictures, output = (Path(p).expanduser() for p in (table, pictures, output))
    if not pictures.is_dir():
        raise FileNotFoundError(f"no folder of pictures {pictures}: name the one that holds them")
    if output.exists():
        raise FileExistsError(f"{output} exists: name a new folder, or remove it")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"no folder {output.parent}: make it first, or name another place")
    captions: dict[str, list[str]] = {}
    for line, name, caption in read_table(table, pictures):
        if leads_out(name):
            raise ValueError(f"{table}, line {line}: {name!r} leads out of {pictures}")
        if not (pictures / name).is_file():
            raise FileNotFoundError(
                f"{table}, line {line}: no picture {pictures / name}. Correct the name, or name "
                "the folder that it is relative to"
            )
        captions.setdefault(name, []).append(caption)
    with runtime.atomic_folder(output) as whole:
        images, entries = [], []
        for number, (name, texts) in enumerate(
            tqdm(captions.items(), disable=None if progress is None else not progress), start=1
        ):
            images.append({"id": number, "file_name": name} | _size(pictures / name, table))
            _link(pictures / name, whole / SPLIT / name)
            entries += [{"image_id": number, "caption": text} for text in texts]
        entries = [{"id": number} | entry for number, entry in enumerate(entries, start=1)]
        document = {"info": {"description": table.name}, "images": images, "annotations": entries}
        file = whole / "annotations" / f"captions_{SPLIT}.json"
        file.parent.mkdir()
        file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return output


def read_table(table: Path, pictures: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, file name, caption) of each row.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not UTF-8, holds no caption, or a row has other than two columns.
    """
    if not table.is_file():
        raise FileNotFoundError(f"no table {table}: give a CSV file of file names and captions")
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 ({error}): save it as UTF-8") from error
    first = text.split("\n", 1)[0]
    separator = next((mark for mark in "\t|;," if mark in first), ",")
    rows = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    found = 0
    for row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) > 2 and separator == ",":  # a caption with a comma that nobody quoted
            cells = [cells[0], ",".join(row[1:]).strip()]
        if len(cells) != 2 or not all(cells):
            raise ValueError(
                f"{table}, line {rows.line_num}: needed are a file name and a caption with "
                f"{separator!r} between them, found {row}"
            )
        header = found == 0 and not Path(cells[0]).suffix and not (pictures / cells[0]).exists()
        if not header:
            found += 1
            yield rows.line_num, cells[0], cells[1]
    if not found:
        raise ValueError(f"{table} holds no caption")


def _size(picture: Path, table: Path) -> dict[str, int]:
    """Width and height of a picture that can be opened."""
    try:
        with Image.open(picture) as image:
            return {"width": image.width, "height": image.height}
    except OSError as error:
        raise ValueError(f"{picture}, named in {table}, is no picture: {error}") from error


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where that cannot be, copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
