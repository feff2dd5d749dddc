"""The grammar of the embedded captions: from the facts of a scene to English, with the facts kept.

Synonyms and several word orders, as people use them; a caption may leave an attribute out, and it
never says what is false. Each caption comes with what it states, so that a picture can be checked
against it (`t2i_course.scenes.oracle.check_facts`).
"""

from __future__ import annotations

import copy
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
ATTRIBUTES = ("shape", "color", "size")
VALUES = {
    "shape": ("circle", "square", "triangle", "star", "heart", "cross"),
    "color": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    "size": ("small", "large"),
    "corner": ("upper left", "upper right", "lower left", "lower right"),
    "background": ("white", "gray", "black", "sky"),
}
NUMBERS = {2: "two", 3: "three"}
BEYOND = {  # what no scene shows: words that ask for it, and what to say of them
    "a scene has three objects at most": (
        "four five six seven eight nine ten dozen many several lots 4 5 6 7 8 9 10"
    ).split(),
    "captions of scenes say what is there, never what is not": (
        "no not none without never nothing except"
    ).split(),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CLEAR_GAP = 8  # pixels between two centres from which a caption speaks of the relation
CLEAR_CORNER = 22  # pixels: how near to two edges a centre is when a caption speaks of the corner
ENDS = {"left of": ("on the left", "on the right"), "above": ("at the top", "at the bottom")}
ROWS = {"left of": "from left to right", "above": "from top to bottom"}
CHANCE_LEFT_OUT = {
    "size": 0.30, "color": 0.10, "shape": 0.05, "background": 0.40, "relation": 0.12, "corner": 0.4,
}  # fmt: skip

Facts = dict[str, Any]
Word = Callable[[str], str]
Between = Callable[[int, str, int], list[list[Any]]]
Sentence = tuple[str, list[list[Any]]]  # text, and the relations it states


def with_article(phrase: str) -> str:
    """A phrase after "a" or "an"."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def plural(noun: str) -> str:
    """Several of what a shape's noun names: "stars", "crosses"."""
    return noun + ("es" if noun.endswith("s") else "s")


def noun_phrase(stated: dict[str, str], number: int, word: Word) -> str:
    """Words for `number` objects alike: "a small red star", "two blue shapes"."""
    noun = word(stated["shape"]) if "shape" in stated else "shape"
    parts = [word(stated[name]) for name in ("size", "color") if name in stated] + [noun]
    if number == 1:
        return with_article(" ".join(parts))
    return " ".join([NUMBERS[number], *parts[:-1], plural(noun)])


def _relation_phrase(first: str, relation: str, second: str, word: Word, rng: random.Random) -> str:
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
    (one, place), (other, far) = (
        ((second, there), (first, here)) if rng.random() < 0.5 else ((first, here), (second, there))
    )
    return f"{place} {'there is ' if one[:2] in ('a ', 'an') else ''}{one}, {far} {other}"


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
                sentences.append((_relation_phrase(*rng.choice(ways), word, rng), facts))
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


def _sentences(
    groups: list[list[int]],
    relations: list[list[Any]],
    phrases: list[str],
    word: Word,
    rng: random.Random,
) -> list[Sentence]:
    """Every way to say how two or three groups stand to each other, given what is true."""

    def between(a: int, relation: str, b: int) -> list[list[Any]]:
        wanted = [[i, relation, j] for i in groups[a] for j in groups[b]]
        return wanted if all(r in relations for r in wanted) else []

    sentences = _pair_sentences if len(groups) == 2 else _triple_sentences
    return sentences(phrases, between, word, rng)


def choose_facts(scene: Any, rng: random.Random) -> Facts:
    """Choose what a caption of a scene, a `drawing.Scene`, states; everything it states is true.

    Returns:
        `background` (or None), `objects` (a dict of the stated attributes for each object) and
        `relations` ([index, "left of" or "above", index]).
    """
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, thing in enumerate(scene.objects):
        alike.setdefault((thing.shape, thing.color, thing.size), []).append(index)
    groups = list(alike.values())
    told = ATTRIBUTES[: 2 if rng.random() < CHANCE_LEFT_OUT["size"] else 3]  # the size comes last
    objects: list[dict[str, str]] = [{} for _ in scene.objects]
    for group in groups:
        names = list(told)
        if rng.random() < CHANCE_LEFT_OUT["color"]:
            names.remove("color")
        elif rng.random() < CHANCE_LEFT_OUT["shape"]:
            names.remove("shape")
        for index in group:
            objects[index] = {name: getattr(scene.objects[index], name) for name in names}
    relations: list[list[Any]] = []
    if len(scene.objects) == 1:
        corner = scene.objects[0].corner_within(CLEAR_CORNER)
        if corner and rng.random() >= CHANCE_LEFT_OUT["corner"]:
            objects[0]["corner"] = corner
    elif len(groups) > 1 and rng.random() >= CHANCE_LEFT_OUT["relation"]:
        true = stated_relations(scene.objects)
        options = _sentences(groups, true, [""] * len(groups), lambda value: value, rng)
        relations = rng.choice(options)[1] if options else []
    background = scene.background if rng.random() >= CHANCE_LEFT_OUT["background"] else None
    return {"background": background, "objects": objects, "relations": relations}


def groups_of(facts: Facts) -> list[list[int]]:
    """Indices of the objects that one phrase can name: the same words, the same relations."""
    found: dict[str, list[int]] = {}
    for index, stated in enumerate(facts["objects"]):
        ties = [(r, j) for i, r, j in facts["relations"] if i == index]
        ties += [(i, r) for i, r, j in facts["relations"] if j == index]
        found.setdefault(repr((sorted(stated.items()), sorted(map(repr, ties)))), []).append(index)
    return list(found.values())


def word_facts(facts: Facts, rng: random.Random, unseen_words: bool = False) -> str:
    """Word what `choose_facts` chose; another state of `rng` gives another wording.

    Args:
        facts: what the caption states.
        rng: the source of chance.
        unseen_words: use the words of `UNSEEN_WORDS` wherever they fit.

    Raises:
        ValueError: the relations have no sentence in the grammar.
    """

    def word(value: str) -> str:
        usual, held_out = WORDS[value]
        return rng.choice(held_out if unseen_words and held_out else usual)

    groups, objects = groups_of(facts), facts["objects"]
    phrases = [noun_phrase(objects[group[0]], len(group), word) for group in groups]
    if facts["relations"]:
        stated = sorted(facts["relations"])
        options = _sentences(groups, facts["relations"], phrases, word, rng)
        texts = [text for text, told in options if sorted(told) == stated]
        if not texts:
            raise ValueError(f"the grammar has no sentence for the relations {stated}")
        text = rng.choice(texts)
    else:
        listed = rng.sample(phrases, len(phrases))
        text = " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))
    if "corner" in objects[0]:
        vertical, horizontal = objects[0]["corner"].split()
        ending = rng.choice((" corner", " corner", ""))
        place = f"{'in' if ending else 'at'} the {word(vertical)} {horizontal}{ending}"
        text = rng.choice((f"{text} {place}", f"{place} there is {text}"))
    if facts["background"] is not None:
        ground = word(facts["background"])
        if rng.random() < 0.25:
            text = f"on {ground}, {text}"
        else:
            text = f"{text} {rng.choice(('on', 'on', 'against'))} {ground}"
    if text.startswith(("a ", "an ", "two ", "three ")) and rng.random() < 0.15:
        text = f"a picture of {text}"
    return text


def describe(scene: Any, rng: random.Random, unseen_words: bool = False) -> tuple[str, Facts]:
    """One caption of a scene, by `choose_facts` and `word_facts`, and the facts that it states."""
    facts = choose_facts(scene, rng)
    return word_facts(facts, rng, unseen_words), facts


def _tied(name: str, facts: Facts, one: list[int], other: list[int]) -> bool:
    """Whether swapping an attribute of two listed groups changes more than their order."""
    rest = [{k: v for k, v in facts["objects"][g[0]].items() if k != name} for g in (one, other)]
    return rest[0] != rest[1] or len(one) != len(other)


def _other_relations(relations: list[list[Any]], third: bool) -> list[list[list[Any]]]:
    """What contradicts relations: turned, along the other axis, a third thing on its other side."""
    axes = {"left of": "above", "above": "left of"}
    turned = [[j, relation, i] for i, relation, j in relations]
    across = [[i, axes[relation], j] for i, relation, j in relations]
    names = [relation for _, relation, _ in relations]
    if not third or len(names) != 3:
        return 3 * [turned] + 2 * [across]
    beside = max(names, key=names.count)  # stated twice, the pair's own relation once
    side = [[j, r, i] if r == beside else [i, r, j] for i, r, j in relations]
    return 3 * [turned] + 2 * [across] + 24 * [side]


def contradict(
    facts: Facts, rng: random.Random, swap_listed: bool = False, third: bool = False
) -> Facts:
    """Change the facts in one respect: the hard negative of a caption.

    Two objects swap an attribute, a relation turns round or changes its axis, or one stated
    attribute, the corner or the background gets another value.

    Args:
        facts: as `choose_facts` gives them.
        rng: the source of chance.
        swap_listed: let objects without places swap attributes too, "a red star and a blue heart"
            to "a blue star and a red heart".
        third: let a third thing alone change its side, "left of both" to "right of both".

    Returns:
        New facts, which no picture satisfies together with the old ones unless objects can be
        matched otherwise.
    """
    groups, objects = groups_of(facts), facts["objects"]
    changes = [("value", i, name) for i, g in enumerate(groups) for name in objects[g[0]]]
    if facts["background"] is not None:
        changes.append(("background",))
    swaps = [
        ("swap", i, j, name)
        for i, j in itertools.combinations(range(len(groups)), 2)
        for name in ATTRIBUTES
        if objects[groups[i][0]].get(name) != objects[groups[j][0]].get(name)
        and (facts["relations"] or (swap_listed and _tied(name, facts, groups[i], groups[j])))
    ]
    changes += 2 * swaps
    if facts["relations"]:
        changes += [("relations", r) for r in _other_relations(facts["relations"], third)]
    if not changes:
        return facts
    changed = copy.deepcopy(facts)
    kind, *where = rng.choice(changes)
    if kind == "value":
        index, name = where
        old = objects[groups[index][0]][name]
        new = rng.choice([v for v in VALUES[name] if v != old])
        for i in groups[index]:
            changed["objects"][i][name] = new
    elif kind == "background":
        values = [v for v in VALUES["background"] if v != facts["background"]]
        changed["background"] = rng.choice(values)
    elif kind == "swap":
        one, other, name = where
        for source, target in ((one, other), (other, one)):
            value = objects[groups[source][0]].get(name)
            for i in groups[target]:
                changed["objects"][i].pop(name, None)
                if value is not None:
                    changed["objects"][i][name] = value
    else:
        (changed["relations"],) = where
    return changed
