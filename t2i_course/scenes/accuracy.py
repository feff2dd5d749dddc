"""Does a picture show what its caption says? As a fact: read by the oracle, counted, with interval.

Only scenes can be asked this, since their captions come with what they state. A share has a meaning
beside the shares of two other sets: real pictures, and the same pictures compared with captions of
others (`derangement`), which says how much is right by accident.

    verdicts = check_images(images, facts)       # each picture against its own caption
    accuracy(verdicts, facts)["all"]             # Estimate: 0.31 (0.29 to 0.33)
    others = derangement(range(len(images)))     # each picture gets another one's caption
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from t2i_course.evaluation import Estimate, bootstrap_interval, wilson_interval
from t2i_course.metrics.picture_features import check_pictures
from t2i_course.scenes.drawing import SIDE, Scene, sample_scene
from t2i_course.scenes.oracle import check_facts, read_picture
from t2i_course.scenes.wording import ATTRIBUTES, Facts

KINDS = ("color", "shape", "size", "count", "relation", "background", "corner")
NUMBERS = {1: "one object", 2: "two objects", 3: "three objects"}
SUBSETS = {"seen": "seen pairs", "unseen": "unseen pairs"}


def read_scenes(images: np.ndarray | Tensor, progress: bool = False) -> list[Scene]:
    """Let the oracle read N pictures [N, 3, 64, 64], uint8 or in [-1, 1], some milliseconds each.

    Raises:
        ValueError: the pictures are not pictures, or of another size.
    """
    pixels = np.moveaxis(check_pictures(images, SIDE), 1, -1)  # [N, 64, 64, 3]
    return [read_picture(p) for p in tqdm(pixels, desc="reading scenes", disable=not progress)]


def check_scenes(found: Sequence[Scene], facts: Sequence[Facts]) -> np.ndarray:
    """Compare N scenes, kind by kind, with what N captions state.

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


def check_images(
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
        subsets: of each caption's image, such as "val_seen" or "val_unseen": whether every (shape,
            colour) pair in it occurs in train; other values are passed over.

    Returns:
        By name: "all" that a caption states is right; the same by the number of objects that it
        names ("one object", ...) and by subset ("seen pairs", "unseen pairs"); and for each of
        `KINDS`, of the captions that state such a fact, all facts of that kind are right. What no
        caption asks for is left out.
    """
    whole = (verdicts != 0).all(axis=1)  # [N]
    parts = {"all": whole}
    objects = np.array([len(stated["objects"]) for stated in facts])
    parts |= {name: whole[objects == number] for number, name in NUMBERS.items()}
    if subsets is not None:
        kinds = np.array([subset.rpartition("_")[2] for subset in subsets])
        parts |= {name: whole[kinds == key] for key, name in SUBSETS.items()}
    for column, kind in enumerate(KINDS):
        parts[kind] = verdicts[verdicts[:, column] >= 0, column] == 1
    return {name: _share(right) for name, right in parts.items() if len(right)}


def names_all(stated: Facts) -> bool:
    """Whether a caption is of one object and leaves only place, diameter and shade open."""
    things = [set(thing) for thing in stated["objects"]]
    return stated["background"] is not None and things == [set(ATTRIBUTES)]


def variety(
    scenes: Sequence[Sequence[Scene]], facts: Sequence[Facts], repeats: int = 200
) -> dict[str, Estimate]:
    """How much pictures of one caption differ in what it leaves open.

    Of the pictures that show what is stated, the standard deviation within a caption: root mean
    square over captions, bootstrapped over them.

    Args:
        scenes: read from several pictures of each of K captions.
        facts: of the captions, for which `names_all` holds.
        repeats: of the bootstrap.

    Returns:
        "place, px", of the object's centre across and down; "diameter, px"; "shade, levels" of 255,
        of the three channels. Empty if fewer than two captions have two right pictures each.
    """
    variances = []
    for read, stated in zip(scenes, facts, strict=True):
        shown = [scene.objects[0] for scene in read if all(check_facts(stated, scene).values())]
        if len(shown) > 1:
            values = np.array([(o.x, o.y, o.diameter, *o.rgb) for o in shown]).var(axis=0, ddof=1)
            variances.append((values[:2].mean(), values[2], values[3:].mean()))
    if len(variances) < 2:
        return {}
    names = ("place, px", "diameter, px", "shade, levels")
    return {
        name: bootstrap_interval(lambda v: np.sqrt(v.mean()), np.array(column), repeats=repeats)
        for name, column in zip(names, zip(*variances, strict=True), strict=True)
    }


def scenes_like(stated: Facts, count: int, seed: int = 0) -> list[Scene]:
    """Scenes drawn by the rule of the data set that show a caption for which `names_all` holds."""
    (wanted,) = stated["objects"]
    rng, found = random.Random(f"scenes like {sorted(wanted.items())} {seed}"), []
    while len(found) < count:
        (thing,) = sample_scene(rng, shares={"one": 1}).objects
        if (thing.color, thing.size) == (wanted["color"], wanted["size"]):
            found.append(Scene(stated["background"], (replace(thing, shape=wanted["shape"]),)))
    return found


def derangement(groups: Iterable[Hashable], seed: int = 0) -> np.ndarray:
    """Draw a permutation in which no picture gets a caption of its own group.

    The groups are laid one after the other in random order, each shuffled, and everything moves on
    by the size of the largest group. For single pictures this is a random cycle.

    Args:
        groups: of the N pictures, such as the ids of the images whose captions they show;
            `range(N)` for single pictures.
        seed: of the draw.

    Returns:
        int64 [N]: picture i is compared with the caption of picture result[i].

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
    share = float(right.mean())
    return Estimate(share, wilson_interval(share, len(right)), len(right))


def _check_length(name: str, values: Sequence, expected: int) -> None:
    if len(values) != expected or not expected:
        raise ValueError(
            f"{len(values)} {name} for {expected} pictures: give one for each, at least one"
        )
