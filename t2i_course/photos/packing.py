"""Packing: each picture of a split is decoded once, into one array of bytes on disk.

Two files with one name: NAME.npy holds the bytes, [N, 3, S, S]; NAME.json the image ids, the
captions, and what was left out. The JSON file comes last: where it stands, the cache is whole.
`t2i_course.data.pack` is the way in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.photos.coco_folder import CheckedCaptions, Split, list_images
from t2i_course.photos.pictures import SKIP_HINT, Sample, decode_picture, in_threads
from t2i_course.photos.shards import ShardSamples, data_digest, list_shards

PIXELS = 2  # version of the transform; a new number gives every cache, and so every run, a new key
FORMAT = 4  # of the files; a cache of another one is written anew, under the same key


def cache_key(split: Split, size: int) -> str:
    """Name the cache by all that it depends on, so that changed data gets another one."""
    folder = split.image_folder
    if split.captions_file is None:
        identity = [PIXELS, "shards", str(folder), split.divided, list_shards(folder)]
    else:
        pictures = sorted(list_images(folder).items())
        identity = [PIXELS, str(folder), split.image_ids, data_digest(split), pictures]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"{split.role}-{size}px-{digest[:20]}"


def open_samples(split: Split, on_bad_image: str) -> CheckedCaptions | ShardSamples:
    """Open a split of either layout."""
    if split.captions_file is None:
        return ShardSamples(split)
    return CheckedCaptions(split, on_bad_image=on_bad_image)


def write_cache(
    path: Path,
    samples: CheckedCaptions | ShardSamples,
    transform: Callable[[Image.Image], Tensor],
    size: int,
    on_bad_image: str,
    progress: bool,
) -> None:
    """Write NAME.npy, then NAME.json.

    Args:
        path: the cache's name without a suffix; the caller holds its lock.
        samples: an open split.
        transform: from an RGB picture to uint8 [3, size, size].
        size: side of the packed images, pixels.
        on_bad_image: "raise" or "skip", for samples that are not in order.
        progress: show a bar.

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
    ):
        decoded = in_threads(partial(_to_bytes, transform=transform), samples.samples())
        bar = {"total": len(samples), "unit": "image", "disable": not progress}
        for sample, pixels in tqdm(decoded, desc=f"packing at {size} px", **bar):
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
        told |= {"problems": problems, "notes": samples.notes}
        card.write_text(json.dumps(told), encoding="utf-8")


def _to_bytes(
    sample: Sample, transform: Callable[[Image.Image], Tensor]
) -> np.ndarray | ValueError:
    try:
        if sample.fault:
            raise ValueError(sample.fault)
        return transform(decode_picture(sample.picture, sample.where)).numpy()  # [3, S, S]
    except ValueError as error:
        return error
    except Exception as error:  # such as a strip of pixels that no memory holds, resized
        return ValueError(f"{sample.where} cannot be made small ({error}): {SKIP_HINT}")
