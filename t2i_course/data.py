"""Captions and pictures as a network wants them: transforms, collate, packed cache, batches.

A data set is a folder in COCO's layout (`t2i_course.photos.coco_folder`), or of tar files
(`t2i_course.photos.shards`). `load_split` opens the first kind through
`torchvision.datasets.CocoCaptions`; `pack` decodes each picture once, into one memory-mapped array
of bytes, and `CaptionBatches` draws the training batches from there without decoding anything.

    packed = pack(resolve_data("scenes"), "train", size=64)
    batches = CaptionBatches(packed, batch_size=64, generator=torch.Generator().manual_seed(0))
    batch = next(batches)  # .images [64, 3, 64, 64], .captions: 64 strings
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from t2i_course import augmentation, runtime
from t2i_course.photos.coco_folder import (
    check_choice,
    find_data,
    find_split,
    instances,
    load_split,
)
from t2i_course.photos.packing import FORMAT, cache_key, open_samples, write_cache
from t2i_course.photos.pictures import upright
from t2i_course.scenes import drawing

__all__ = [
    "Batch",
    "CaptionBatches",
    "CaptionCollate",
    "PackedCaptions",
    "PackedPart",
    "caption_statistics",
    "find_data",
    "find_split",
    "image_transform",
    "instances",
    "load_split",
    "pack",
    "resolve_data",
    "to_float",
    "to_uint8",
    "upright",
]


def resolve_data(name_or_path: str | os.PathLike[str], progress: bool = True) -> Path:
    """Return the folder of a data set: "scenes" (drawn on first use), or a folder's path.

    Raises:
        FileNotFoundError: no such folder, or it is not in COCO's layout and holds no shards.
        NotADirectoryError: the path is a file.
    """
    if name_or_path == "scenes":
        return drawing.make_scenes(progress=progress)
    return find_data(name_or_path, "train").folder


# From a photo to a tensor


def image_transform(size: int = 64) -> v2.Compose:
    """Short side to `size`, the central square of it, values in [-1, 1].

    Returns:
        A transform from an RGB PIL image of any size to a float32 tensor [3, size, size].
    """
    return v2.Compose(
        [
            v2.Lambda(upright),
            v2.Resize(size, antialias=True),  # a number is the short side; a pair squashes
            v2.CenterCrop(size),
            v2.PILToTensor(),  # [3, size, size], uint8
            v2.ToDtype(torch.float32, scale=True),  # [0, 1]
            v2.Normalize(mean=[0.5], std=[0.5]),  # [-1, 1]
        ]
    )


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to bytes: rounded; what lies outside is clamped."""
    return images.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Bytes to float32 in [-1, 1], as `image_transform` ends."""
    return images.div(127.5).sub_(1)


class CaptionCollate:
    """Make a batch of `CocoCaptions` items: stack the images, draw one caption for each.

    The default collate function transposes caption lists of equal length without a word, and
    fails on others. Use it with `num_workers=0`: each worker process would copy the generator and
    draw the same captions.
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Keep the generator (on the CPU) that draws."""
        self.generator = generator

    def __call__(self, items: Sequence[tuple[Tensor, list[str]]]) -> tuple[Tensor, list[str]]:
        """Collate B items (image [3, S, S], captions) to (images [B, 3, S, S], B captions)."""
        images = torch.stack([image for image, _ in items])  # [B, 3, S, S]
        drawn = []
        for _, captions in items:
            choice = torch.randint(len(captions), (), generator=self.generator)
            drawn.append(captions[int(choice)])
        return images, drawn


def caption_statistics(captions: Sequence[Sequence[str]], most_common: int = 20) -> dict[str, Any]:
    """Count captions and words.

    Args:
        captions: for each image, its captions.
        most_common: how many words to list.

    Returns:
        "images", "captions": numbers. "captions_per_image": {number of captions: images}.
        "words_per_caption": {length in words: captions}. "most_common_words": [(word, times)].
        "vocabulary": number of different words. A word is a run of letters and digits, lower case.
    """
    texts = [caption.lower() for group in captions for caption in group]
    words = [re.findall(r"\w+(?:'\w+)?", text) for text in texts]
    counts = Counter(word for text in words for word in text)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "images": len(captions),
        "captions": len(texts),
        "captions_per_image": dict(sorted(Counter(map(len, captions)).items())),
        "words_per_caption": dict(sorted(Counter(map(len, words)).items())),
        "vocabulary": len(counts),
        "most_common_words": ranked[:most_common],
    }


# Decoded once


class PackedCaptions:
    """A split, decoded: bytes on disk, mapped into memory page by page as they are read.

    Attributes:
        images: [N, 3, S, S], uint8, read-only, on disk.
        image_ids: [N], int64, as the annotations number them, rising.
        captions: for each image, its captions.
        all_captions: all captions, image after image.
        caption_starts: [N + 1], int64; image i has all_captions[starts[i] : starts[i + 1]].
        skipped: file names of the images left out; `problems` says what is wrong with each.
        notes: what else is to be said of the data, such as copies that stay on one side.
        key: the cache's name. size: S, in pixels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path` + ".npy" and ".json", written by `pack`.

        Raises:
            FileNotFoundError: there is no such cache.
            ValueError: it is cut short, or was written by another version of the course.
        """
        self.path = Path(path)
        card = json.loads(Path(f"{self.path}.json").read_text(encoding="utf-8"))
        if card.get("format") != FORMAT:
            raise ValueError(f"{self.path}.json is of another version: delete it, and pack again")
        self.key, self.size, self.problems = self.path.name, card["size"], card["problems"]
        self.skipped, self.notes = list(self.problems), card["notes"]
        self.image_ids = np.array(card["image_ids"], dtype=np.int64)  # [N]
        self.captions = card["captions"]
        self.all_captions = [caption for group in self.captions for caption in group]
        self.caption_starts = np.cumsum([0, *map(len, self.captions)])  # [N + 1]
        images = np.load(f"{self.path}.npy", mmap_mode="r")
        self.images = images[: len(self)]  # [N, 3, S, S]; the rest was for pictures left out

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, list[str]]:
        """Return (image [3, S, S] uint8, its captions)."""
        return torch.from_numpy(np.array(self.images[index])), self.captions[index]

    def images_of(self, caption_rows: ArrayLike) -> np.ndarray:
        """Rows in `images` of captions given by rows in `all_captions`, in the same shape."""
        return np.searchsorted(self.caption_starts, caption_rows, side="right") - 1


class PackedPart(PackedCaptions):
    """Some pictures of a packed split, in memory, smaller if wanted.

    Attributes, beside those of `PackedCaptions`:
        image_rows: [M], int64, of the pictures in the whole.
        caption_rows: [K], int64, of the captions in the whole; the rows of their features, too.
    """

    def __init__(
        self,
        whole: PackedCaptions,
        images: Sequence[int],
        size: int | None = None,
        captions: Sequence[int] | None = None,
    ) -> None:
        """Take pictures and their captions.

        Args:
            whole: the split.
            images: M rows of pictures, 0 to N - 1.
            size: side in pixels, a divisor of the whole's: squares of pixels become their mean.
            captions: rows of the captions to keep, at least one of each picture; None for all.

        Raises:
            ValueError: the size does not divide, no picture is taken, or one has no caption left.
        """
        size = whole.size if size is None else size
        if size < 1 or whole.size % size:
            raise ValueError(f"{whole.size} pixels do not make whole pixels of {size}: choose a "
                             "divisor")  # fmt: skip
        starts, kept = whole.caption_starts, None if captions is None else set(captions)
        self.image_rows = np.array(images, dtype=np.int64)  # [M]
        rows = [
            [r for r in range(starts[i], starts[i + 1]) if kept is None or r in kept]
            for i in self.image_rows
        ]
        if not rows or not all(rows):
            raise ValueError("no picture is taken" if not rows else "a picture has no caption left")
        self.caption_rows = np.concatenate(rows)  # [K]
        chosen = json.dumps([self.image_rows.tolist(), self.caption_rows.tolist()])
        self.key = f"{whole.key}-part-{hashlib.sha256(chosen.encode()).hexdigest()[:12]}-{size}px"
        self.size, self.problems, self.skipped, self.notes = size, {}, [], []
        self.image_ids = whole.image_ids[self.image_rows]
        self.captions = [[whole.all_captions[row] for row in group] for group in rows]
        self.all_captions = [caption for group in self.captions for caption in group]
        self.caption_starts = np.cumsum([0, *map(len, rows)])  # [M + 1]
        pixels = torch.from_numpy(whole.images[self.image_rows]).float()  # [M, 3, S, S]
        mean = functional.avg_pool2d(pixels, whole.size // size)
        self.images = mean.round().to(torch.uint8).numpy()  # [M, 3, size, size]


def pack(
    folder: str | os.PathLike[str],
    split: str,
    size: int = 64,
    cache: str | os.PathLike[str] | None = None,
    on_bad_image: str = "raise",
    progress: bool = True,
) -> PackedCaptions:
    """Decode a split once; later calls open what the first one wrote, see `photos.packing`.

    Other processes wait meanwhile. After a kill, the same call begins anew.

    Args:
        folder: a data set in COCO's layout, or of shards.
        split: "train", "val" or "test".
        size: side of the packed images, pixels.
        cache: where the files go; `data/cache/packed` by default.
        on_bad_image: "raise", or "skip": leave out images that are missing, cannot be decoded or
            have no caption, and name them in one warning.
        progress: show a bar.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: see `load_split` and `ShardSamples`.
        OSError: the cache cannot be written (the disk is full).
    """
    if size < 1:
        raise ValueError(f"cannot pack images of {size} pixels: choose a size of 1 or more")
    check_choice(on_bad_image)
    found = find_data(folder, split)
    cache = Path(cache or runtime.data_folder() / "cache" / "packed").expanduser().resolve()
    path = cache / cache_key(found, size)
    packed = _open_cache(path)
    if packed is None:
        samples = open_samples(found, on_bad_image)
        to_bytes = v2.Compose(image_transform(size).transforms[:4])  # before they become floats
        try:
            with runtime.locked(path):
                if _open_cache(path) is None:  # else another process has made it meanwhile
                    write_cache(path, samples, to_bytes, size, on_bad_image, progress)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the packed cache cannot be written ({error.strerror or error}): free some "
                "space, or choose another place with T2I_HOME or the argument cache",
                str(cache),
            ) from error
        packed = PackedCaptions(path)
    if packed.problems and on_bad_image == "raise":  # packed with "skip", now or earlier
        open_samples(found, "raise")  # names what is missing
        raise ValueError(next(iter(packed.problems.values())))
    for note in packed.notes:
        warnings.warn(note, stacklevel=2)
    if packed.problems:
        shown = ", ".join(packed.skipped[:5]) + (", ..." if len(packed.skipped) > 5 else "")
        total = len(packed) + len(packed.skipped)
        warnings.warn(
            f"{len(packed.skipped)} of {total} images left out of {found.image_folder}: {shown}",
            stacklevel=2,
        )
    return packed


def _open_cache(path: Path) -> PackedCaptions | None:
    """Open a cache if it is there, whole and of this version."""
    try:
        return PackedCaptions(path)
    except (OSError, EOFError, ValueError):
        return None


# Batches


@dataclass(frozen=True)
class Batch:
    """What one training step gets.

    Attributes:
        images: [B, 3, S, S], float32 in [-1, 1].
        captions: B strings, one for each image.
        caption_rows: [B], int64: where the captions stand in `PackedCaptions.all_captions`.
        image_rows: [B], int64: where the images stand in `PackedCaptions.images`.
    """

    images: Tensor
    captions: list[str]
    caption_rows: Tensor
    image_rows: Tensor


class CaptionBatches:
    """An endless row of batches: every epoch a new order, and a newly drawn caption an image.

    A batch may hold the end of one epoch and the beginning of the next, so that each image is seen
    once an epoch for any batch size. Epoch e draws from its own generator, seeded by (seed + e).

    Attributes:
        epoch: the epoch of the next image, from 0.
    """

    def __init__(
        self,
        packed: PackedCaptions,
        batch_size: int,
        generator: torch.Generator,
        rank: int = 0,
        world_size: int = 1,
        flips: bool = False,
    ) -> None:
        """Prepare the first epoch.

        Args:
            packed: the data.
            batch_size: images in a batch, over all processes.
            generator: on the CPU; one number is drawn from it, the seed of all that follows. It
                must stand at the same state in every process.
            rank: this process, 0 to world_size - 1. The processes' batches, one after the other,
                are the batch of a single process.
            world_size: number of processes.
            flips: mirror half of the images, drawn anew each epoch, except those whose drawn
                caption says left or right.

        Raises:
            ValueError: batch_size is not a positive multiple of world_size.
        """
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"a batch of {batch_size} cannot be shared by {world_size} processes: choose a "
                "positive multiple"
            )
        self.packed, self.batch_size = packed, batch_size
        self.rank, self.world_size, self.flips = rank, world_size, flips
        self.seed = int(torch.randint(2**62, (), generator=generator))
        self.epoch, self.position = 0, 0
        self._draw_epoch()

    def _draw_epoch(self) -> None:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        starts = torch.from_numpy(self.packed.caption_starts)  # [N + 1]
        self._order = torch.randperm(len(self.packed), generator=generator)  # [N]
        share = torch.rand(len(self.packed), generator=generator, dtype=torch.float64)  # [N]
        self._caption_rows = starts[:-1] + (share * starts.diff()).long()  # [N]
        if self.flips:  # [N]
            self._flip = (torch.rand(len(self.packed), generator=generator) < 0.5).numpy()

    def __iter__(self) -> CaptionBatches:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch, of batch_size / world_size images."""
        rows, caption_rows, missing = [], [], self.batch_size
        while missing:
            if self.position == len(self.packed):
                self.epoch, self.position = self.epoch + 1, 0
                self._draw_epoch()
            part = self._order[self.position : self.position + missing]
            rows.append(part)
            caption_rows.append(self._caption_rows[part])
            self.position += len(part)
            missing -= len(part)
        share = self.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        image_rows, caption_row = torch.cat(rows)[mine], torch.cat(caption_rows)[mine]  # [B], [B]
        captions = [self.packed.all_captions[row] for row in caption_row.tolist()]
        pixels = np.asarray(self.packed.images[image_rows.numpy()])  # [B, 3, S, S]
        if self.flips:
            flip = self._flip[image_rows.numpy()]  # [B]
            flip &= [augmentation.stays_true("flip", caption) for caption in captions]
            pixels[flip] = pixels[flip, :, :, ::-1]
        # As `to_float`. On busy cores torch's threads wait for each other longer than this takes.
        floats = np.divide(pixels, np.float32(127.5), dtype=np.float32)
        floats -= 1
        return Batch(
            images=torch.from_numpy(floats),
            captions=captions,
            caption_rows=caption_row,
            image_rows=image_rows,
        )

    def state_dict(self) -> dict[str, int]:
        """Return whole numbers from which `load_state_dict` continues with the next batch."""
        here = {"seed": self.seed, "epoch": self.epoch, "position": self.position}
        return here | {"data": self._fingerprint()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where the batches of `state` stood.

        Raises:
            ValueError: the state was made with other data.
        """
        if state["data"] != self._fingerprint():
            raise ValueError(
                f"the saved state belongs to other data than {self.packed.key}: continue with the "
                "data set of that run, or start a new run"
            )
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]
        self._draw_epoch()

    def _fingerprint(self) -> int:
        starts = zlib.crc32(self.packed.caption_starts.tobytes())
        return zlib.crc32(self.packed.image_ids.tobytes(), starts)
