"""Which captions are true of which pictures: whole tables at once, from the facts.

`oracle.check_facts` compares one caption with one scene and says what is wrong. Here only whether
all is right is asked, of thousands of pairs: what a scene shows and what a caption states become
bits, and a caption is true where no bit that it needs is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from t2i_course.scenes.drawing import Scene
from t2i_course.scenes.oracle import RELATIONS, relation_holds
from t2i_course.scenes.wording import VALUES, Facts

MOST = 3  # objects in a scene
ORDERS = list(itertools.permutations(range(MOST)))  # which object a caption's first one is, ...
TRAITS = ("shape", "color", "size", "corner")
_NAMES = [("count", n + 1) for n in range(MOST)]
_NAMES += [("background", value) for value in VALUES["background"]]
_NAMES += [(k, name, value) for k in range(MOST) for name in TRAITS for value in VALUES[name]]
_NAMES += [(i, r, j) for i, j in itertools.permutations(range(MOST), 2) for r in RELATIONS]
BITS = {name: (number // 60, 1 << number % 60) for number, name in enumerate(_NAMES)}
WORDS = 1 + (len(_NAMES) - 1) // 60  # 64-bit numbers that hold all bits


def _bits(names: Sequence[tuple]) -> list[int]:
    """Numbers [W] in which the named bits are set."""
    words = [0] * WORDS
    for name in names:
        word, bit = BITS[name]
        words[word] |= bit
    return words


def _shown(scene: Scene) -> list[int]:
    """All that is true of a scene."""
    things = scene.objects
    names: list[tuple] = [("count", len(things)), ("background", scene.background)]
    for k, thing in enumerate(things):
        values = [(k, name, getattr(thing, name)) for name in TRAITS]
        names += [value for value in values if value[2] is not None]
    for i, j in itertools.permutations(range(len(things)), 2):
        names += [(i, r, j) for r in RELATIONS if relation_holds(things[i], r, things[j])]
    return _bits(names)


def _needed(facts: Facts, order: Sequence[int]) -> list[int]:
    """What must be true of a scene, if the caption's object k is the scene's object order[k]."""
    names: list[tuple] = [("count", len(facts["objects"]))]
    if facts.get("background") is not None:
        names.append(("background", facts["background"]))
    for k, wanted in enumerate(facts["objects"]):
        names += [(order[k], name, value) for name, value in wanted.items()]
    names += [(order[i], r, order[j]) for i, r, j in facts.get("relations", [])]
    return _bits(names)


class TruthTable:
    """Whether captions are true of pictures, as `check_facts` has it, for whole tables.

    is_true = TruthTable(facts, scenes)
    is_true(caption_rows, image_rows)  # bool [C, N]
    """

    def __init__(self, facts: Sequence[Facts], scenes: Sequence[Scene]) -> None:
        """Turn into bits what captions state, of one to three objects, and what scenes show."""
        self.shown = np.array([_shown(scene) for scene in scenes], dtype=np.int64)  # [N, W]
        self.needed = np.array(
            [[_needed(stated, order) for order in ORDERS] for stated in facts], dtype=np.int64
        )  # [C, orders, W]

    def __call__(self, caption_rows: np.ndarray, image_rows: np.ndarray) -> np.ndarray:
        """Look up rows [C] of captions against rows [N] of pictures: bool [C, N]."""
        absent = ~self.shown[image_rows]  # [N, W]
        needed = self.needed[caption_rows]  # [C, orders, W]
        found = np.zeros((len(needed), len(absent)), dtype=bool)
        for order in range(len(ORDERS)):
            missing = needed[:, order, None, 0] & absent[None, :, 0]  # [C, N]
            for word in range(1, WORDS):
                missing |= needed[:, order, None, word] & absent[None, :, word]
            found |= missing == 0
        return found
