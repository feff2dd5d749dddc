"""Augmentation of pictures and of captions, and whether a caption is still true afterwards.

An operation may change what a caption leaves open, and nothing that it says. On scenes the oracle
measures which kinds of statement each operation makes false (`check_statements`); `FALSIFIES` holds
what came of it, and `stays_true` decides by it: by the facts of a drawn scene, by words for photos.

    moved = augment(images, ["translation"])      # [B, 3, S, S], with a gradient
    stays_true("flip", "a dog left of a car")     # False
    reworded = word_freely(leave_out(facts, rng), rng)
"""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from t2i_course.scenes.drawing import Scene
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.wording import ATTRIBUTES, VALUES, WORDS, Facts, groups_of

AUGMENTATIONS = ("brightness", "saturation", "contrast", "translation", "cutout")  # DiffAugment's
OPERATIONS = (*AUGMENTATIONS, "flip", "crop", "hue", "mixing")
LEAST_CROP = 0.7  # side of the smallest crop, as a share of the picture's
SIDED = ("left of", "corner")  # every corner is a left or a right one
KINDS = ("shape", "color", "size", "count", "background", "sky", "corner", "left of", "above")


# Pictures


def augment(
    images: Tensor,
    operations: Sequence[str],
    draw: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Change pictures at random, each in its own way, with a gradient (zhao2020diffaugment).

    Colour operations make "a red circle" false, and so does a cut-out that hides it; a translation
    by up to a sixteenth of the side makes little false. What a caption bears, `stays_true` says.

    Args:
        images: [B, 3, S, S] in [-1, 1].
        operations: names from `OPERATIONS`, done in this order. A flip mirrors every picture.
        draw: called with a number n, returns [B, n] in [0, 1); torch's global generator if None.

    Returns:
        [B, 3, S, S]; colour operations may leave [-1, 1].
    """
    for name in operations:
        drawn = torch.rand(len(images), 2) if draw is None else draw(2)  # [B, 2]
        images = _OPERATIONS[name](images, drawn.to(images.device, torch.float32))
    return images


def _per_picture(drawn: Tensor, low: float, high: float) -> Tensor:
    return (low + (high - low) * drawn[:, 0])[:, None, None, None]  # [B, 1, 1, 1]


def _brightness(images: Tensor, drawn: Tensor) -> Tensor:
    return images + _per_picture(drawn, -0.5, 0.5)


def _saturation(images: Tensor, drawn: Tensor) -> Tensor:
    gray = images.mean(dim=1, keepdim=True)
    return gray + (images - gray) * _per_picture(drawn, 0, 2)


def _contrast(images: Tensor, drawn: Tensor) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * _per_picture(drawn, 0.5, 1.5)


def _translation(images: Tensor, drawn: Tensor) -> Tensor:
    """Move by whole pixels, up to a sixteenth of the side; the border is continued."""
    side, device = images.shape[-1], images.device
    reach = side // 16  # zhao2020diffaugment: an eighth, which takes shapes out of their corners
    moves = (drawn.T[:, :, None] * (2 * reach + 1)).long() - reach  # [2, B, 1]
    rows, columns = (torch.arange(side, device=device) + moves).clamp(0, side - 1)  # [B, S] each
    picture = torch.arange(len(images), device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)  # [B, 3, S, S]


def _cutout(images: Tensor, drawn: Tensor) -> Tensor:
    """Blank a square of half the side (devries2017cutout)."""
    side, device = images.shape[-1], images.device
    centre = (drawn.T[:, :, None] * (side + 1)).long()  # [2, B, 1]
    rows, columns = (torch.arange(side, device=device) - centre).abs() <= side // 4  # [B, S] each
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


def _flip(images: Tensor, drawn: Tensor) -> Tensor:
    """Mirror left and right."""
    return images.flip(3)


def _crop(images: Tensor, drawn: Tensor) -> Tensor:
    """Enlarge a square of at least `LEAST_CROP` of the side, anywhere, to the whole picture."""
    share = LEAST_CROP + (1 - LEAST_CROP) * drawn[:, 0]  # [B]
    diagonal = torch.diag_embed(share[:, None].expand(-1, 2))  # [B, 2, 2]
    angle = 2 * math.pi * drawn[:, 1]  # of the way from the centre, as far as the border allows
    way = torch.stack([angle.cos(), angle.sin()], dim=1) * (1 - share)[:, None]  # [B, 2]
    grid = functional.affine_grid(
        torch.cat([diagonal, way[:, :, None]], dim=2), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _hue(images: Tensor, drawn: Tensor) -> Tensor:
    """Turn all colours about the gray axis, by 60 to 300 degrees: gray stays gray."""
    angle = math.pi * _per_picture(drawn, 1 / 3, 5 / 3)
    gray = images.mean(dim=1, keepdim=True)
    red, green, blue = (images - gray).unbind(dim=1)  # [B, S, S] each, at right angles to the axis
    across = torch.stack([blue - green, red - blue, green - red], dim=1) / math.sqrt(3)
    return gray + angle.cos() * (images - gray) + angle.sin() * across


def _mixing(images: Tensor, drawn: Tensor) -> Tensor:
    """Lay the next picture of the batch over each, weaker than the picture (zhang2018mixup)."""
    return torch.lerp(images, images.roll(-1, dims=0), _per_picture(drawn, 0, 0.5))


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness, "saturation": _saturation, "contrast": _contrast,
    "translation": _translation, "cutout": _cutout, "flip": _flip, "crop": _crop, "hue": _hue,
    "mixing": _mixing,
}  # fmt: skip


# Is the caption still true?


def statements(facts: Facts) -> dict[str, Facts]:
    """Take apart what a caption states, kind by kind.

    Args:
        facts: of the caption, see `t2i_course.scenes.wording.choose_facts`.

    Returns:
        By kind, of `KINDS`, the facts of a caption that states nothing but this, though it names
        its things in order to say how they stand. A sky is a kind of its own, since it has colours.
    """
    things = [{k: v for k, v in thing.items() if k in ATTRIBUTES} for thing in facts["objects"]]
    bare = {"background": None, "objects": things, "relations": []}
    found = dict.fromkeys(("count", *(k for thing in things for k in thing)), bare)
    ground = facts["background"]
    if ground is not None:
        found["sky" if ground == "sky" else "background"] = bare | {"background": ground}
    if any("corner" in thing for thing in facts["objects"]):
        found["corner"] = bare | {"objects": facts["objects"]}
    for axis in ("left of", "above"):
        if ties := [tie for tie in facts["relations"] if tie[1] == axis]:
            found[axis] = bare | {"relations": ties}
    return found


def check_statements(facts: Facts, scene: Scene) -> dict[str, bool]:
    """Compare a scene with what a caption states, kind by kind.

    Args:
        facts: of the caption.
        scene: what the oracle reads in the augmented picture; with
            `read_picture(pixels, any_background=True)` things are seen before any background.

    Returns:
        For each kind that the caption states, whether all of it is true.
    """
    answers = {"sky": "background", "left of": "relation", "above": "relation"}
    return {
        kind: check_facts(part, scene)[answers.get(kind, kind)]
        for kind, part in statements(facts).items()
    }


FALSIFIES: dict[str, tuple[str, ...]] = {  # of one caption in 20 or more; tests measure it
    "flip": SIDED,
    "hue": ("color", "sky"),
    "saturation": ("color", "sky"),
    "brightness": ("color", "background", "sky"),
    "contrast": ("color",),
    "translation": ("corner",),
    "crop": KINDS,
    "cutout": KINDS,
    "mixing": KINDS,
}


def _words_of(kind: str) -> str:
    known = [word for value in VALUES[kind] for words in WORDS[value] for word in words]
    return "|".join(map(re.escape, known))


_SHADES = "white|gr[ae]y|black|dark|bright|light|pale"
SAID = {  # words that may state a fact of a kind; rather one too many
    kind: re.compile(rf"\b(?:{words})", re.IGNORECASE)
    for kind, words in {
        "left of": "left|right",  # leftmost and right-hand, too
        "corner": "left|right",
        "above": "above|over|below|under|beneath|top|bottom|upper|lower",
        "color": f"{_words_of('color')}|{_SHADES}|brown|gold|silver|blond|colou?r",
        "background": f"{_SHADES}|background|sky",
        "sky": "sky|skies",
        "size": f"{_words_of('size')}|tall|short|wide|long|giant",
        "shape": "",  # whatever is named has a shape and a number
        "count": "",
    }.items()
}


def says(caption: str) -> set[str]:
    """Kinds of statement, of `KINDS`, that a caption may make, by its words alone."""
    return {kind for kind, words in SAID.items() if words.search(caption)}


def stays_true(operation: str, caption: Facts | str) -> bool:
    """Whether an operation on a picture changes nothing that its caption states.

    Args:
        operation: one of `OPERATIONS`.
        caption: its facts, where they are known; else its text, whose words decide, and which is
            given up where a word may mean a side, a colour, ... An empty text states nothing.
    """
    stated = says(caption) if isinstance(caption, str) else set(statements(caption))
    return not stated & set(FALSIFIES[operation])


# Captions


def leave_out(facts: Facts, rng: random.Random, share: float = 0.3) -> Facts:
    """State less: every attribute, the background, the corner and the relations go by chance.

    What is left is true of every picture of which the whole was true. The number of things stays,
    and a thing keeps its shape or its colour.

    Args:
        facts: of a caption.
        rng: draws.
        share: chance of each statement to go.
    """
    less = copy.deepcopy(facts)
    for group in groups_of(facts):
        thing = facts["objects"][group[0]]
        gone = [name for name in thing if rng.random() < share]
        named = [name for name in ("shape", "color") if name in thing]
        if named and set(named) <= set(gone):
            gone.remove(named[0])
        for index in group:
            for name in gone:
                del less["objects"][index][name]
    if rng.random() < share:
        less["background"] = None
    if rng.random() < share:
        less["relations"] = []
    return less
