"""The oracle: reads a picture of the embedded data set back into the facts it shows.

No training is involved, so its verdict on a generated picture does not depend on a network. It says
None where it cannot tell; it never guesses.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
from scipy import ndimage

from t2i_course.scenes.drawing import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    SIDE,
    Scene,
    SceneObject,
    draw_background,
    shape_mask,
)

RELATIONS = {  # (axis, sign): "left of" holds where the first centre has the smaller x
    "left of": (0, -1),
    "right of": (0, 1),
    "above": (1, -1),
    "below": (1, 1),
}
RELATION_SLACK = 3  # pixels between two centres from which a relation is accepted
WINDOW = 40
SHADES = (0.82, 0.88, 0.94, 1.0)


def _window(coverage: np.ndarray, top: int, left: int) -> np.ndarray:
    """Part [40, 40] of a coverage, padded, with row `top` and column `left` at (4, 4)."""
    return np.pad(coverage, WINDOW)[top - 4 + WINDOW :, left - 4 + WINDOW :][:WINDOW, :WINDOW]


@cache
def _templates() -> tuple[np.ndarray, list[tuple[str, int]], np.ndarray]:
    """Every mask in [0, 1] in its window; their names; box sizes."""
    masks, names, boxes = [], [], []
    for shape, diameter in itertools.product(SHAPES, range(9, 33)):
        mask = np.asarray(shape_mask(shape, diameter), dtype=np.float32) / 255
        rows, columns = np.nonzero(mask > 0.5)
        top, left = rows.min(), columns.min()
        masks.append(_window(mask, top, left))
        names.append((shape, diameter))
        boxes.append((rows.max() - top + 1, columns.max() - left + 1))
    return np.stack(masks), names, np.array(boxes)


def _read_background(pixels: np.ndarray) -> tuple[str | None, np.ndarray]:
    """Name and estimate [64, 64, 3] of the background, from the picture's outermost pixels."""
    ring = np.ones((SIDE, SIDE), dtype=bool)
    ring[1:-1, 1:-1] = False
    errors = {
        name: np.abs(pixels[ring] - draw_background(name)[ring]).max(axis=1).mean()
        for name in BACKGROUNDS
    }
    name = min(errors, key=errors.get)
    estimate = draw_background(name).astype(np.float32)
    estimate = estimate + np.median(pixels[ring] - estimate[ring], axis=0)
    return (name if errors[name] <= 30 else None), estimate


def _read_color(rgb: np.ndarray) -> str | None:
    """Nearest palette entry in any of its shades; None beyond 70 levels."""
    palette = np.array([[s * c for c in rgb_] for rgb_ in COLORS.values() for s in SHADES])
    distance = np.linalg.norm(palette - rgb, axis=1)
    best = int(distance.argmin())
    return list(COLORS)[best // len(SHADES)] if distance[best] <= 70 else None


def _read_shape(
    coverage: np.ndarray, top: int, left: int, height: int, width: int
) -> tuple[str | None, int]:
    """Shape and diameter by soft overlap with the rendered masks; None if none fits clearly.

    `coverage` [64, 64] is the share of the object in each pixel, the rest its box in pixels.
    """
    masks, names, boxes = _templates()
    near = np.nonzero((np.abs(boxes - (height, width)) <= 2).all(axis=1))[0]
    if not len(near):
        return None, max(height, width)
    patch = _window(coverage, top, left)
    common, either = np.minimum(masks[near], patch), np.maximum(masks[near], patch)
    best: dict[str, tuple[float, int, str]] = {}
    for value, index in zip(common.sum((1, 2)) / either.sum((1, 2)), near, strict=True):
        shape, diameter = names[index]
        best[shape] = max(best.get(shape, (0.0, 0, shape)), (float(value), diameter, shape))
    ranked = sorted(best.values(), reverse=True)
    value, diameter, shape = ranked[0]
    clear = value >= 0.72 and (len(ranked) == 1 or value - ranked[1][0] >= 0.03)
    return (shape if clear else None), diameter


def _between_edges(pixels: np.ndarray) -> np.ndarray:
    """Estimate [64, 64, 3] of any background that changes evenly from the top to the bottom."""
    top, bottom = np.median(pixels[0], axis=0), np.median(pixels[-1], axis=0)
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top + (bottom - top) * down, pixels.shape)


def read_picture(pixels: np.ndarray, any_background: bool = False) -> Scene:
    """Read a picture back into the facts it shows; what cannot be told is None, never guessed.

    Background from the edge, objects as connected regions, colour by nearest palette entry, shape
    by overlap with rendered masks, size by the best mask's diameter.

    Args:
        pixels: uint8 [64, 64, 3].
        any_background: read the objects before a background of any colours, too; else a picture
            without one of the four backgrounds is not read further.

    Raises:
        ValueError: another shape or type of array.
    """
    pixels = np.asarray(pixels)
    if pixels.shape != (SIDE, SIDE, 3) or pixels.dtype != np.uint8:
        raise ValueError(
            f"the oracle reads uint8 [64, 64, 3], not {pixels.dtype} {list(pixels.shape)}: "
            "round pictures in [-1, 1] with data.to_uint8 and put the channels last"
        )
    pixels = pixels.astype(np.float32)
    background, estimate = _read_background(pixels)
    if any_background:
        estimate = _between_edges(pixels)
    elif background is None:
        return Scene(None)
    difference = pixels - estimate
    distance = np.linalg.norm(difference, axis=2)
    regions, count = ndimage.label(distance > 34)
    objects = []
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        inside = regions[box] == number
        if inside.sum() < 12:  # a speck
            continue
        far = distance[box] * inside
        core = far >= 0.8 * np.percentile(far[inside], 80)
        rgb = np.median(pixels[box][core], axis=0)
        direction = rgb - np.median(estimate[box][core], axis=0)
        # Parts on both sides of the background's colour can cancel: then there is no direction.
        share = (difference @ direction / max(direction @ direction, 1e-6)).clip(0, 1)
        grown = np.zeros((SIDE, SIDE), dtype=bool)
        grown[box] = inside
        share = np.where(ndimage.binary_dilation(grown, iterations=2), share, 0)
        if one_color := bool((share > 0.5).any()):
            rows, columns = np.nonzero(share > 0.5)
        else:
            rows, columns = np.nonzero(grown)
        top, left = rows.min(), columns.min()
        height, width = rows.max() - top + 1, columns.max() - left + 1
        shape, diameter = _read_shape(share, top, left, height, width)
        told = (shape, _read_color(rgb)) if one_color else (None, None)
        size = "small" if diameter < 19.5 else "large"
        place = left + width / 2, top + height / 2, diameter
        objects.append(SceneObject(*told, size, *place, tuple(int(c) for c in rgb)))
    return Scene(background, tuple(objects[:9]))


def relation_holds(first: SceneObject, relation: str, second: SceneObject) -> bool:
    """Whether `first` stands in `relation` to `second`: centres at least 3 pixels apart so."""
    axis, sign = RELATIONS[relation]
    gap = (first.x - second.x, first.y - second.y)[axis]
    return sign * gap >= RELATION_SLACK


def check_facts(facts: dict[str, Any], scene: Scene) -> dict[str, bool]:
    """Compare what a caption states with what a scene holds.

    Caption objects are matched with scene objects in the way that makes most facts right.

    Args:
        facts: as `t2i_course.scenes.wording.choose_facts` gives them.
        scene: drawn or read by the oracle.

    Returns:
        For each kind of fact that is stated (background, count, color, shape, size, corner,
        relation) whether all facts of this kind are right. The caption is true of the scene where
        all values are True.
    """
    stated, found = facts["objects"], scene.objects
    result = {}
    if facts.get("background") is not None:
        result["background"] = facts["background"] == scene.background
    result["count"] = len(stated) == len(found)
    best: dict[str, list[bool]] = {}
    places = range(max(len(stated), len(found)))
    for order in itertools.permutations(places, len(stated)):
        matched = [found[i] if i < len(found) else None for i in order]
        checks: dict[str, list[bool]] = {}
        for wanted, thing in zip(stated, matched, strict=True):
            for name, value in wanted.items():
                right = thing is not None and getattr(thing, name) == value
                checks.setdefault(name, []).append(right)
        for i, relation, j in facts.get("relations", []):
            first, second = matched[i], matched[j]
            right = None not in (first, second) and relation_holds(first, relation, second)
            checks.setdefault("relation", []).append(right)
        if not best or sum(map(sum, checks.values())) > sum(map(sum, best.values())):
            best = checks
    return result | {name: all(values) for name, values in best.items()}
