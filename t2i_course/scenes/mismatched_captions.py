"""False captions of real pictures, for a discriminator that is to read.

A caption of another picture is mostly false of this one; mostly is not enough. "Two small stars"
may be true of both, and a discriminator that is told it is false learns nonsense. In scenes the
facts decide; among photos the captions of the same photo are left out.

Captions of other pictures differ in everything, and a glance at the background tells them apart.
`contradicting_captions` differ from a true one in one fact: who is left, which is red.
"""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i_course.data import PackedCaptions
from t2i_course.processes import TrainingBatch
from t2i_course.scenes.drawing import Scene, read_captions, read_instances
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.wording import Facts, contradict, word_facts
from t2i_course.text_cache import EmbeddedCaptions
from t2i_course.text_encoder import TextFeatures, choose, reshape

TRIES = 8  # other captions that are tried for a picture
Truth = Callable[[int, int], bool]  # (row of a caption, row of an image) -> is the caption true?


def scenes_truth(folder: Path | str, split: str, data: PackedCaptions) -> Truth:
    """What knows of drawn scenes whether a caption of the data is true of a picture."""
    found = read_instances(folder, split)
    shown = [found[image] for image in data.image_ids.tolist()]
    facts = facts_of(folder, data, split)
    return lambda caption, image: all(check_facts(facts[caption], shown[image]).values())


def photos_truth(data: PackedCaptions) -> Truth:
    """The same of photos: their own captions are true of them, and what says the same.

    Two captions say the same if their words are equal but for capitals and ways to write an accent.
    """
    numbers: dict[str, int] = {}  # of texts that differ
    texts = (unicodedata.normalize("NFKC", caption).casefold() for caption in data.all_captions)
    words = (" ".join(re.findall(r"\w+", text)) or text for text in texts)
    said = np.array([numbers.setdefault(text, len(numbers)) for text in words])  # [N]

    def is_true(caption: int, image: int) -> bool:
        first, end = data.caption_starts[image], data.caption_starts[image + 1]
        return bool((said[first:end] == said[caption]).any())

    return is_true


def contradicting_captions(folder: Path | str, split: str, data: PackedCaptions) -> list[str]:
    """Word, for each of data.all_captions, one that contradicts its picture in one respect."""
    found, rng = read_instances(folder, split), random.Random(0)
    return [
        word_facts(contradicting_facts(entry, found[entry["image_id"]], rng, third=True), rng)
        for entry in _entries(folder, split, data)
    ]


def like_worded_pair(entry: Mapping[str, Any], shown: Scene, rng: random.Random) -> tuple[str, str]:
    """Word a caption anew, and one that contradicts it, in the same order and with the same words.

    Of 20 wordings of both, the pair is taken that differs at the fewest places. A reader who finds
    long captions improbable has then nothing to go by but the picture.

    Args:
        entry: as `contradicting_facts` takes it.
        shown: the scene that the picture shows.
        rng: the source of chance.

    Returns:
        The true caption, and the false one.
    """

    def differing_places(pair: tuple[str, str]) -> int:
        true, false = (caption.split() for caption in pair)
        return sum(a != b for a, b in itertools.zip_longest(true, false))

    both = entry["facts"], contradicting_facts(entry, shown, rng)
    seeds = [rng.random() for _ in range(20)]
    pairs = [tuple(word_facts(stated, random.Random(seed)) for stated in both) for seed in seeds]
    return min(pairs, key=differing_places)


def contradicting_facts(
    entry: Mapping[str, Any], shown: Scene, rng: random.Random, third: bool = False
) -> Facts:
    """What a caption states that contradicts another one, and the scene it is of, in one respect.

    Args:
        entry: of `drawing.read_captions`, with its `caption` and `facts`.
        shown: the scene that the picture shows.
        rng: the source of chance.
        third: see `wording.contradict`.

    Raises:
        ValueError: 100 tries were all true of the scene.
    """
    for _ in range(100):
        changed = contradict(entry["facts"], rng, swap_listed=True, third=third)
        if not all(check_facts(changed, shown).values()):
            return changed
    raise ValueError(f"nothing contradicts {entry['caption']!r} in 100 tries")


def facts_of(folder: Path | str, data: PackedCaptions, split: str = "train") -> list[Facts]:
    """What the captions of the data state, in the order of data.all_captions."""
    return [entry["facts"] for entry in _entries(folder, split, data)]


def _entries(folder: Path | str, split: str, data: PackedCaptions) -> list[dict]:
    """Caption entries in the order of data.all_captions."""
    entries = read_captions(folder, split)
    if [entry["caption"] for entry in entries] != list(data.all_captions):
        raise ValueError(
            f"the captions in {folder} are not those that were packed: pack the data again"
        )
    return entries


class MismatchedCaptions:
    """Draw false captions for each picture of a batch."""

    def __init__(
        self,
        data: PackedCaptions,
        text: np.ndarray | EmbeddedCaptions,
        is_true: Truth,
        contradicting: np.ndarray | EmbeddedCaptions | None = None,
        share: float = 0.5,
        number: int = 1,
    ) -> None:
        """Prepare.

        Args:
            data: the pictures and their captions.
            text: [N, D], features of data.all_captions, or with their words.
            is_true: see `scenes_truth` and `photos_truth`.
            contradicting: as `text`, of a caption that contradicts each; None for none.
            share: of the false captions that contradict a caption of the picture, 0 to 1.
            number: K, false captions of each picture.
        """
        self.text, self.is_true = text, is_true
        self.contradicting, self.share = contradicting, share
        self.starts, self.number = data.caption_starts, number

    def __call__(self, batch: TrainingBatch) -> Tensor | TextFeatures:
        """Return features [K, B, D] of false captions, or with words [K, B, T, D], on the device.

        Of other pictures, `TRIES` captions are tried; if all of them are true, the last is taken.
        What is drawn comes from `batch.draw`.
        """
        images, number = batch.image_rows.numpy(), self.number
        others = (batch.draw(number, TRIES) * len(self.text)).long()  # [B, K, TRIES]
        own, hard = batch.draw(number, 2).movedim(2, 0).numpy()  # [B, K] each
        drawn = np.array([
            [self._first_false(candidates, image) for candidates in groups]
            for groups, image in zip(others.tolist(), images.tolist(), strict=True)
        ])  # [B, K]  # fmt: skip
        found = _take(self.text, drawn)
        words = isinstance(found, TextFeatures)
        if self.contradicting is not None:
            first, end = self.starts[images, None], self.starts[images + 1, None]  # [B, 1] each
            rows, chosen = first + (own * (end - first)).astype(int), hard < self.share  # [B, K]
            take, wrong = torch.from_numpy(chosen.T.ravel()), _take(self.contradicting, rows)
            pick = choose if words else torch.where
            found = pick(take if words else take[:, None], wrong, found)
        shape = number, len(images)
        found = reshape(found, *shape) if words else found.unflatten(0, shape)
        return found.to(batch.images.device)

    def _first_false(self, candidates: list[int], image: int) -> int:
        """Return the first of some captions' rows that is false of an image, or the last."""
        false = (row for row in candidates if not self.is_true(row, image))
        return next(false, candidates[-1])


def _take(text: np.ndarray | EmbeddedCaptions, rows: np.ndarray) -> Tensor | TextFeatures:
    """Features of the captions in rows [B, K], in the order of [K, B]: [K B, D], or with words."""
    found = text[rows.T.ravel()]
    if isinstance(found, TextFeatures):
        return found
    return torch.from_numpy(np.array(found, dtype=np.float32))
