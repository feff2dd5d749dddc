"""Shards: pictures and captions in tar files, as img2dataset and webdataset write them.

    train/00000.tar  train/00001.tar ...   split folders are named as in COCO's layout (SPLIT_NAMES)
    val/00000.tar ...
        000000012.jpg   the picture: .jpg, .jpeg, .png or .webp
        000000012.json  {"caption": a text, or a list of texts}, or else
        000000012.txt   the caption

A sample's key is its files' name up to the last dot. Shards are read when they are packed, and
nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from t2i_course.photos import copies
from t2i_course.photos.coco_folder import Split, has_surrogates, tar_files
from t2i_course.photos.pictures import SKIP_HINT, Sample
from t2i_course.runtime import file_hash

PICTURES, TEXTS = ("jpg", "jpeg", "png", "webp"), ("json", "txt")


def list_shards(folder: Path) -> list[tuple[str, int, int]]:
    """Return (name, bytes, time of change) of the shards in a folder, sorted by name."""
    status = [(file.name, file.stat()) for file in tar_files(folder)]
    return [(name, found.st_size, found.st_mtime_ns) for name, found in status]


def data_digest(split: Split) -> str:
    """SHA-256 of the captions file, or of the shards' names and lengths: it tells data apart."""
    if split.captions_file is not None:
        return file_hash(split.captions_file)
    known = [[name, size] for name, size, _ in list_shards(split.image_folder)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


class ShardSamples:
    """The samples of a split, read from tar file after tar file.

    Attributes:
        skipped: {}, as faults show when a sample is read.
        notes: what else is to be said of the data.
    """

    def __init__(self, split: Split) -> None:
        """Count the samples, and divide them if the split is a part.

        Raises:
            ValueError: a shard is cut short or no tar file; there is no sample, or a single one to
                divide.
        """
        self.split, self.skipped, folder = split, {}, split.image_folder
        number, passed_over = count_samples(split)
        listed = ", ".join(f"{count:,} .{suffix}" for suffix, count in passed_over.most_common(9))
        self.notes = [f"files of {folder} passed over: {listed}"] if listed else []
        if not number:
            raise ValueError(
                f"the tar files in {folder} hold no samples: they need KEY.jpg and KEY.json or "
                "KEY.txt"
            )
        ids = range(1, number + 1)
        self._chosen = frozenset(ids)
        if split.divided:
            if number < 2:
                raise ValueError(f"{folder} holds one sample: train and val need one each")
            groups = copies.find_copies(self.samples, number, [str(folder), list_shards(folder)])
            self._chosen = frozenset(copies.hold_out(list(ids), groups, split.role))
            if note := copies.copies_note(groups, folder):
                self.notes.append(note)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._chosen)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples, numbered over all shards in the order of their names, from 1."""
        number = 0
        for tar, samples, _ in _read_shards(self.split):
            for key, members in samples.items():
                number += 1
                if number in self._chosen:
                    yield _read_sample(number, tar, key, members)


def count_samples(split: Split) -> tuple[int, Counter]:
    """Count the samples of the shards, of both parts where they are divided.

    Returns:
        Their number, and how many files of each suffix belong to none.

    Raises:
        ValueError: a shard is cut short or damaged.
    """
    number, passed_over = 0, Counter()
    for _, samples, others in _read_shards(split):
        number, passed_over = number + len(samples), passed_over + others
    return number, passed_over


def _read_shards(
    split: Split,
) -> Iterator[tuple[tarfile.TarFile, dict[str, list[tarfile.TarInfo]], Counter]]:
    """Yield each shard, its samples' files by key, and how many others there are by suffix."""
    for file in tar_files(split.image_folder):
        remedy = "Copy it again, or take it out of the folder."
        try:
            tar = tarfile.open(file, "r:")
            members = tar.getmembers()
        except tarfile.TarError as error:
            raise ValueError(
                f"{file} cannot be read ({error}): no tar file, or cut short. {remedy}"
            ) from error
        with tar:
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(512) != bytes(512):  # tarfile passes over both faults in silence
                raise ValueError(f"{file} is cut short or damaged at byte {tar.offset:,}. {remedy}")
            samples, passed_over = {}, Counter()
            for member in members:
                key, _, suffix = member.name.removeprefix("./").rpartition(".")
                name = key.rpartition("/")[2]
                if member.isdir() or name.startswith(".") or not name or key.startswith("__"):
                    continue  # "__": webdataset's own
                if suffix.lower() in PICTURES + TEXTS:
                    samples.setdefault(key, []).append(member)
                else:
                    passed_over[suffix] += 1
            yield tar, samples, passed_over


def _read_sample(
    number: int, tar: tarfile.TarFile, key: str, members: list[tarfile.TarInfo]
) -> Sample:
    """Read a sample's captions and its picture's bytes, or say what is wrong with it."""
    name, where = f"{Path(tar.name).name}: {key}", f"{tar.name}, sample {key}"
    try:
        files = {}
        for member in members:
            suffix = member.name.rpartition(".")[2].lower()
            if suffix in files:
                raise ValueError(f"has two files .{suffix}")
            files[suffix] = _content(tar, member)
        pictures = [files[suffix] for suffix in PICTURES if suffix in files]
        if len(pictures) != 1:
            raise ValueError(f"has {'two pictures' if pictures else 'no picture'}")
        captions = _captions_of(files)
    except ValueError as error:
        fault = (
            f"{where} {error}. (A key is a file's name up to its last dot.) Mend it, or "
            f"{SKIP_HINT}."
        )
        return Sample(number, name, [], b"", where, fault)
    return Sample(number, name, captions, pictures[0], f"the picture of {tar.name}: {key}")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read a file of a shard, or what it is a link to."""
    try:
        return tar.extractfile(member).read()
    except (KeyError, AttributeError, tarfile.TarError) as error:
        raise ValueError(f"has a link to nothing, {member.name}") from error


def _captions_of(files: dict[str, bytes]) -> list[str]:
    """Read a sample's captions; ValueError says what is wrong."""
    captions = None
    try:
        if "json" in files:
            document = json.loads(files["json"].decode("utf-8-sig"))
            captions = document.get("caption") if isinstance(document, dict) else None
        if captions in (None, "") and "txt" in files:
            captions = files["txt"].decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError("has a caption that is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"has a damaged file .json ({error})") from error
    if captions is None or captions == []:
        raise ValueError('has no caption: no file .txt, and no "caption" in a file .json')
    captions = captions if isinstance(captions, list) else [captions]
    if not all(isinstance(caption, str) for caption in captions):
        raise ValueError('has a "caption" that is neither a text nor a list of texts')
    if not all(caption.strip() for caption in captions):
        raise ValueError("has an empty caption")
    if any(map(has_surrogates, captions)):
        raise ValueError("has a caption with half a letter (a lone surrogate)")
    return captions
