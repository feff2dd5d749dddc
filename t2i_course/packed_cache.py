"""The packed cache: a split's decoded pictures in one memory-mapped array on disk.

Files with one name: NAME.npy holds the bytes, [N, 3, S, S]; NAME.captions.npy and NAME.offsets.npy
hold the captions (`t2i_course.caption_file`); NAME.json the image ids and what was left out. The
array is written in one stream to a part file, with which a later run goes on after a kill or
Ctrl-C. The JSON file comes last: where it stands, the cache is whole. `t2i_course.data.pack` is the
way in.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.caption_file import Captions, GroupedCaptions, write_captions
from t2i_course.coco_folder import CheckedCaptions, Split, list_images
from t2i_course.growing_array import GrowingArray
from t2i_course.listed_captions import ListedCaptions
from t2i_course.photos.shards import ShardCaptions, ShardSplit

VERSION = 1  # of the pixels; a new number gives every cache, and so every run, another key
FORMAT = 2  # of the files; caches of another one are written anew, under the same key
CaptionSource = CheckedCaptions | ListedCaptions | ShardCaptions
JOURNAL_EVERY = 512  # images; so many are decoded again after a kill, at most


class PackedCaptions:
    """A split, decoded: bytes on disk, mapped into memory page by page as they are read.

    Attributes:
        images: [N, 3, S, S], uint8, read-only, on disk.
        image_ids: [N], int64, as the annotations number them, rising.
        captions: for each image, its captions; a lazy sequence of lists, on disk.
        all_captions: all captions, image after image; a lazy sequence of strings, on disk.
        caption_starts: [N + 1], int64; image i has all_captions[starts[i] : starts[i + 1]].
        skipped: file names of the images left out; `problems` says what is wrong with each.
        key: the cache's name. size: S, in pixels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path` + ".npy", ".json" and the captions beside them, written by `pack`.

        Raises:
            FileNotFoundError: there is no such cache.
            ValueError: it is cut short, its files do not belong together, or it was written by
                another version of the course.
        """
        self.path = Path(path)
        card = json.loads(Path(f"{self.path}.json").read_text(encoding="utf-8"))
        if card.get("format") != FORMAT:
            raise ValueError(f"{self.path}.json is of another version: delete it, and pack again")
        self.key, self.size, self.problems = self.path.name, card["size"], card["problems"]
        self.skipped = list(self.problems)
        self.image_ids = np.array(card["image_ids"], dtype=np.int64)  # [N]
        self.all_captions = Captions(self.path)
        self.caption_starts = np.cumsum([0, *card["captions_per_image"]])  # [N + 1]
        self.captions = GroupedCaptions(self.all_captions, self.caption_starts)
        self.images = np.load(f"{self.path}.npy", mmap_mode="r")  # [N, 3, S, S]
        fits = len(self.image_ids) == len(self.captions)
        fits = fits and len(self.all_captions) == self.caption_starts[-1]
        if not fits or self.images.shape != (len(self.captions), 3, self.size, self.size):
            raise ValueError(f"{self.path}.npy does not fit {self.path.name}.json: delete both")

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, list[str]]:
        """Return (image [3, S, S] uint8, its captions)."""
        return torch.from_numpy(np.array(self.images[index])), self.captions[index]

    def images_of(self, caption_rows: ArrayLike) -> np.ndarray:
        """Rows in `images` of captions given by rows in `all_captions`, in the same shape."""
        return np.searchsorted(self.caption_starts, caption_rows, side="right") - 1

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Travel to another process as a path, not as gigabytes."""
        return PackedCaptions, (self.path,)


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
        self.path, self.size = whole.path.with_name(self.key), size
        self.problems, self.skipped = {}, []
        self.image_ids = whole.image_ids[self.image_rows]
        self.captions = [[whole.all_captions[row] for row in group] for group in rows]
        self.all_captions = [caption for group in self.captions for caption in group]
        self.caption_starts = np.cumsum([0, *map(len, rows)])  # [M + 1]
        pixels = torch.from_numpy(whole.images[self.image_rows]).float()  # [M, 3, S, S]
        mean = functional.avg_pool2d(pixels, whole.size // size)
        self.images = mean.round().to(torch.uint8).numpy()  # [M, 3, size, size]
        self._taken = whole, self.image_rows, size, captions

    def __reduce__(self) -> tuple[type, tuple]:
        """Travel to another process as the whole's path and what is taken of it."""
        return PackedPart, self._taken


def cache_key(split: Split | ShardSplit, size: int) -> str:
    """Name the cache by all that it depends on, so that changed data gets another one."""
    if isinstance(split, ShardSplit):
        identity = [VERSION, "shards", str(split.image_folder), split.divided, split.listing()]
    else:
        with open(split.captions_file, "rb") as file:
            annotations = hashlib.file_digest(file, "sha256").hexdigest()
        pictures = sorted(list_images(split.image_folder).items())
        identity = [VERSION, str(split.image_folder), split.image_ids, annotations, pictures]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"{split.role}-{size}px-{digest[:20]}"


def open_cache(path: Path) -> PackedCaptions | None:
    """Open a cache if it is there and whole."""
    try:
        return PackedCaptions(path)
    except (FileNotFoundError, NotADirectoryError, EOFError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):  # cut short, or of another version
        return None


@contextlib.contextmanager
def explain_failure(cache: Path) -> Iterator[None]:
    """Say what a failed write means: raises OSError with the remedy in its message."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"the packed cache cannot be written ({error.strerror or error}): free some space, or "
            "choose another place with T2I_HOME or the argument cache",
            str(cache),
        ) from error


def write_cache(
    path: Path,
    dataset: CaptionSource,
    size: int,
    on_bad_image: str,
    progress: bool,
) -> None:
    """Write the array, or the rest of it, then the captions, then the JSON file: all is whole.

    Args:
        path: the cache's name without a suffix; the caller holds its lock.
        dataset: items are (uint8 tensor [3, size, size], captions).
        size: side of the images, pixels.
        on_bad_image: "raise" or "skip", for pictures that cannot be decoded.
        progress: show a progress bar.

    Raises:
        ValueError: a picture cannot be decoded, or none can.
        OSError: the disk is full.
    """
    for leftover in path.parent.glob(f".{path.name}.*partial-*"):
        leftover.unlink()  # of a killed process: whoever holds the lock is the only writer
    ids = hashlib.sha256(np.array(dataset.ids, dtype=np.int64).tobytes()).hexdigest()
    identity = {"key": path.name, "ids": ids, "pillow": PIL.__version__}
    file, shape = Path(f"{path}.npy"), (3, size, size)
    with (
        runtime.atomic_file(f"{path}.json") as card_file,  # the last to get its name
        GrowingArray(file, shape, np.uint8, len(dataset), identity, JOURNAL_EVERY) as array,
    ):
        # 1,000 bytes for the captions of an image
        needed = len(dataset) * (3 * size * size + 1000) - array.rows * 3 * size * size
        if needed > shutil.disk_usage(path.parent).free:
            raise OSError(
                errno.ENOSPC, f"it needs {needed / 1e9:.3f} GB, more than the disk has left"
            )
        undecodable = _write_pixels(array, dataset, on_bad_image, progress)
        if not array.rows:
            raise ValueError(next(iter((dataset.skipped | undecodable).values())))
        kept = [i for i in range(len(dataset)) if dataset.file_name(i) not in undecodable]
        write_captions(path, (text for index in kept for text in dataset.captions(index)))
        card = {
            "format": FORMAT,
            "size": size,
            "image_ids": [dataset.ids[index] for index in kept],
            "captions_per_image": [len(dataset.captions(index)) for index in kept],
            "problems": dataset.skipped | undecodable,
        }
        card_file.write_text(json.dumps(card), encoding="utf-8")
        array.finish()


def _write_pixels(
    array: GrowingArray,
    dataset: CaptionSource,
    on_bad_image: str,
    progress: bool,
) -> dict[str, str]:
    """Append what the array lacks yet; return {file name: what is wrong} of pictures left out."""
    problems, start = dict(array.state), array.position
    if problems and on_bad_image == "raise":  # a run with "skip" had begun
        raise ValueError(next(iter(problems.values())))
    words, total = f"packing at {array.row_shape[-1]} px", len(dataset)
    with (
        tqdm(total=total, initial=start, unit="image", disable=not progress, desc=words) as bar,
        contextlib.closing(_decode(dataset, start)) as decoded,
    ):
        for index, pixels in enumerate(decoded, start):
            bar.update()
            if not isinstance(pixels, ValueError):
                array.append(pixels)
            elif on_bad_image == "raise":
                raise pixels
            else:
                problems[dataset.file_name(index)] = str(pixels)
            array.mark(index + 1, problems)
    return problems


def _decode(dataset: CaptionSource, start: int) -> Iterator[np.ndarray | ValueError]:
    """Decode in threads (Pillow releases the interpreter), in order, a few images ahead."""

    def read(index: int) -> np.ndarray | ValueError:
        try:
            return dataset[index][0].contiguous().numpy()  # [3, S, S]
        except ValueError as error:
            return error

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = cores or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque = deque()
        try:
            for index in range(start, len(dataset)):
                ahead.append(pool.submit(read, index))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for task in ahead:
                task.cancel()
