"""The packed cache: a split's decoded pictures in one memory-mapped array on disk.

Two files with one name: NAME.npy holds the bytes, [N, 3, S, S]; NAME.json the image ids, the
captions and what was left out. The array is written in one stream under a temporary name, and the
JSON file last: where it stands, the cache is whole. `t2i_course.data.pack` is the way in.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.coco_folder import CheckedCaptions, Split, list_images

VERSION = 1  # a new number makes every cache anew


class PackedCaptions:
    """A split, decoded: bytes on disk, mapped into memory page by page as they are read.

    Attributes:
        images: [N, 3, S, S], uint8, read-only, on disk.
        image_ids: [N], int64, as the annotations number them, rising.
        captions: for each image, its captions.
        all_captions: all captions in one list, image after image.
        caption_starts: [N + 1], int64; image i has all_captions[starts[i] : starts[i + 1]].
        skipped: file names of the images left out; `problems` says what is wrong with each.
        key: the cache's name. size: S, in pixels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path` + ".npy" and ".json", written by `pack`.

        Raises:
            FileNotFoundError: there is no such cache.
            ValueError: it is cut short, or its two files do not belong together.
        """
        self.path = Path(path)
        card = json.loads(Path(f"{self.path}.json").read_text(encoding="utf-8"))
        self.key, self.size, self.problems = self.path.name, card["size"], card["problems"]
        self.skipped = list(self.problems)
        self.image_ids = np.array(card["image_ids"], dtype=np.int64)  # [N]
        self.captions: list[list[str]] = card["captions"]
        self.all_captions = [caption for group in self.captions for caption in group]
        self.caption_starts = np.cumsum([0, *map(len, self.captions)])  # [N + 1]
        self.images = np.load(f"{self.path}.npy", mmap_mode="r")  # [N, 3, S, S]
        if self.images.shape != (len(self.captions), 3, self.size, self.size):
            raise ValueError(f"{self.path}.npy does not fit {self.path.name}.json: delete both")

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, list[str]]:
        """Return (image [3, S, S] uint8, its captions)."""
        return torch.from_numpy(np.array(self.images[index])), self.captions[index]

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Travel to another process as a path, not as gigabytes."""
        return PackedCaptions, (self.path,)


def cache_key(split: Split, size: int) -> str:
    """Name the cache by all that it depends on, so that changed data gets another one."""
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
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, EOFError):
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
    path: Path, dataset: CheckedCaptions, size: int, on_bad_image: str, progress: bool
) -> None:
    """Write the array, then the JSON file whose presence says that the array is whole.

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
    for leftover in path.parent.glob(f".{path.name}.partial-*"):
        leftover.unlink()  # of a killed process: whoever holds the lock is the only writer
    needed = len(dataset) * (3 * size * size + 1000)  # bytes; 1,000 for the captions of an image
    if needed > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, f"it needs {needed / 1e9:.3f} GB, more than the disk has left")
    problems = dict(dataset.skipped)
    card: dict[str, Any] = {"size": size, "image_ids": [], "captions": [], "problems": problems}
    bar = tqdm(total=len(dataset), unit="image", disable=not progress, desc=f"packing at {size} px")
    with (
        runtime.atomic_file(f"{path}.json") as card_file,  # the last to get its name
        runtime.atomic_file(f"{path}.npy") as array_file,
        bar,
        contextlib.closing(_decode(dataset)) as decoded,
    ):
        with open(array_file, "wb") as file:
            _write_header(file, len(dataset), size)
            for index, pixels in enumerate(decoded):
                bar.update()
                if isinstance(pixels, ValueError):
                    if on_bad_image == "raise":
                        raise pixels
                    problems[dataset.file_name(index)] = str(pixels)
                    continue
                file.write(pixels.data)
                image_id = dataset.ids[index]
                card["image_ids"].append(image_id)
                card["captions"].append([a["caption"] for a in dataset.coco.imgToAnns[image_id]])
            if not card["image_ids"]:
                raise ValueError(next(iter(problems.values())))
            file.seek(0)
            _write_header(file, len(card["image_ids"]), size)
        card_file.write_text(json.dumps(card), encoding="utf-8")


def _write_header(file: Any, number: int, size: int) -> None:
    """Write NumPy's header; it is as long for any number, so that it can be written again."""
    shape = (number, 3, size, size)
    header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _decode(dataset: CheckedCaptions) -> Iterator[np.ndarray | ValueError]:
    """Decode in threads (Pillow releases the interpreter), in order, a few images ahead."""

    def read(index: int) -> np.ndarray | ValueError:
        try:
            return dataset[index][0].contiguous().numpy()  # [3, S, S]
        except ValueError as error:
            return error

    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque = deque()
        try:
            for index in range(len(dataset)):
                ahead.append(pool.submit(read, index))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for task in ahead:
                task.cancel()
