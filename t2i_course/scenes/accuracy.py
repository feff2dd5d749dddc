"""Does a picture show what its caption says? As a fact: read by the oracle, counted, with interval.

Only scenes can be asked this, since their captions come with what they state. A share has a meaning
beside the shares of two other sets: real pictures, and the same pictures judged against captions of
others (`derangement`), which says how much is right by accident.

    verdicts = judge(images, facts)              # each picture against its own caption
    accuracy(verdicts, facts)["all"]             # Estimate: 0.31 (0.29 to 0.33)
    others = derangement(range(len(images)))     # each picture gets another one's caption
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from t2i_course.estimates import Estimate, wilson_interval
from t2i_course.metrics.picture_features import check_pictures
from t2i_course.scenes.drawing import SIDE, Scene
from t2i_course.scenes.oracle import check_facts, read_picture
from t2i_course.scenes.wording import Facts

KINDS = ("color", "shape", "size", "count", "relation", "background", "corner")
NUMBERS = {1: "one object", 2: "two objects", 3: "three objects"}
SUBSETS = {"val_seen": "seen pairs", "val_unseen": "unseen pairs"}


def read_scenes(images: np.ndarray | Tensor, progress: bool = False) -> list[Scene]:
    """Let the oracle read pictures, some milliseconds each.

    Args:
        images: N of them, [N, 3, 64, 64], uint8 or in [-1, 1]; see `check_pictures`.
        progress: show a bar.

    Returns:
        N scenes; what the oracle cannot tell is None in them.

    Raises:
        ValueError: the pictures are not pictures, or of another size.
    """
    pixels = np.moveaxis(check_pictures(images, SIDE), 1, -1)  # [N, 64, 64, 3]
    return [read_picture(p) for p in tqdm(pixels, desc="reading scenes", disable=not progress)]


def check_scenes(found: Sequence[Scene], facts: Sequence[Facts]) -> np.ndarray:
    """Compare N scenes, kind by kind, with what N captions state.

    Args:
        found: as `read_scenes` gives them.
        facts: of one caption for each, as in `drawing.read_captions`.

    Returns:
        Verdicts, int8 [N, 7], a column for each of `KINDS`: 1 where all that the caption states of
        this kind is right, 0 where it is not, -1 where it states nothing of it.

    Raises:
        ValueError: not one caption for each scene, or none at all.
    """
    _check_length("captions' facts", facts, len(found))
    verdicts = np.full((len(found), len(KINDS)), -1, dtype=np.int8)
    for row, (stated, scene) in enumerate(zip(facts, found, strict=True)):
        for kind, right in check_facts(stated, scene).items():
            verdicts[row, KINDS.index(kind)] = right
    return verdicts


def judge(
    images: np.ndarray | Tensor, facts: Sequence[Facts], progress: bool = False
) -> np.ndarray:
    """Read pictures and compare them with their captions: `check_scenes` of `read_scenes`."""
    _check_length("captions' facts", facts, len(images))
    return check_scenes(read_scenes(images, progress), facts)


def accuracy(
    verdicts: np.ndarray, facts: Sequence[Facts], subsets: Sequence[str] | None = None
) -> dict[str, Estimate]:
    """Share of pictures with everything right, and shares of parts, with Wilson's intervals.

    Args:
        verdicts: int8 [N, 7] of `check_scenes`.
        facts: the N captions' facts.
        subsets: "val_seen" or "val_unseen" for each caption's image: whether every (shape, colour)
            pair in it occurs in train; other values are passed over.

    Returns:
        By name: "all" that a caption states is right; the same by the number of objects that it
        names ("one object", ...) and by subset ("seen pairs", "unseen pairs"); and for each of
        `KINDS`, of the captions that state such a fact, all facts of that kind are right. What no
        caption asks for is left out.

    Raises:
        ValueError: not one row of verdicts for each caption, or none.
    """
    _check_length("captions' facts", facts, len(verdicts))
    whole = (verdicts != 0).all(axis=1)  # [N]
    parts = {"all": whole}
    objects = np.array([len(stated["objects"]) for stated in facts])
    parts |= {name: whole[objects == number] for number, name in NUMBERS.items()}
    if subsets is not None:
        _check_length("subsets", subsets, len(verdicts))
        parts |= {name: whole[np.array(subsets) == key] for key, name in SUBSETS.items()}
    for column, kind in enumerate(KINDS):
        parts[kind] = verdicts[verdicts[:, column] >= 0, column] == 1
    return {name: _share(right) for name, right in parts.items() if len(right)}


def derangement(groups: Iterable[Hashable], seed: int = 0) -> np.ndarray:
    """Draw a permutation in which no picture gets a caption of its own group.

    The groups are laid one after the other in random order, each shuffled, and everything moves on
    by the size of the largest group. For single pictures this is a random cycle.

    Args:
        groups: of the N pictures, such as the ids of the images whose captions they show: the
            captions of one image state the same things. `range(N)` for single pictures.
        seed: of the draw.

    Returns:
        int64 [N]: picture i is judged against the caption of picture result[i].

    Raises:
        ValueError: fewer than two pictures, or a group of more than half of them.
    """
    _, number, sizes = np.unique(list(groups), return_inverse=True, return_counts=True)
    if not len(sizes) or 2 * sizes.max() > len(number):
        raise ValueError(
            f"{len(number)} pictures cannot be given captions of others: the largest group has "
            f"{sizes.max(initial=0)} of them. Take more pictures, of more images."
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(number))
    order = shuffled[np.argsort(rng.permutation(len(sizes))[number[shuffled]], kind="stable")]
    result = np.empty(len(number), dtype=np.int64)
    result[order] = np.roll(order, -int(sizes.max()))
    return result


def _share(right: np.ndarray) -> Estimate:
    """Share of True among N booleans."""
    share = float(right.mean())
    return Estimate(share, wilson_interval(share, len(right)), len(right))


def _check_length(name: str, values: Sequence, expected: int) -> None:
    if len(values) != expected or not expected:
        raise ValueError(
            f"{len(values)} {name} for {expected} pictures: give one for each, at least one"
        )
