"""Generators whose faults are known: the perfect one, and six ways to spoil it.

A measure is understood by what it says of a fault that was made on purpose. The perfect generator
draws scenes as the data set does, each with a caption that is true of it; nothing of it is in train
or val. Each fault has a strength, and at strength 0 nothing is spoiled.

    perfect = draw_perfect(800)
    images, captions = FAULTS["blur, px"].spoil(perfect, 2.0)   # pictures, and rows of captions
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from t2i_course.scenes import accuracy, drawing, wording
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.wording import Facts

# Of the generator that answers a caption always alike: centres, by the number of objects
LAYOUTS = {
    1: [[(32, 32)], *([(x, y)] for x in (16, 48) for y in (16, 48))],
    2: [[(16, 32), (48, 32)], [(32, 16), (32, 48)]],
    3: [[(14, 14), (32, 48), (50, 14)], [(14, 50), (32, 14), (50, 50)],
        [(14, 14), (48, 32), (14, 50)], [(50, 14), (16, 32), (50, 50)]],
}  # fmt: skip
USUAL = {"shape": "circle", "color": "red", "size": "small"}  # where nothing is stated
DIAMETER = {"small": 15, "large": 25}
LOST = {"circle": "square", "heart": "triangle", "cross": "star"}  # and what is drawn instead


@dataclass(frozen=True)
class Perfect:
    """What a perfect generator draws: N scenes."""

    scenes: tuple[drawing.Scene, ...]
    images: np.ndarray  # uint8 [N, 3, 64, 64]
    captions: tuple[str, ...]
    facts: tuple[Facts, ...]  # that the captions state


def draw_perfect(number: int, seed: int = 0) -> Perfect:
    """Draw new scenes by the rule of val: every second one has a pair that train never shows."""
    scenes, described = [], []
    for index in range(number):
        rng = random.Random(f"perfect generator {seed} {index}")
        scenes.append(drawing.sample_scene(rng, unseen=index % 2 == 1))
        described.append(wording.describe(scenes[-1], rng))
    captions, facts = zip(*described, strict=True)
    return Perfect(tuple(scenes), drawing.render_all(scenes), captions, facts)


def blurred(perfect: Perfect, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of `sigma` pixels."""
    if sigma == 0:
        return perfect.images
    images = perfect.images.astype(np.float32)
    return (
        ndimage.gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest").round().astype("u1")
    )


def noisy(perfect: Perfect, sigma: float) -> np.ndarray:
    """Add Gaussian noise of `sigma` levels of 255, the same at every strength."""
    noise = np.random.default_rng(0).standard_normal(perfect.images.shape, dtype=np.float32)
    return (perfect.images + sigma * noise).round().clip(0, 255).astype(np.uint8)


def objects_missing(perfect: Perfect, share: float) -> np.ndarray:
    """Leave each object out with a probability."""
    rng = random.Random(0)
    kept = [tuple(o for o in s.objects if rng.random() >= share) for s in perfect.scenes]
    pairs = zip(perfect.scenes, kept, strict=True)
    return drawing.render_all([replace(scene, objects=left) for scene, left in pairs])


def same_answer(stated: Facts) -> drawing.Scene:
    """Return the first scene that is true of a caption, the one that a sure generator draws."""
    for layout in LAYOUTS[len(stated["objects"])]:
        for places in itertools.permutations(layout):
            things = []
            for thing, place in zip(stated["objects"], places, strict=True):
                shape, color, size = (thing.get(name, usual) for name, usual in USUAL.items())
                rgb = drawing.COLORS[color]
                things.append(drawing.SceneObject(shape, color, size, *place, DIAMETER[size], rgb))
            scene = drawing.Scene(stated["background"] or "white", tuple(things))
            if all(check_facts(stated, scene).values()):
                return scene
    raise ValueError(f"no layout shows {stated}")


def same_answers(perfect: Perfect, share: float) -> np.ndarray:
    """Answer what a caption leaves open always alike, in that share of the pictures."""
    chosen = np.random.default_rng(0).random(len(perfect.images)) < share  # [N]
    images = perfect.images.copy()
    if chosen.any():
        images[chosen] = drawing.render_all(
            [same_answer(perfect.facts[k]) for k in np.flatnonzero(chosen)]
        )
    return images


def without_shapes(perfect: Perfect) -> np.ndarray:
    """Draw half of the shapes only: what is `LOST` is drawn as another."""
    scenes = []
    for scene in perfect.scenes:
        things = [replace(o, shape=LOST.get(o.shape, o.shape)) for o in scene.objects]
        scenes.append(replace(scene, objects=tuple(things)))
    return drawing.render_all(scenes)


def repeated(perfect: Perfect, times: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a few of the pictures so many times each, with their captions."""
    number = len(perfect.images)
    rows = np.arange(number) % -(-number // int(max(times, 1)))
    return perfect.images[rows], rows


def shuffled(perfect: Perfect, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Give that share of the pictures the caption of another one."""
    rows = np.arange(len(perfect.images))
    moved = np.random.default_rng(0).random(len(rows)) < share
    if moved.sum() > 1:
        rows[moved] = rows[moved][accuracy.derangement(range(moved.sum()))]
    return perfect.images, rows


@dataclass(frozen=True)
class Fault:
    """A way to spoil pictures."""

    strengths: tuple[float, ...]  # from weak to strong
    # (perfect, strength) to images [N, 3, 64, 64] and rows [N] of their captions
    spoil: Callable[[Perfect, float], tuple[np.ndarray, np.ndarray]]


def _own(change: Callable[[Perfect, float], np.ndarray]) -> Callable:
    """Change the pictures; each keeps its caption."""
    return lambda perfect, strength: (change(perfect, strength), np.arange(len(perfect.images)))


FAULTS = {
    "blur, px": Fault((0.5, 1, 2, 4), _own(blurred)),
    "noise, levels": Fault((5, 10, 20, 40), _own(noisy)),
    "objects missing": Fault((0.1, 0.25, 0.5, 1), _own(objects_missing)),
    "same answers": Fault((0.1, 0.25, 0.5, 1), _own(same_answers)),
    "pictures repeated": Fault((2, 4, 16, 64), repeated),
    "captions shuffled": Fault((0.1, 0.25, 0.5, 1), shuffled),
}
