"""Captions that authors worded, each the pattern of many: the same sentence about other things.

No grammar foresees how people word what they want. The file `authored_wordings.txt` holds captions
of several authors, each with what it states. In a drawn wording other values stand in the places of
a caption's own, the same value in all the places of one (in the line of jia2016recombination, who
abstract the entities of a sentence), and left and right or top and bottom may be exchanged. These
captions go into lessons for a text encoder alone.
"""

from __future__ import annotations

import os
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

from t2i_course.scenes.wording import ATTRIBUTES, ENDS, VALUES, WORDS, Facts, plural, with_article

FILE = Path(__file__).with_name("authored_wordings.txt")
KIND = {value: name for name in ATTRIBUTES for value in VALUES[name]}
GROUNDS = {"white": ("white",), "gray": ("gray", "grey"), "black": ("black",)}  # sky takes no "a"
NOUNS = {
    word: value for value in VALUES["shape"] for words in WORDS[value] for word in words
}  # fmt: skip
PLURALS = {plural(noun): value for noun, value in NOUNS.items()}
VALUE_OF = {  # what a word of a caption states
    **{word: value for value in KIND for words in WORDS[value] for word in words},
    **PLURALS,
    **{word: value for value, words in GROUNDS.items() for word in words},
    "sky": "sky",
    "gradient": "sky",
}
_LONGEST_FIRST = sorted(VALUE_OF, key=len, reverse=True)
_VALUE = re.compile(rf"\b(?:(an?) )?({'|'.join(map(re.escape, _LONGEST_FIRST))})\b")
_COMPARED = re.compile(r"\b(?:small|larg|bigg|tini|littl)(?:er|est|ger|gest)\b")
_SWAPS = {
    "left of": (("left", "right"), ("leftmost", "rightmost"), ("lefthand", "righthand")),
    "above": (("above", "below"), ("over", "under"), ("top", "bottom"), ("upper", "lower"),
              ("topmost", "bottommost"), ("uppermost", "lowermost")),
}  # fmt: skip
MIRRORED = {
    axis: {word: other for pair in swaps for word, other in (pair, pair[::-1])}
    for axis, swaps in _SWAPS.items()
}
MIRRORED["above"] |= {"beneath": "above", "underneath": "above"}
ONE_WAY = {  # words for a side that no exchange turns, or that name none
    "left of": re.compile(
        r"(?<!the )\bright (?:above|over|below|under|beneath|next|beside|after)\b"
    ),
    "above": re.compile(
        r"\b(?:on top|all over|over (?:on|in|to|there)|up|low|lowest|placed on|base|underside)\b"
        r"|\b(?:stack|down|high|hang|float|rest|crown|topp)"
        r"|\b(?:lower than|placed lower|(?:sit|stand|balanc)\w* on)\b"
    ),
}


def read_line(line: str) -> tuple[str, Facts]:
    """Read "caption | background | objects | relations": see the head of `authored_wordings.txt`.

    Raises:
        ValueError: something in the line is not of this form.
    """
    match [part.strip() for part in line.split("|")]:
        case caption, background, objects, relations:
            things = [_read_thing(text.strip()) for text in objects.split(",")]
            ties = [_read_tie(text.strip(), len(things)) for text in relations.split(",") if text]
            if None not in things + ties and background in ("", *VALUES["background"]):
                return caption, {"background": background or None, "objects": things,
                                 "relations": ties}  # fmt: skip
    raise ValueError(
        f"{line!r} is not caption | background | objects | relations: see the head of {FILE.name}"
    )


def _read_thing(text: str) -> dict[str, str] | None:
    """The attributes of "small red star [upper left]", or of "shape", which says none."""
    found = re.fullmatch(r"([a-z ]+?)(?: \[([a-z ]+)\])?", text)
    words, corner = found.groups() if found else ("none", None)
    named = [word for word in words.split() if word != "shape"]
    thing = {KIND[word]: word for word in named if word in KIND}
    if len(thing) < len(named) or corner not in (None, *VALUES["corner"]):
        return None
    return thing | ({"corner": corner} if corner else {})


def _read_tie(text: str, count: int) -> list[Any] | None:
    """The relation "0 left of 1" of two of the things."""
    found = re.fullmatch(rf"(\d+) ({'|'.join(ENDS)}) (\d+)", text)
    first, second = (int(found[1]), int(found[3])) if found else (0, 0)
    return [first, found[2], second] if first != second and max(first, second) < count else None


def read_file(file: str | os.PathLike[str] = FILE) -> list[tuple[str, Facts]]:
    """Read all captions of a file with what they state; lines that begin with # are remarks."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [read_line(line) for line in lines if line.strip() and not line.startswith("#")]


def mirror(caption: str, facts: Facts, axis: str) -> tuple[str, Facts] | None:
    """Exchange left and right (`axis` "left of") or top and bottom ("above") in all that is said.

    None where the caption names no side of this axis, or in words that cannot be exchanged.
    """
    words = MIRRORED[axis]
    if ONE_WAY[axis].search(caption):
        return None
    turned = re.sub(r"\w+", lambda found: words.get(found[0], found[0]), caption)
    if turned == caption:
        return None
    turned = re.sub(r"\ban? (upper|lower|top|bottom)\b", lambda w: with_article(w[1]), turned)
    objects = [dict(thing) for thing in facts["objects"]]
    for thing in objects:
        if "corner" in thing:
            thing["corner"] = " ".join(words.get(w, w) for w in thing["corner"].split())
    relations = [[j, r, i] if r == axis else [i, r, j] for i, r, j in facts["relations"]]
    return turned, {**facts, "objects": objects, "relations": relations}


def exchange(caption: str, facts: Facts, rng: random.Random) -> tuple[str, Facts]:
    """Put other values in the places of a caption's own; sky and compared sizes stay."""
    others: dict[str, str] = {}
    for name in ATTRIBUTES:
        own = list(dict.fromkeys(thing[name] for thing in facts["objects"] if name in thing))
        if name == "size" and _COMPARED.search(caption):
            others |= {value: value for value in own}
        else:
            others |= dict(zip(own, rng.sample(VALUES[name], len(own)), strict=True))
    ground = facts["background"]
    if ground in GROUNDS:
        others[ground] = rng.choice(list(GROUNDS))
    surfaces = {
        value: rng.choice(GROUNDS[new] if new in GROUNDS else WORDS[new][0])
        for value, new in others.items()
    }

    def word(found: re.Match[str]) -> str:
        article, own = found.groups()
        value = VALUE_OF[own]
        new = surfaces.get(value, own)
        new = plural(new) if own in PLURALS else new
        return with_article(new) if article else new

    objects = [
        {name: others.get(value, value) for name, value in thing.items()}
        for thing in facts["objects"]
    ]
    ties = [list(tie) for tie in facts["relations"]]
    told = {"background": others.get(ground, ground), "objects": objects, "relations": ties}
    return _VALUE.sub(word, caption), told


@cache
def _authored(held_out: bool) -> list[tuple[str, Facts]]:
    """Every tenth caption of the course's file, kept to measure by; or all others. Read once."""
    return [entry for k, entry in enumerate(read_file()) if (k % 10 == 9) == held_out]


def draw(rng: random.Random, held_out: bool = False) -> tuple[str, Facts]:
    """Draw a caption of the file, mirrored with some chance, and exchange its values.

    With `held_out`, one of the sentences that no encoder is trained with.
    """
    caption, facts = rng.choice(_authored(held_out))
    for axis in ENDS:
        if rng.random() < 0.5:
            caption, facts = mirror(caption, facts, axis) or (caption, facts)
    return exchange(caption, facts, rng)
