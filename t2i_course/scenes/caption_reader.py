"""The reader of captions: a sentence of the grammar back to the facts that it states.

The oracle reads pictures, this reads sentences; together they say whether a caption that a network
wrote is true of a picture, word order and wording aside. What the grammar of
`t2i_course.scenes.wording` cannot say is not read: None, and never a guess.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from t2i_course.scenes.drawing import Scene
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.wording import ENDS, NUMBERS, OPPOSITE, ROWS, VALUES, WORDS, Facts, plural

Relations = tuple[tuple[int, str, int], ...]  # of groups; "1" and "2" stand for the words' values


def _meanings(values: Sequence[str]) -> dict[str, str]:
    """Every wording of some values, with the value."""
    return {word: value for value in values for usual in WORDS[value] for word in usual}


SIZES, COLORS, NOUNS = (_meanings(VALUES[name]) for name in ("size", "color", "shape"))
NOUNS |= {plural(word): value for word, value in NOUNS.items()} | {"shape": "", "shapes": ""}
GROUNDS, BESIDE = _meanings(VALUES["background"]), _meanings(tuple(OPPOSITE))
UPPER = _meanings(("upper", "lower"))
COUNTS = {"a": 1, "an": 1} | {word: number for number, word in NUMBERS.items()}


def any_of(words: Iterable[str], name: str = "") -> str:
    """A pattern for one of some words, the longest first."""
    found = "|".join(sorted(words, key=len, reverse=True))
    return f"(?P<{name}>{found})" if name else f"(?:{found})"


THING = re.compile(
    f"{any_of(COUNTS, 'count')} (?:{any_of(SIZES, 'size')} )?(?:{any_of(COLORS, 'color')} )?"
    f"{any_of(NOUNS, 'shape')}"
)
GROUND = re.compile(
    f"(?:a picture of )?(?:on {any_of(GROUNDS, 'before')}, )?(?P<body>.+?)"
    f"(?: (?:on|against) {any_of(GROUNDS, 'after')})?"
)


def _forms() -> Iterator[tuple[re.Pattern, Relations]]:
    """Every sentence of the grammar: a pattern with its things P, Q, R, and what it relates."""
    thing = re.sub(r"\?P<\w+>", "?:", THING.pattern)
    p, q, r = (f"(?P<{name}>{thing})" for name in "PQR")
    one, two = any_of(BESIDE, "one"), any_of(BESIDE, "two")
    corner = f"(?:in|at) the {any_of(UPPER, 'up')} (?P<side>left|right)(?: corner)?"
    texts = [
        (p, ()), (f"{p} {corner}", ()), (f"{corner} there is {p}", ()),
        (f"{p} and {q}", ()), (f"{p}, {q} and {r}", ()), (f"{p} {one} {q}", ((0, "one", 1),)),
        (f"{p} {one} {q}, and {r} {two} both", ((0, "one", 1), (2, "two", 0), (2, "two", 1))),
    ]  # fmt: skip
    for relation, (here, there) in ENDS.items():
        pair, row = ((0, relation, 1),), ROWS[relation]
        texts += [(f"{p} {here} and {q} {there}", pair)]
        texts += [(f"{here} (?:there is )?{p}, {there} {q}", pair)]
        texts += [(f"{there} (?:there is )?{q}, {here} {p}", pair)]
        triple = ((0, relation, 1), (1, relation, 2))
        texts += [(f"{row} {p}, {q} and {r}", triple), (f"{p}, {q} and {r} {row}", triple)]
        texts += [(f"{p} {here}, {q} in the middle and {r} {there}", triple)]
    return ((re.compile(text), relations) for text, relations in texts)


FORMS = tuple(_forms())


def read_caption(caption: str) -> Facts | None:
    """Read what a caption states, as `wording.choose_facts` gives it; None if it is none of these.

    Capitals, and spaces before commas, do not matter.
    """
    text = re.sub(r"\s+([,.;:])", r"\1", " ".join(caption.lower().split()))
    whole = GROUND.fullmatch(text)
    if whole is None or (whole["before"] and whole["after"]):
        return None
    ground = whole["before"] or whole["after"]
    for form, relations in FORMS:
        if found := form.fullmatch(whole["body"]):
            return _facts(found.groupdict(), relations, GROUNDS[ground] if ground else None)
    return None


def count_objects(text: str) -> int:
    """How many objects a text asks for, whether or not it is a sentence of the grammar."""
    found = re.finditer(rf"\b{THING.pattern}\b", text.lower())
    return sum(COUNTS[thing["count"]] for thing in found)


def _facts(found: dict[str, str], relations: Relations, ground: str | None) -> Facts:
    """What a sentence's parts state."""
    things = [_thing(found[name]) for name in "PQR" if found.get(name)]
    ties = [
        tie(a, BESIDE[found[named]] if named in ("one", "two") else named, b)
        for a, named, b in relations
    ]
    facts = facts_of_groups(things, ties, ground)
    if found.get("up"):
        facts["objects"][0]["corner"] = f"{UPPER[found['up']]} {found['side']}"
    return facts


def tie(a: int, relation: str, b: int) -> tuple[int, str, int]:
    """A relation as one of the two that facts have: "right of" is "left of" from the other side."""
    return (a, relation, b) if relation in ENDS else (b, OPPOSITE[relation], a)


def facts_of_groups(
    groups: Iterable[tuple[int, dict[str, str]]],
    ties: Iterable[tuple[int, str, int]],
    ground: str | None,
) -> Facts:
    """Facts of groups of so many objects alike, of relations between groups, and a background."""
    objects: list[dict[str, str]] = []
    places = []
    for count, thing in groups:
        places.append(range(len(objects), len(objects) + count))
        objects += [dict(thing) for _ in range(count)]
    relations = [
        [i, relation, j]
        for a, relation, b in ties
        for i, j in itertools.product(places[a], places[b])
    ]
    return {"background": ground, "objects": objects, "relations": relations}


def _thing(phrase: str) -> tuple[int, dict[str, str]]:
    """Number and stated attributes of "two small red stars"."""
    parts = THING.fullmatch(phrase)
    read = {"shape": NOUNS, "color": COLORS, "size": SIZES}
    values = {name: words[parts[name]] for name, words in read.items() if parts[name]}
    return COUNTS[parts["count"]], {name: value for name, value in values.items() if value}


def is_true(caption: str, scene: Scene) -> bool | None:
    """Say whether every statement of a caption holds in a scene; None if it cannot be read.

    The number of objects is a statement, too: "a red star" is false of two red stars.
    """
    facts = read_caption(caption)
    return None if facts is None else all(check_facts(facts, scene).values())
