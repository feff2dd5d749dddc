"""Copies: pictures that show the same, whether the files are equal or one was saved anew.

A picture that stands in train and in val would be learnt from and tested on. It is told by its
pixels: turned upright and reduced to 8 x 8, two pictures are the same if their values differ by 2
of 255 on average at most, and by 10 anywhere. JPEG's compression and a change of size do less,
another photo more. What is cropped or mirrored counts as another picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.photos.pictures import Sample, decode_picture, in_threads, upright

SIDE = 8  # of a reduced picture
MEAN, LARGEST = 2, 10  # differences that copies may have, of 255
KEPT_FROM = 1000  # pictures: those of fewer are looked at anew in no time
VERSION = 1  # of the rule
_known: dict[str, np.ndarray] = {}  # what this process has found


def find_copies(samples: Callable[[], Iterator[Sample]], number: int, identity: Any) -> np.ndarray:
    """Number the groups of pictures that are copies of each other, once for each data set.

    Args:
        samples: gives the pictures.
        number: N, how many there are.
        identity: all that they depend on, for JSON: names, sizes and times of the files.

    Returns:
        int [N]: equal numbers for copies. One that cannot be read is a copy of none.

    Raises:
        OSError: there is no room to keep the numbers.
    """
    digest = hashlib.sha256(json.dumps([VERSION, identity]).encode()).hexdigest()[:20]
    if digest in _known:
        return _known[digest]
    if number < KEPT_FROM:
        groups = group_copies(reduce_pictures(samples(), number))
    else:
        file = runtime.data_folder() / "cache" / "copies" / f"{digest}.npy"
        with runtime.locked(file):
            if not file.is_file():
                with runtime.atomic_array(file, np.int64, (number,)) as array:
                    array[:] = group_copies(reduce_pictures(samples(), number))
        groups = np.load(file)
    _known[digest] = groups
    return groups


def reduce_pictures(samples: Iterator[Sample], number: int) -> np.ndarray:
    """Reduce N pictures to int16 [N, 192]; one that cannot be read to -1 everywhere."""

    def reduce(sample: Sample) -> np.ndarray | int:
        try:
            picture = upright(decode_picture(sample.picture, sample.where))
            return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1)
        except ValueError:
            return -1  # packing names it

    result, silent = np.empty((number, SIDE * SIDE * 3), np.int16), number < KEPT_FROM or None
    reduced = in_threads(reduce, samples)
    bar = tqdm(reduced, total=number, desc="looking for copies", disable=silent)
    for row, (_, values) in enumerate(bar):
        result[row] = values
    return result


def group_copies(reduced: np.ndarray) -> np.ndarray:
    """Number the groups of copies among reduced pictures [N, 192]: int [N]."""
    readable = np.flatnonzero(reduced[:, 0] >= 0)
    values = reduced[readable]
    quarters = values.reshape(-1, 2, SIDE // 2, 2, SIDE // 2, 3).mean((2, 4)).reshape(-1, 12)
    # Means of quarters differ by no more on average than the values do: no copy is missed.
    pairs = cKDTree(quarters).query_pairs(12 * MEAN, p=1, output_type="ndarray")  # [P, 2]
    same = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), 1 << 16):
        part = slice(start, start + (1 << 16))
        apart = np.abs(values[pairs[part, 0]] - values[pairs[part, 1]])
        same[part] = (apart.mean(1) <= MEAN) & (apart.max(1) <= LARGEST)
    rows, columns = readable[pairs[same]].T
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(reduced), len(reduced)))
    return connected_components(links, directed=False)[1]


def hold_out(ids: list[int], groups: np.ndarray, split: str) -> tuple[int, ...]:
    """Divide images: a tenth of them is val, the rest train, and copies stay together.

    Groups of copies are ranked by the SHA-256 of their smallest id; those that still fit into a
    tenth become val, the smallest one at least.

    Args:
        ids: N ids.
        groups: [N], from `group_copies`.
        split: "train" or "val", whose ids are returned in rising order.

    Raises:
        ValueError: all are copies of one.
    """
    members: dict[int, list[int]] = {}
    for number, group in sorted(zip(ids, groups.tolist(), strict=True)):
        members.setdefault(group, []).append(number)
    if len(members) < 2:
        raise ValueError("all pictures are copies of one: train and val need different ones")

    def rank(group: list[int]) -> bytes:
        return hashlib.sha256(str(group[0]).encode()).digest()

    ranked, room, held = sorted(members.values(), key=rank), max(1, round(len(ids) / 10)), []
    for group in ranked:
        if len(group) <= room - len(held):
            held += group
    held = held or min(ranked, key=len)
    return tuple(sorted(held if split == "val" else set(ids).difference(held)))


def copies_note(groups: np.ndarray, where: Path) -> str:
    """Say how many pictures are copies of others; "" if none is."""
    sizes = np.bincount(groups)
    if sizes.max() == 1:
        return ""
    return (
        f"{sizes[sizes > 1].sum():,} of {len(groups):,} pictures in {where} are copies, of "
        f"{(sizes > 1).sum():,} different ones (the same file, or saved anew): all copies of one "
        "stay together, in train or in val"
    )
