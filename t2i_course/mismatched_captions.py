"""False captions of real pictures, for a discriminator that is to read.

A caption of another picture is mostly false of this one; mostly is not enough. "Two small stars"
may be true of both, and a discriminator that is told it is false learns nonsense. In scenes the
facts decide; among photos the captions of the same photo are left out.

Captions of other pictures differ in everything, and a glance at the background tells them apart.
`contradicting_captions` differ from a true one in one fact: who is left, which is red.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from t2i_course.captions import contradict, word_facts
from t2i_course.oracle import check_facts
from t2i_course.packed_cache import PackedCaptions
from t2i_course.processes import TrainingBatch
from t2i_course.scenes import Scene, SceneObject, read_captions

TRIES = 8  # other captions that are tried for a picture


def read_scenes(folder: Path | str, split: str) -> dict[int, Scene]:
    """Read from the annotations what each picture of a split shows, by image id.

    Raises:
        FileNotFoundError: the folder holds no scenes.
    """
    path = Path(folder) / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: only drawn scenes come with their facts")
    content = json.loads(path.read_text(encoding="utf-8"))
    shapes = {category["id"]: category["name"] for category in content["categories"]}
    objects: dict[int, list[SceneObject]] = {image["id"]: [] for image in content["images"]}
    for thing in content["annotations"]:
        left, top, width, height = thing["bbox"]
        objects[thing["image_id"]].append(
            SceneObject(
                shape=shapes[thing["category_id"]],
                color=thing["color"],
                size=thing["size"],
                x=left + width / 2,
                y=top + height / 2,
                diameter=round(max(width, height)),
                rgb=tuple(thing["rgb"]),
            )
        )
    return {
        image["id"]: Scene(image["background"], tuple(objects[image["id"]]))
        for image in content["images"]
    }


def scenes_truth(
    folder: Path | str, split: str, data: PackedCaptions
) -> Callable[[int, int], bool]:
    """Return a judge of scenes: (row of a caption, row of an image) -> is the caption true?"""
    found = read_scenes(folder, split)
    shown = [found[image] for image in data.image_ids.tolist()]
    facts = [entry["facts"] for entry in _entries(folder, split, data)]

    def is_true(caption: int, image: int) -> bool:
        return all(check_facts(facts[caption], shown[image]).values())

    return is_true


def photos_truth(data: PackedCaptions) -> Callable[[int, int], bool]:
    """Return a judge of photos: a caption is true of its own photo, and of no other."""
    owner = np.repeat(np.arange(len(data)), np.diff(data.caption_starts))

    def is_true(caption: int, image: int) -> bool:
        return bool(owner[caption] == image)

    return is_true


def contradicting_captions(
    folder: Path | str, split: str, data: PackedCaptions, seed: int = 0
) -> list[str]:
    """Word, for each caption of the data, one that contradicts its picture in one respect.

    Returns:
        As many captions as data.all_captions, in that order; each is false of its picture.
    """
    found, rng, result = read_scenes(folder, split), random.Random(seed), []
    for entry in _entries(folder, split, data):
        shown, facts = found[entry["image_id"]], entry["facts"]
        for _ in range(100):
            changed = contradict(facts, rng)
            if not all(check_facts(changed, shown).values()):
                break
        else:
            raise ValueError(f"nothing contradicts {entry['caption']!r} in 100 tries")
        result.append(word_facts(changed, rng))
    return result


def _entries(folder: Path | str, split: str, data: PackedCaptions) -> list[dict]:
    """Caption entries in the order of data.all_captions."""
    entries = read_captions(folder, split)
    if [entry["caption"] for entry in entries] != list(data.all_captions):
        raise ValueError(
            f"the captions in {folder} are not those that were packed: pack the data again"
        )
    return entries


class MismatchedCaptions:
    """Draw a false caption for each picture of a batch."""

    def __init__(
        self,
        text: np.ndarray,
        is_true: Callable[[int, int], bool],
        contradicting: np.ndarray | None = None,
        share: float = 0.5,
    ) -> None:
        """Prepare.

        Args:
            text: [N, D], features of all captions of the data.
            is_true: see `scenes_truth` and `photos_truth`.
            contradicting: [N, D], features of a caption that contradicts each; None for none.
            share: of the pictures that get the contradicting one, 0 to 1.
        """
        self.text, self.is_true = text, is_true
        self.contradicting, self.share = contradicting, share

    def __call__(self, batch: TrainingBatch) -> Tensor:
        """Return features [B, D] of false captions, on the batch's device.

        They come from other pictures of the batch, or, where those are true, from anywhere. What
        is drawn comes from torch's global generator, whose state a checkpoint keeps.
        """
        captions, images = batch.caption_rows.tolist(), batch.image_rows.tolist()
        number = len(captions)
        order = torch.randperm(number).tolist()
        place = {row: index for index, row in enumerate(order)}
        drawn = []
        for index, image in enumerate(images):
            following = (order[(place[index] + k) % number] for k in range(1, min(TRIES, number)))
            candidates = [captions[other] for other in following]
            candidates += torch.randint(len(self.text), (TRIES,)).tolist()
            false = (row for row in candidates if not self.is_true(row, image))
            drawn.append(next(false, candidates[-1]))
        features = np.asarray(self.text[np.array(drawn)], dtype=np.float32)  # [B, D]
        if self.contradicting is not None:
            hard = (torch.rand(number) < self.share).numpy()
            features = features.copy()
            features[hard] = self.contradicting[np.array(captions)[hard]]
        return torch.from_numpy(features).to(batch.text.device)
