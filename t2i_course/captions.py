"""The grammar of the embedded captions: from the facts of a scene to English, with the facts kept.

Synonyms and several word orders, as people use them; a caption may leave an attribute out, and it
never says what is false. Each caption comes with what it states, so that a picture can be checked
against it (`t2i_course.scenes.check_facts`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

WORDS = {  # for each attribute value: its wordings in train, and those that only val uses
    "small": (("small", "little"), ("tiny",)),
    "large": (("large", "big"), ("huge",)),
    "red": (("red",), ()),
    "orange": (("orange",), ()),
    "yellow": (("yellow",), ()),
    "green": (("green",), ()),
    "cyan": (("cyan",), ("turquoise",)),
    "blue": (("blue",), ()),
    "purple": (("purple",), ("violet",)),
    "pink": (("pink",), ()),
    "circle": (("circle", "disc"), ()),
    "square": (("square",), ()),
    "triangle": (("triangle",), ()),
    "star": (("star",), ()),
    "heart": (("heart",), ()),
    "cross": (("cross",), ("plus sign",)),
    "left of": (("to the left of", "left of", "on the left of"), ()),
    "right of": (("to the right of", "right of", "on the right of"), ()),
    "above": (("above", "over"), ()),
    "below": (("below", "under"), ("beneath",)),
    "upper": (("upper", "top"), ()),
    "lower": (("lower", "bottom"), ()),
    "white": (("a white background", "white"), ()),
    "gray": (("a gray background", "gray", "a grey background"), ()),
    "black": (("a black background", "black"), ()),
    "sky": (("a sky background", "a gradient sky"), ()),
}
UNSEEN_WORDS = tuple(word for _, held_out in WORDS.values() for word in held_out)
NUMBERS = {2: "two", 3: "three"}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CLEAR_GAP = 8  # pixels between two centres from which a caption speaks of the relation
CLEAR_CORNER = 22  # pixels: how near to two edges a centre is when a caption speaks of the corner
ENDS = {"left of": ("on the left", "on the right"), "above": ("at the top", "at the bottom")}
ROWS = {"left of": "from left to right", "above": "from top to bottom"}
CHANCE_LEFT_OUT = {"size": 0.30, "color": 0.10, "shape": 0.05, "background": 0.40, "relation": 0.12}

Facts = dict[str, Any]
Word = Callable[[str], str]
Between = Callable[[int, str, int], list[list[Any]]]


def _speller(rng: random.Random, unseen_words: bool) -> Word:
    """A function that words a value; with `unseen_words` it prefers the words train never uses."""

    def word(value: str) -> str:
        usual, held_out = WORDS[value]
        return rng.choice(held_out if unseen_words and held_out else usual)

    return word


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def noun_phrase(stated: dict[str, str], number: int, word: Word) -> str:
    """Words for `number` objects alike: "a small red star", "two blue shapes"."""
    noun = word(stated["shape"]) if "shape" in stated else "shape"
    parts = [word(stated[name]) for name in ("size", "color") if name in stated] + [noun]
    if number == 1:
        return _article(" ".join(parts))
    return " ".join([NUMBERS[number], *parts[:-1], noun + ("es" if noun.endswith("s") else "s")])


def corner_phrase(corner: str, word: Word, rng: random.Random) -> str:
    """Words for a corner: "in the top left corner"."""
    vertical, horizontal = corner.split()
    ending = rng.choice((" corner", " corner", ""))
    return f"{'in' if ending else 'at'} the {word(vertical)} {horizontal}{ending}"


def relation_phrase(first: str, relation: str, second: str, word: Word, rng: random.Random) -> str:
    """Word "`first` `relation` `second`" in one of four orders, all true of the same picture."""
    form = rng.randrange(4)
    if form == 0:
        return f"{first} {word(relation)} {second}"
    if form == 1:
        return f"{second} {word(OPPOSITE[relation])} {first}"
    if relation not in ENDS:  # name the left or the upper one first
        first, relation, second = second, OPPOSITE[relation], first
    here, there = ENDS[relation]
    if form == 2:
        return f"{first} {here} and {second} {there}"
    swap = rng.random() < 0.5
    (one, place), (other, far) = (
        ((second, there), (first, here)) if swap else ((first, here), (second, there))
    )
    return (
        f"{place} there is {one}, {far} {other}"
        if one[:2] in ("a ", "an")
        else f"{place} {one}, {far} {other}"
    )


def stated_relations(objects: tuple[Any, ...]) -> list[list[Any]]:
    """All relations between centres that are clear enough to be spoken of: [i, relation, j]."""
    found = []
    for i, a in enumerate(objects):
        for j, b in enumerate(objects):
            if b.x - a.x >= CLEAR_GAP:
                found.append([i, "left of", j])
            if b.y - a.y >= CLEAR_GAP:
                found.append([i, "above", j])
    return found


def _stated(thing: Any, left_out: set[str], rng: random.Random) -> dict[str, str]:
    """The attributes of an object that a caption states."""
    names = [name for name in ("shape", "color", "size") if name not in left_out]
    if rng.random() < CHANCE_LEFT_OUT["color"]:
        names.remove("color")
    elif rng.random() < CHANCE_LEFT_OUT["shape"]:
        names.remove("shape")
    return {name: getattr(thing, name) for name in names}


def _groups(objects: tuple[Any, ...]) -> list[list[int]]:
    """Indices of the objects, those alike together."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, thing in enumerate(objects):
        groups.setdefault((thing.shape, thing.color, thing.size), []).append(index)
    return list(groups.values())


Sentence = tuple[str, list[list[Any]]]  # text, and the relations it states


def _pair_sentences(
    phrases: list[str], between: Between, word: Word, rng: random.Random
) -> list[Sentence]:
    """Every true way to relate two groups, each relation said from either side."""
    sentences = []
    for relation in ENDS:
        for a, b in ((0, 1), (1, 0)):
            if facts := between(a, relation, b):
                ways = (
                    (phrases[a], relation, phrases[b]),
                    (phrases[b], OPPOSITE[relation], phrases[a]),
                )
                sentences.append((relation_phrase(*rng.choice(ways), word, rng), facts))
    return sentences


def _triple_sentences(
    phrases: list[str], between: Between, word: Word, rng: random.Random
) -> list[Sentence]:
    """Every true way to relate three groups: in a row, in a column, or a pair and one aside."""
    sentences = []
    for a, b, c in itertools.permutations(range(3)):
        p, q, r = phrases[a], phrases[b], phrases[c]
        for relation, row in ROWS.items():
            here, there = ENDS[relation]
            first, second = between(a, relation, b), between(b, relation, c)
            if first and second:
                texts = (
                    f"{row} {p}, {q} and {r}",
                    f"{p}, {q} and {r} {row}",
                    f"{p} {here}, {q} in the middle and {r} {there}",
                )
                sentences.append((rng.choice(texts), first + second))
        for relation, aside in (("left of", "above"), ("above", "left of")):
            facts = between(a, relation, b)
            before = [between(c, aside, a), between(c, aside, b)]
            after = [between(a, aside, c), between(b, aside, c)]
            for side, places in ((aside, before), (OPPOSITE[aside], after)):
                if facts and all(places):
                    text = f"{p} {word(relation)} {q}, and {r} {word(side)} both"
                    sentences.append((text, facts + places[0] + places[1]))
    return sentences


def _arrange(
    phrases: list[str],
    groups: list[list[int]],
    relations: list[list[Any]],
    word: Word,
    rng: random.Random,
) -> Sentence:
    """Put the phrases of two or three groups into one sentence; now and then only list them."""

    def between(a: int, relation: str, b: int) -> list[list[Any]]:
        wanted = [[i, relation, j] for i in groups[a] for j in groups[b]]
        return wanted if all(r in relations for r in wanted) else []

    related = _pair_sentences if len(groups) == 2 else _triple_sentences
    sentences = related(phrases, between, word, rng)
    if sentences and rng.random() >= CHANCE_LEFT_OUT["relation"]:
        return rng.choice(sentences)
    listed = rng.sample(phrases, len(phrases))
    return ", ".join(listed[:-1]) + " and " + listed[-1], []


def describe(scene: Any, rng: random.Random, unseen_words: bool = False) -> tuple[str, Facts]:
    """Write one caption of a scene.

    Args:
        scene: a `t2i_course.scenes.Scene`.
        rng: the source of chance.
        unseen_words: use the words of `UNSEEN_WORDS` wherever they fit.

    Returns:
        The caption and what it states: `background` (or None), `objects` (the stated attributes of
        each), `relations` ([index, relation, index]). Every stated fact is true of the scene.
    """
    word = _speller(rng, unseen_words)
    groups = _groups(scene.objects)
    left_out = {"size"} if rng.random() < CHANCE_LEFT_OUT["size"] else set()
    objects: list[dict[str, str]] = [{} for _ in scene.objects]
    phrases = []
    for group in groups:
        stated = _stated(scene.objects[group[0]], left_out, rng)
        for index in group:
            objects[index] = dict(stated)
        phrases.append(noun_phrase(stated, len(group), word))
    relations: list[list[Any]] = []
    if len(groups) == 1:
        text = phrases[0]
        corner = scene.objects[0].corner_within(CLEAR_CORNER) if len(scene.objects) == 1 else None
        if corner and rng.random() < 0.6:
            objects[0]["corner"] = corner
            place = corner_phrase(corner, word, rng)
            text = rng.choice((f"{text} {place}", f"{place} there is {text}"))
    else:
        text, relations = _arrange(phrases, groups, stated_relations(scene.objects), word, rng)
    background = None
    if rng.random() >= CHANCE_LEFT_OUT["background"]:
        background = scene.background
        ground = word(background)
        if rng.random() < 0.25:
            text = f"on {ground}, {text}"
        else:
            text = f"{text} {rng.choice(('on', 'on', 'against'))} {ground}"
    if text.startswith(("a ", "an ", "two ", "three ")) and rng.random() < 0.15:
        text = f"a picture of {text}"
    return text, {"background": background, "objects": objects, "relations": relations}
