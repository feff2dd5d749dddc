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


@cache
def _templates() -> tuple[np.ndarray, list[tuple[str, int]], np.ndarray]:
    """Every mask in [0, 1], its box at (4, 4) of a 40 x 40 window; their names; box sizes."""
    masks, names, boxes = [], [], []
    for shape, diameter in itertools.product(SHAPES, range(9, 33)):
        mask = np.asarray(shape_mask(shape, diameter), dtype=np.float32) / 255
        rows, columns = np.nonzero(mask > 0.5)
        top, left = rows.min(), columns.min()
        window = np.zeros((WINDOW + 40, WINDOW + 40), dtype=np.float32)
        window[
            20 + 4 - top : 20 + 4 - top + len(mask), 20 + 4 - left : 20 + 4 - left + len(mask)
        ] = mask
        masks.append(window[20 : 20 + WINDOW, 20 : 20 + WINDOW])
        names.append((shape, diameter))
        boxes.append((rows.max() - top + 1, columns.max() - left + 1))
    return np.stack(masks), names, np.array(boxes)


def _read_background(pixels: np.ndarray) -> tuple[str | None, np.ndarray]:
    """Name and estimate [64, 64, 3] of the background, from the picture's outermost pixels."""
    ring = np.ones((SIDE, SIDE), dtype=bool)
    ring[1:-1, 1:-1] = False
    errors = {}
    for name in BACKGROUNDS:
        errors[name] = np.abs(pixels[ring] - draw_background(name)[ring]).max(axis=1).mean()
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

    Args:
        coverage: [64 + 2 * 40, 64 + 2 * 40] share of the object in each pixel, padded by 40.
        top: first row of its box, in unpadded pixels.
        left: first column of its box.
        height: height of its box.
        width: width of its box.
    """
    masks, names, boxes = _templates()
    near = np.nonzero((np.abs(boxes - (height, width)) <= 2).all(axis=1))[0]
    if not len(near):
        return None, max(height, width)
    start = (top - 4 + WINDOW, left - 4 + WINDOW)
    patch = coverage[start[0] : start[0] + WINDOW, start[1] : start[1] + WINDOW]
    overlap = np.minimum(masks[near], patch).sum((1, 2)) / np.maximum(masks[near], patch).sum(
        (1, 2)
    )
    best: dict[str, tuple[float, int]] = {}
    for value, index in zip(overlap, near, strict=True):
        shape, diameter = names[index]
        best[shape] = max(best.get(shape, (0.0, 0)), (float(value), diameter))
    ranked = sorted(
        ((value, diameter, shape) for shape, (value, diameter) in best.items()), reverse=True
    )
    value, diameter, shape = ranked[0]
    clear = value >= 0.72 and (len(ranked) == 1 or value - ranked[1][0] >= 0.03)
    return (shape if clear else None), diameter


def _between_edges(pixels: np.ndarray) -> np.ndarray:
    """Estimate [64, 64, 3] of any background that changes evenly from the top to the bottom."""
    top, bottom = np.median(pixels[0], axis=0), np.median(pixels[-1], axis=0)
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top + (bottom - top) * down, pixels.shape)


def read_picture(pixels: np.ndarray, any_background: bool = False) -> Scene:
    """Read a picture back into the facts it shows, without any training.

    Background from the edge, objects as connected regions, colour by nearest palette entry, shape
    by overlap with rendered masks, size by the best mask's diameter.

    Args:
        pixels: uint8 [64, 64, 3].
        any_background: read the objects before a background of any colours, too; else a picture
            without one of the four backgrounds is not read further.

    Returns:
        The scene; what cannot be told is None, never guessed.

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
        shape, diameter = _read_shape(np.pad(share, WINDOW), top, left, height, width)
        size = "small" if diameter < 19.5 else "large"
        x, y = left + width / 2, top + height / 2
        color = tuple(int(c) for c in rgb)
        told = (shape, _read_color(rgb)) if one_color else (None, None)
        objects.append(SceneObject(*told, size, x, y, diameter, color))
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
        facts: as `t2i_course.scenes.wording.describe` gives them: `background` or None, `objects`
            (stated attributes of each), `relations` ([index, relation, index]).
        scene: drawn or read by the oracle.

    Returns:
        For each kind of fact that is stated (background, count, color, shape, size, corner,
        relation) whether all facts of this kind are right. The caption is true of the scene where
        all values are True.
    """
    stated, found = facts["objects"], scene.objects
    result = (
        {}
        if facts.get("background") is None
        else {"background": facts["background"] == scene.background}
    )
    result["count"] = len(stated) == len(found)
    best: dict[str, list[bool]] = {}
    places = range(max(len(stated), len(found)))
    for order in itertools.permutations(places, len(stated)):
        matched = [found[i] if i < len(found) else None for i in order]
        checks: dict[str, list[bool]] = {}
        for wanted, thing in zip(stated, matched, strict=True):
            for name, value in wanted.items():
                checks.setdefault(name, []).append(
                    thing is not None and getattr(thing, name) == value
                )
        for i, relation, j in facts.get("relations", []):
            pair = (matched[i], matched[j])
            checks.setdefault("relation", []).append(
                None not in pair and relation_holds(pair[0], relation, pair[1])
            )
        if not best or sum(map(sum, checks.values())) > sum(map(sum, best.values())):
            best = checks
    return result | {name: all(values) for name, values in best.items()}
