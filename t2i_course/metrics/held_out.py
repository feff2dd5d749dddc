"""The held-out part of a data set: captions to draw from, and real pictures to compare with.

held = open_held_out("scenes", "val_seen")
rows = choose_captions(held, 2000)        # the same ones for every generator
key, images, words = other_real(held, 2000)  # real pictures that are not of the split
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from t2i_course.data import PackedCaptions, pack, resolve_data
from t2i_course.photos.coco_folder import read_captions_file
from t2i_course.photos.shards import ShardSplit, find_data
from t2i_course.scenes import drawing
from t2i_course.scenes.wording import Facts

SPLITS = {"val": None, "val_seen": False, "val_unseen": True}  # for `drawing.sample_scene`
OTHER_SEED = 1  # of the real pictures that are not of the split


@dataclass(frozen=True)
class HeldOut:
    """Held-out captions to draw from, and the real pictures to compare with.

    Attributes:
        data: name of the data set, for the ledger.
        split: "val", or "val_seen" or "val_unseen" of scenes.
        folder: the data set.
        packed: all of val.
        image_rows: int64 [R], the split's images in `packed.images`.
        facts: what each of `packed.all_captions` states; None for photos.
        subsets: "val_seen" or "val_unseen" for each of `packed.images`; None for photos.
        on_bad_image: what to do with a damaged picture, "raise" or "skip".
    """

    data: str
    split: str
    folder: Path
    packed: PackedCaptions
    image_rows: np.ndarray
    facts: list[Facts] | None
    subsets: list[str] | None
    on_bad_image: str = "raise"

    def images_of(self, caption_rows: np.ndarray) -> np.ndarray:
        """Rows in `packed.images`, [N], of captions given by rows in `packed.all_captions`."""
        return self.packed.images_of(caption_rows)

    def captions(self, caption_rows: np.ndarray) -> list[str]:
        """Texts of N captions given by rows in `packed.all_captions`."""
        return [self.packed.all_captions[row] for row in caption_rows.tolist()]


def open_held_out(
    data: str | os.PathLike[str] = "scenes",
    split: str = "val",
    size: int = drawing.SIDE,
    on_bad_image: str = "raise",
    progress: bool = False,
) -> HeldOut:
    """Open a data set's held-out part.

    Args:
        data: "scenes", or a folder in COCO's layout or of shards.
        split: one of `SPLITS`; photos have "val" only.
        size: side of the pictures, pixels; scenes are judged at 64 only.
        on_bad_image: "raise" or "skip", see `data.pack`.
        progress: show bars.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError, OSError: see `data.pack`; ValueError
            also for a split that the data lack, and for scenes of another size.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    folder = resolve_data(data)
    found, drawn = find_data(folder, "val"), False
    if not isinstance(found, ShardSplit):
        document = read_captions_file(found.captions_file)
        drawn = all("facts" in annotation for annotation in document["annotations"])
    if not drawn and split != "val":
        raise ValueError(f"{folder} has no split {split}, only scenes have: choose val")
    if drawn and size != drawing.SIDE:
        raise ValueError(
            f"pictures of {size} x {size} pixels cannot be judged as scenes, which have "
            f"{drawing.SIDE} x {drawing.SIDE}: draw them at that size"
        )
    packed = pack(folder, "val", size, on_bad_image=on_bad_image, progress=progress)
    rows = np.arange(len(packed))
    name = "scenes" if str(data) == "scenes" else folder.name
    if not drawn:
        return HeldOut(name, split, folder, packed, rows, None, None, on_bad_image)
    by_image: dict[int, list[Facts]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation["facts"])
    facts = [stated for number in packed.image_ids.tolist() for stated in by_image[number]]
    known = {image["id"]: image.get("subset", "") for image in document["images"]}
    subsets = [known[number] for number in packed.image_ids.tolist()]
    if split != "val":
        rows = rows[np.array(subsets) == split]
    return HeldOut(name, split, folder, packed, rows, facts, subsets, on_bad_image)


def choose_captions(held: HeldOut, samples: int, seed: int = 0) -> np.ndarray:
    """Choose captions to draw from: the first of each image, then the second of each, and so on.

    Args:
        held: the data.
        samples: N.
        seed: of the order of the images. A smaller N gets the first of a larger one.

    Returns:
        int64 [N], rows in `held.packed.all_captions`.

    Raises:
        ValueError: N is below 2, or the split has fewer captions.
    """
    starts = held.packed.caption_starts
    first, number = starts[held.image_rows], np.diff(starts)[held.image_rows]  # [R]
    if not 2 <= samples <= number.sum():
        raise ValueError(
            f"{samples} samples: {held.data} has {number.sum()} captions in {held.split}, and each "
            "is drawn once. Choose 2 or more, and not more than that (--samples)."
        )
    rng, rounds = np.random.default_rng(seed), []
    for index in range(int(number.max())):
        rounds.append(rng.permutation(first[number > index] + index))
    return np.concatenate(rounds)[:samples]


def other_real(
    held: HeldOut, count: int, against: str = "val", progress: bool = False
) -> tuple[str, np.ndarray, str]:
    """Real pictures that are not in the reference, to stand where a generator's stand.

    Of scenes they are new ones, drawn by the rule of the split with another seed, which no network
    has seen. Of photos they are training pictures, or those of val where the training pictures are
    the reference.

    Args:
        held: the data.
        count: N; of photos, no more than there are.
        against: the split that `reference` named.
        progress: show a bar.

    Returns:
        A key for caches of their features; the pictures, uint8 [N, 3, S, S]; what they are.
    """
    if held.facts is None:
        packed, split = held.packed, "val"
        if against != "train":
            size, choice = held.packed.size, held.on_bad_image
            packed = pack(held.folder, "train", size, on_bad_image=choice, progress=progress)
            split = "train"
        rows = np.sort(np.random.default_rng(OTHER_SEED).permutation(len(packed))[:count])
        words = f"{len(rows)} pictures of {split}, seed {OTHER_SEED}"
        return f"{packed.key}, {words}", packed.images[rows], words
    pictures = []
    for index in tqdm(range(count), desc="drawing scenes", disable=not progress):
        rng = random.Random(f"real scenes {drawing.VERSION} {OTHER_SEED} {held.split} {index}")
        unseen = SPLITS[held.split] if held.split != "val" else index % 2 == 1
        pictures.append(np.asarray(drawing.render(drawing.sample_scene(rng, unseen))))
    words = f"{count} new scenes of the kind of {held.split}, seed {OTHER_SEED}"
    key = f"scenes {drawing.VERSION}, {words}"
    return key, np.ascontiguousarray(np.moveaxis(np.stack(pictures), -1, 1)), words


def reference(held: HeldOut, more_than: int, progress: bool = False) -> tuple[str, np.ndarray, str]:
    """Real pictures to measure a distance to: the split's, or training pictures if those are few.

    Args:
        held: the data.
        more_than: so many features need more pictures than that for a covariance.
        progress: show a bar.

    Returns:
        A key for caches of their features; the pictures, uint8 [R, 3, S, S]; their split's name.
    """
    if len(held.image_rows) > more_than:
        return f"{held.packed.key}, {held.split}", held.packed.images[held.image_rows], held.split
    train = pack(
        held.folder, "train", held.packed.size, on_bad_image=held.on_bad_image, progress=progress
    )
    if len(train) <= len(held.image_rows):
        return f"{held.packed.key}, {held.split}", held.packed.images[held.image_rows], held.split
    return train.key, train.images, "train"
