"""Packing: each picture of a split is decoded once, into one array of bytes on disk.

Two files with one name: NAME.npy holds the bytes, [N, 3, S, S]; NAME.json the image ids, the
captions, and what was left out. The JSON file comes last: where it stands, the cache is whole.
`t2i_course.data.pack` is the way in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.photos.coco_folder import CheckedCaptions, Split, list_images
from t2i_course.photos.pictures import SKIP_HINT, Sample, decode_picture
from t2i_course.photos.shards import ShardSamples, ShardSplit

PIXELS = 2  # version of the transform; a new number gives every cache, and so every run, a new key
FORMAT = 4  # of the files; a cache of another one is written anew, under the same key
Samples = CheckedCaptions | ShardSamples


def cache_key(split: Split | ShardSplit, size: int) -> str:
    """Name the cache by all that it depends on, so that changed data gets another one."""
    if isinstance(split, ShardSplit):
        identity = [PIXELS, "shards", str(split.image_folder), split.divided, split.listing()]
    else:
        annotations = runtime.file_hash(split.captions_file)
        pictures = sorted(list_images(split.image_folder).items())
        identity = [PIXELS, str(split.image_folder), split.image_ids, annotations, pictures]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"{split.role}-{size}px-{digest[:20]}"


@contextlib.contextmanager
def explained(cache: Path) -> Iterator[None]:
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
    samples: Samples,
    to_bytes: Callable[[Image.Image], Tensor],
    size: int,
    on_bad_image: str,
    progress: bool,
) -> None:
    """Write NAME.npy, then NAME.json.

    Args:
        path: the cache's name without a suffix; the caller holds its lock.
        samples: an open split.
        to_bytes: from an RGB picture to uint8 [3, size, size].
        size: side of the packed images, pixels.
        on_bad_image: "raise" or "skip", for samples that are not in order.
        progress: show a progress bar.

    Raises:
        ValueError: a sample is not in order, or none is.
        OSError: the disk is full.
    """
    for leftover in path.parent.glob(f".{path.name}.partial-*"):
        leftover.unlink()  # of a killed process: whoever holds the lock is the only writer
    ids, captions, problems = [], [], dict(samples.skipped)
    shape = (len(samples), 3, size, size)
    with (
        runtime.atomic_file(f"{path}.json") as card,  # the last to get its name
        runtime.atomic_array(f"{path}.npy", np.uint8, shape) as array,
        contextlib.closing(_decode(samples.samples(), to_bytes)) as decoded,
    ):
        words = f"packing at {size} px"
        for sample, pixels in tqdm(
            decoded, total=len(samples), unit="image", disable=not progress, desc=words
        ):
            if not isinstance(pixels, ValueError):
                array[len(ids)] = pixels
                ids.append(sample.number)
                captions.append(sample.captions)
            elif on_bad_image == "raise":
                raise pixels
            else:
                problems[sample.name] = str(pixels)
        if not ids:
            raise ValueError(next(iter(problems.values())))
        told = {"format": FORMAT, "size": size, "image_ids": ids, "captions": captions}
        text = json.dumps(told | {"problems": problems, "notes": samples.notes})
        card.write_text(text, encoding="utf-8")


def _decode(
    samples: Iterator[Sample], to_bytes: Callable[[Image.Image], Tensor]
) -> Iterator[tuple[Sample, np.ndarray | ValueError]]:
    """Decode in threads (Pillow releases the interpreter), in order, a few images ahead."""

    def read(sample: Sample) -> np.ndarray | ValueError:
        try:
            if sample.fault:
                raise ValueError(sample.fault)
            return to_bytes(decode_picture(sample.picture, sample.where)).numpy()  # [3, S, S]
        except ValueError as error:
            return error
        except Exception as error:  # such as a strip of pixels that no memory holds, resized
            return ValueError(f"{sample.where} cannot be made small ({error}): {SKIP_HINT}")

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers, ahead = cores or 1, deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for sample in samples:
                ahead.append((sample, pool.submit(read, sample)))
                if len(ahead) > 4 * workers:
                    sample, task = ahead.popleft()
                    yield sample, task.result()
            for sample, task in ahead:
                yield sample, task.result()
        finally:
            for _, task in ahead:
                task.cancel()
