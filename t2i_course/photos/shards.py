"""Shards: pictures and captions in tar files, as img2dataset and webdataset write them.

    train/00000.tar  train/00001.tar ...   split folders are named as in COCO's layout (SPLIT_NAMES)
    val/00000.tar ...
        000000012.jpg   the picture: .jpg, .jpeg, .png or .webp
        000000012.json  {"caption": a text, or a list of texts}, or else
        000000012.txt   the caption

A sample's key is its files' name up to the first dot of the last part. With one of the two splits
only, or with the tar files in the folder itself, the data are divided as a COCO folder is.

The tar files are read by the standard library, not by webdataset: it reads a shard from its
beginning to its end, and what is packed here is divided, decoded by several threads and gone on
with after a kill. For that one wants to know where each picture lies.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from t2i_course.coco_folder import (
    SKIP_HINT,
    SPLIT_NAMES,
    Split,
    check_choice,
    decode_picture,
    find_split,
    held_out_ids,
)

PICTURES = ("jpg", "jpeg", "png", "webp")
MEMBER = re.compile(r"(?:\./)?((?:.*/)?[^./][^./]*)\.([^/]+)")  # key, suffix
Place = tuple[int, int]  # first byte and number of bytes of a file in a shard


@dataclass(frozen=True)
class ShardSplit:
    """Where the shards of one part of a data set lie.

    Attributes:
        folder: the data set.
        image_folder: the folder of the tar files.
        role: "train" or "val".
        divided: whether the shards hold both parts.
    """

    folder: Path
    image_folder: Path
    role: str
    divided: bool

    @property
    def name(self) -> str:
        """What the folder of the tar files is called, such as "val"."""
        return self.image_folder.name

    @property
    def digest(self) -> str:
        """SHA-256 of the shards' names and lengths, which tells the data from others."""
        known = [[name, size] for name, size, _ in self.listing()]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def listing(self) -> list[tuple[str, int, int]]:
        """Return (name, bytes, time of change) of the shards, sorted by name."""
        status = [(file.name, file.stat()) for file in tar_files(self.image_folder)]
        return [(name, found.st_size, found.st_mtime_ns) for name, found in status]


def find_data(folder: str | os.PathLike[str], split: str) -> Split | ShardSplit:
    """Find a split in a folder of either layout: COCO's, or shards.

    Args:
        folder: the data set.
        split: "train" or "val".

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: see `coco_folder.find_split`.
    """
    return find_shards(folder, split) or find_split(folder, split)


def find_shards(folder: str | os.PathLike[str], split: str) -> ShardSplit | None:
    """Find a split in a folder of shards.

    Args:
        folder: the data set.
        split: "train" or "val"; the names tried for each stand in `SPLIT_NAMES`.

    Returns:
        None if the folder holds no shards, or has annotations/ and so COCO's layout.
    """
    folder = Path(folder).expanduser().resolve()
    if split not in SPLIT_NAMES or (folder / "annotations").is_dir():
        return None
    found = {}
    for role, names in SPLIT_NAMES.items():
        found[role] = next((folder / n for n in names if tar_files(folder / n)), None)
    other = found["val" if split == "train" else "train"]
    if found[split] and other:
        return ShardSplit(folder, found[split], split, divided=False)
    only = found[split] or other or (folder if tar_files(folder) else None)
    return only and ShardSplit(folder, only, split, divided=True)


def tar_files(folder: Path) -> list[Path]:
    """Return the tar files in a folder, sorted by name; none if there is no such folder."""
    files = folder.glob("*.tar") if folder.is_dir() else ()
    return sorted(f for f in files if f.is_file() and not f.name.startswith("."))


class ShardCaptions:
    """The samples of a split: their captions are read at once, their pictures when asked for.

    Items are (image, list of captions), as those of `CheckedCaptions`.

    Attributes:
        ids: number of each sample, counted over all shards in the order of their names, from 1.
        skipped: {"SHARD.tar: KEY": what is wrong with it} of the samples left out.
    """

    def __init__(
        self,
        split: ShardSplit,
        transform: Callable[[Any], Any] | None = None,
        on_bad_image: str = "raise",
    ) -> None:
        """Read where everything lies, and all captions.

        Args:
            split: from `find_shards`.
            transform: applied to each RGB PIL image.
            on_bad_image: "raise", or "skip": leave out samples without a picture or a caption.

        Raises:
            ValueError: a shard is cut short or no tar file; a sample has no picture, no caption or
                an empty one, two pictures, or the same file twice; no sample is left.
        """
        check_choice(on_bad_image)
        self.transform, self.shards = transform, tar_files(split.image_folder)
        self.ids, self.skipped = array("q"), {}
        self._places = array("q")  # three for each sample: shard, first byte, number of bytes
        self._texts: list[bytes] = []  # [key, captions] of each sample, as JSON: small in memory
        faults: dict[int, tuple[str, str]] = {}
        for number, (shard, key, place, found) in enumerate(self._samples(), start=1):
            self.ids.append(number)
            self._places.extend((shard, *place))
            self._texts.append(json.dumps([key, found]).encode())
            if isinstance(found, str):
                faults[number] = (f"{self.shards[shard].name}: {key}", found)
        if not self.ids:
            raise ValueError(f"the tar files in {split.image_folder} hold no samples: see README")
        self._keep(split, faults, on_bad_image)
        if not self.ids:
            first = next(iter(self.skipped.values()))
            raise ValueError(f"no sample of {split.image_folder} can be used: {first}")

    def _samples(self) -> Iterator[tuple[int, str, Place, list[str] | str]]:
        """Yield (shard, key, place of the picture, captions, or what is wrong) of each sample."""
        for number, shard in enumerate(self.shards):
            samples = read_index(shard)
            with open(shard, "rb") as file:
                for key, places in samples.items():
                    where = f"{shard}, sample {key}"
                    try:
                        picture, captions = _picture_of(places), _captions_of(places, file)
                    except ValueError as error:
                        yield number, key, (0, 0), f"{where} {error}. Mend it, or {SKIP_HINT}."
                    else:
                        yield number, key, picture, captions

    def _keep(self, split: ShardSplit, faults: dict[int, tuple[str, str]], choice: str) -> None:
        """Keep the split's whole samples; fill `skipped` with its others."""
        chosen = range(1, len(self.ids) + 1)
        if split.divided:
            what = f"{split.image_folder} holds one sample"
            chosen = held_out_ids(list(chosen), split.role, what)
        for number in chosen:
            if number in faults and choice == "raise":
                raise ValueError(faults[number][1])
        self.skipped = dict(faults[number] for number in chosen if number in faults)
        kept = [number for number in chosen if number not in faults]
        rows = [number - 1 for number in kept]
        self._places = array("q", (v for r in rows for v in self._places[3 * r : 3 * r + 3]))
        self._texts = [self._texts[row] for row in rows]
        self.ids = array("q", kept)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, list[str]]:
        """Return (image, captions).

        Raises:
            ValueError: the picture cannot be decoded.
        """
        shard, start, size = self._places[3 * index : 3 * index + 3]
        key, captions = json.loads(self._texts[index])
        with open(self.shards[shard], "rb") as file:
            file.seek(start)
            data = file.read(size)
        image = decode_picture(io.BytesIO(data), f"the picture of {self.shards[shard]}: {key}")
        return image if self.transform is None else self.transform(image), captions

    def captions(self, index: int) -> list[str]:
        """Return a sample's captions."""
        return json.loads(self._texts[index])[1]

    def file_name(self, index: int) -> str:
        """Name a sample: "SHARD.tar: KEY"."""
        return f"{self.shards[self._places[3 * index]].name}: {json.loads(self._texts[index])[0]}"


def read_index(shard: Path) -> dict[str, dict[str, list[Place]]]:
    """Find where each file of a shard lies: {key: {suffix: [(first byte, bytes)]}}.

    Raises:
        ValueError: the file is no tar file, is cut short or damaged.
    """
    samples: dict[str, dict[str, list[Place]]] = {}
    again = "Copy it again, or take it out of the folder."
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile keeps them all
                match = MEMBER.fullmatch(member.name)
                if member.isreg() and match and not match[1].startswith("__"):  # "__": webdataset's
                    place = (member.offset_data, member.size)
                    samples.setdefault(match[1], {}).setdefault(match[2].lower(), []).append(place)
            end = tar.offset
        with open(shard, "rb") as file:
            file.seek(end)
            if file.read(512) != bytes(512):  # tarfile passes over both faults in silence
                raise ValueError(f"{shard} is cut short or damaged at byte {end:,}. {again}")
    except tarfile.TarError as error:
        raise ValueError(
            f"{shard} cannot be read ({error}): no tar file, or cut short. {again}"
        ) from error
    return samples


def _picture_of(places: dict[str, list[Place]]) -> Place:
    """Return where a sample's picture lies; ValueError says what is wrong."""
    twice = [suffix for suffix, found in places.items() if len(found) > 1]
    if twice:
        raise ValueError(f"has two files .{twice[0]}")
    found = [places[suffix][0] for suffix in PICTURES if suffix in places]
    if len(found) != 1:
        raise ValueError(f"has {'two pictures' if found else 'no picture'}")
    return found[0]


def _captions_of(places: dict[str, list[Place]], file: BinaryIO) -> list[str]:
    """Read a sample's captions; ValueError says what is wrong."""
    texts = {}
    for suffix in ("json", "txt"):
        if suffix in places:
            start, size = places[suffix][0]
            file.seek(start)
            try:
                texts[suffix] = file.read(size).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(f"has a file .{suffix} that is not UTF-8") from error
    captions = None
    if "json" in texts:
        try:
            document = json.loads(texts["json"])
        except ValueError as error:
            raise ValueError(f"has a damaged file .json ({error})") from error
        captions = document.get("caption") if isinstance(document, dict) else None
    if captions in (None, "") and "txt" in texts:
        captions = texts["txt"].strip()
    if captions is None or captions == []:
        raise ValueError('has no caption: no file .txt, and no "caption" in a file .json')
    captions = captions if isinstance(captions, list) else [captions]
    if not all(isinstance(caption, str) for caption in captions):
        raise ValueError('has a "caption" that is neither a text nor a list of texts')
    if not all(caption.strip() for caption in captions):
        raise ValueError("has an empty caption")
    return captions
