"""A folder in COCO's layout with real JPEG files, for the tests of what reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32  # pixels, of packed pictures
WORDS = "a red bus and two people wait near the old station in rain".split()


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours with edges, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_photo(path: Path, kind: str, seed: int) -> None:
    """Write a real JPEG: of some size, grey, CMYK, or stored lying on its side."""
    shapes = {"wide": (640, 480), "tall": (213, 320), "tiny": (20, 28), "odd": (101, 67)}
    image = photo(*shapes.get(kind, (160, 120)), seed)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise
        image.save(path, quality=90, exif=exif)
    elif kind == "bad exif":
        image.save(path, quality=90, exif=b"Exif\0\0no such thing")
    else:
        mode = {"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        image.convert(mode).save(path, quality=90)


KINDS = [
    "wide",
    "tall",
    "gray",
    "cmyk",
    "turned",
    "tiny",
    "odd",
    "bad exif",
    "wide",
    "plain",
    "gray",
]


def make_split(folder: Path, name: str, kinds: list[str], first_id: int) -> None:
    """Write one split in COCO's layout; its ids do not rise with the order of its list."""
    (folder / name).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(first_id)
    images, annotations = [], []
    for number, kind in enumerate(kinds):
        image_id = first_id + 7 * (-number % len(kinds))
        file_name = f"{image_id:012d}.jpg"
        write_photo(folder / name / file_name, kind, image_id)
        images.append({"id": image_id, "file_name": file_name, "license": 1})
        for _ in range(6 if number == 2 else 5):
            caption = f"{' '.join(rng.choice(WORDS, 6))} {len(annotations)}"
            entry = {"id": 10_000 + len(annotations), "image_id": image_id, "caption": caption}
            annotations.append(entry)
    rng.shuffle(annotations)
    write_captions(folder, name, {"info": {}, "images": images, "annotations": annotations})


def read_captions(folder: Path, name: str = "train2017") -> dict:
    file = folder / "annotations" / f"captions_{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def write_captions(folder: Path, name: str, document: dict) -> None:
    text = json.dumps(document, ensure_ascii=False)
    (folder / "annotations" / f"captions_{name}.json").write_text(text, encoding="utf-8")


def cache_files(cache: Path) -> list[str]:
    """What a killed or failed process could have left, hidden files too; locks do not count."""
    return sorted(file.name for file in cache.iterdir() if file.suffix != ".lock")
