"""Freer wordings of what a caption states, as people type them.

`t2i_course.scenes.wording` words the captions of the embedded data set by a small grammar. People
put attributes after the noun, name the background first, count shapes before they list them, or say
in a second clause which of two things is red. The text encoder learns these wordings
(`t2i_course.scenes.pretraining`), and one training caption in five is worded so.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from t2i_course.scenes.wording import (
    ENDS,
    NUMBERS,
    OPPOSITE,
    ROWS,
    WORDS,
    Facts,
    groups_of,
    plural,
    with_article,
)

BOTH = {2: "both", 3: "all"}
BACKWARDS = {"left of": "from right to left", "above": "from bottom to top"}
PLACES = {  # of the first and of the second thing of a relation: places in the picture, and to it
    "left of": (("on the left", "on the left", "to the left", "left", "at the left",
                 "on the left side"),
                ("on the right", "on the right", "to the right", "right", "at the right",
                 "on the right side")),
    "above": (("at the top", "at the top", "above", "on top", "in the upper half"),
              ("at the bottom", "at the bottom", "below", "in the lower half")),
}  # fmt: skip
LEADING = {"above": "at the top", "below": "at the bottom"}  # "above a star" is a relation
BESIDE = {
    "left of": (("to its left", "to the left of it", "on its left"),
                ("to its right", "to the right of it", "on its right")),
    "above": (("above it", "over it", "on top of it"), ("below it", "under it")),
}  # fmt: skip


def word_freely(facts: Facts, rng: random.Random) -> str:
    """Word what `wording.choose_facts` chose; another state of `rng` gives another wording.

    Raises:
        ValueError: the relations are none that the grammar has.
    """
    return _Wording(facts, rng).caption()


class _Wording:
    """One caption: each method words a part, and draws anew what it has not drawn for the whole."""

    def __init__(self, facts: Facts, rng: random.Random) -> None:
        """Draw what holds for the whole caption."""
        self.facts, self.rng = facts, rng
        self.groups = groups_of(facts)
        self.things = [facts["objects"][group[0]] for group in self.groups]
        self.numbers = [len(group) for group in self.groups]
        self.article = self.one("a", "a", "a", "a", "the", "one", "")
        self.order = self.one("before", "before", "before", "after", "that", "mixed", "mixed")

    def one(self, *texts: str) -> str:
        return self.rng.choice(texts)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def word(self, value: str) -> str:
        """A word that training captions have for a value."""
        return self.rng.choice(WORDS[value][0])

    def caption(self) -> str:
        if len(self.facts["objects"]) == 1:
            text, phrase = self.single()
        elif self.facts["relations"]:
            text, phrase = self.related()
        else:
            text, phrase = self.listed()
        if phrase and self.chance(0.4):
            text, phrase = self.framed(text), False
        return self.grounded(text, phrase)

    # Things

    def noun(self, k: int) -> str:
        return plural(self.shape(k)) if self.numbers[k] > 1 else self.shape(k)

    def shape(self, k: int) -> str:
        return self.word(self.things[k]["shape"]) if "shape" in self.things[k] else "shape"

    def traits(self, k: int, without: str | None = None) -> list[str]:
        """Words for a group's size and colour, as far as they are stated."""
        stated = self.things[k]
        return [self.word(stated[n]) for n in ("size", "color") if n in stated and n != without]

    def counted(self, k: int, phrase: str, article: str) -> str:
        if self.numbers[k] > 1:
            return f"{'the ' * self.chance(0.1)}{NUMBERS[self.numbers[k]]} {phrase}"
        return with_article(phrase) if article == "a" else f"{article} {phrase}".strip()

    def thing(self, k: int, without: str | None = None) -> str:
        """A phrase for a group, its traits before the noun or after it."""
        number, traits, noun = self.numbers[k], self.traits(k, without), self.noun(k)
        article, order = self.article, self.order
        if order == "mixed":
            order = self.one("before", "after", "that", "in")
        if not traits or order == "before":
            return self.counted(k, " ".join([*traits, noun]), article)
        if order == "in" and "color" in self.things[k] and without != "color":
            *size, color = traits
            return self.counted(k, " ".join([*size, noun, "in", color]), article)
        self.rng.shuffle(traits)
        before = [traits.pop()] if len(traits) > 1 and self.chance(0.4) else []
        phrase = self.counted(k, " ".join([*before, noun]), article)
        told = self.one(" and ", " and ", ", ").join(traits)
        told = f"{BOTH[number]} {told}" if number > 1 and self.chance(0.5) else told
        if order == "that":
            be = "is" if number == 1 else "are"
            return f"{phrase} {self.one('that', 'that', 'which')} {be} {told}"
        return f"{phrase}, {told}"

    def clause(self, k: int) -> str:
        """What a thing is like that has been named: "the star is red and small"."""
        traits = self.traits(k)
        self.rng.shuffle(traits)
        be = "is" if self.numbers[k] == 1 else "are"
        return f"the {self.noun(k)} {be} {' and '.join(traits)}"

    def joined(self, phrases: list[str]) -> str:
        *first, last = phrases
        if not first:
            return last
        ends = (" and ", " and ", ", ", ", and ", " plus ", " and also ", ", with ", "; ")
        return self.one(", ", ", ", " and ", "; ").join(first) + self.one(*ends) + last

    def bare(self, order: Iterable[int]) -> list[str]:
        """Groups by their nouns alone: "a star", "the heart"."""
        return [self.counted(k, self.noun(k), self.one("a", "the")) for k in order]

    def shared(self, name: str, text: str, phrase: bool, ends: str = ",") -> tuple[str, bool]:
        """Add the trait that all things share: "two red shapes: ...", "..., both red"."""
        value, total = self.word(self.things[0][name]), sum(self.numbers)
        if phrase and self.chance(0.3):
            return f"{NUMBERS[total]} {value} shapes{self.one(':', ',')} {text}", phrase
        end = self.one(*ends) if len(ends) > 1 else ends
        return f"{text}{end} {BOTH[total]} {value}", phrase

    def called(self, k: int) -> str | None:
        """How a thing is meant again: "the star", "the red one"; None if nothing tells it apart."""
        number, thing = self.numbers[k], self.things[k]
        for name, noun in (("shape", self.noun(k)), ("color", None), ("size", None)):
            if [other.get(name) for other in self.things].count(thing.get(name)) == 1 == number:
                return f"the {noun or self.word(thing[name]) + ' one'}" if name in thing else None
        return None

    def alike(self) -> list[str]:
        """Names of the traits that all things have in common."""
        return [
            name for name in ("size", "color")
            if len({thing.get(name) for thing in self.things}) == 1 and name in self.things[0]
        ]  # fmt: skip

    def kinds(self) -> list[str] | None:
        """Things of one shape, "two small stars", and "one red" of each group; None for others."""
        if len({thing.get("shape") for thing in self.things}) > 1:
            return None
        common = self.alike()
        own = [
            [self.word(thing[n]) for n in ("size", "color") if n in thing and n not in common]
            for thing in self.things
        ]
        if not all(own):
            return None
        traits = [self.word(self.things[0][name]) for name in common]
        whole = " ".join([NUMBERS[sum(self.numbers)], *traits, plural(self.shape(0))])
        counts = [NUMBERS.get(number, "one") for number in self.numbers]
        return [whole, *(" ".join([n, *words]) for n, words in zip(counts, own, strict=True))]

    def apart(self) -> bool:
        """Whether the nouns alone tell all things from each other."""
        nouns = [thing.get("shape") for thing in self.things]
        return None not in nouns and len(set(nouns)) == len(nouns) and set(self.numbers) == {1}

    # Captions of one thing, of several, of several with places: text, and whether it is a phrase

    def single(self) -> tuple[str, bool]:
        if "corner" not in self.things[0]:
            if self.traits(0) and self.chance(0.15):
                return self.clause(0), False
            return self.thing(0), True
        text, (up, side) = self.thing(0), self.things[0]["corner"].split()
        up = self.word(up)
        place = self.one(f"{up} {side}", f"{up} {side}", f"{up}-{side}", f"{side} {up}")
        place = self.one(place, f"{place} corner", f"{place} corner", f"{place} of the picture")
        phrases = (f"{text} in the {place}", f"{text} at the {place}", f"{text}, {place}",
                   f"{text} that is in the {place}")  # fmt: skip
        clauses = (
            f"in the {place} {text}", f"in the {place}, {text}", f"{place}: {text}",
            f"{place}, {text}", f"{text} is in the {place}", f"at the {place} is {text}",
            f"in the {place} there is {text}", f"the {place} has {text}",
            f"{text} sits in the {place}", f"the {place} holds {text}",
        )  # fmt: skip
        return (self.one(*phrases), True) if self.chance(0.4) else (self.one(*clauses), False)

    def listed(self) -> tuple[str, bool]:
        """Several things without places."""
        order = self.rng.sample(range(len(self.things)), len(self.things))
        if len(order) == 1:
            return self.thing(0), True
        common = self.alike()
        if common and self.chance(0.5):
            name = self.rng.choice(common)
            text = self.joined([self.thing(k, without=name) for k in order])
            return self.shared(name, text, True)
        if (kinds := self.kinds()) and self.chance(0.4):
            whole, *each = kinds
            each = [each[k] for k in order]
            return f"{whole}{self.one(':', ',', ':')} {self.joined(each)}", True
        if self.apart() and all(map(self.traits, order)) and self.chance(0.1):
            return self.joined([self.clause(k) for k in order]), False
        if self.apart() and self.chance(0.15):
            names = self.bare(order)
            told = [self.clause(k) for k in self.rng.sample(order, len(order)) if self.traits(k)]
            text = self.joined(names)
            if not told:
                return text, True
            return f"{text}{self.one(';', ',', '.')} {self.joined(told)}", False
        text = self.joined([self.thing(k) for k in order])
        total = NUMBERS[sum(self.numbers)]
        return (f"{total} shapes: {text}" if self.chance(0.12) else text), True

    def related(self) -> tuple[str, bool]:
        """Several things with places; with some chance, what they are like in clauses after it."""
        common, every = self.alike(), range(len(self.things))
        if common and self.chance(0.3):
            name = self.rng.choice(common)
            placed = self.placed([self.thing(k, without=name) for k in every])
            return self.shared(name, *placed, ends=",,;")
        if len(every) == 2 and self.chance(0.25):
            names = [self.called(k) for k in every]
            kinds = self.kinds()
            if None not in names:
                text, _ = self.placed(names)
                enough = kinds and all(len(each.split()) == 2 for each in kinds[1:])
                if enough and self.chance(0.6):
                    whole = kinds[0]
                else:
                    whole = self.joined([self.thing(k) for k in every])
                return f"{whole}{self.one(',', ';', ':', ', with')} {text}", True
        if not (self.apart() and self.chance(0.12)):
            return self.placed([self.thing(k) for k in every])
        names = self.bare(every)
        told = [self.clause(k) for k in every if self.traits(k)]
        text, phrase = self.placed(names)
        if not told:
            return text, phrase
        return f"{text}{self.one(';', ',', ' and', '.')} {self.joined(told)}", False

    def placed(self, names: list[str]) -> tuple[str, bool]:
        """The relations between groups of these names."""
        between = [
            ((a, b), relation)
            for relation in ENDS
            for a in range(len(names)) for b in range(len(names))
            if a != b and all(
                [i, relation, j] in self.facts["relations"]
                for i in self.groups[a] for j in self.groups[b]
            )
        ]  # fmt: skip
        pairs, told = dict(between), [relation for _, relation in between]
        if len(between) == len(pairs) == 1:
            (((a, b), relation),) = between
            return self.pair(names[a], relation, names[b])
        if len(between) == len(pairs) == 2 and told[0] == told[1] and len(names) == 3:
            befores, afters = ({ab[end] for ab in pairs} for end in (0, 1))
            (a,), (c,), (b,) = befores - afters, afters - befores, befores & afters
            return self.row(names[a], names[b], names[c], told[0])
        if len(between) == len(pairs) == 3 and len(set(told)) == 2:
            ((a, b), relation) = next(tie for tie in between if told.count(tie[1]) == 1)
            (c,) = {0, 1, 2} - {a, b}
            first = (c, a) in pairs
            aside = pairs[c, a] if first else pairs[a, c]
            return self.third(names, a, b, c, relation, aside, first)
        raise ValueError(f"no free wording for the relations {self.facts['relations']}")

    def pair(self, p: str, relation: str, q: str) -> tuple[str, bool]:
        (here, there), (near, far) = (
            [self.one(*some) for some in of[relation]] for of in (PLACES, BESIDE)
        )
        after, before = self.word(relation), self.word(OPPOSITE[relation])
        (a, x), (b, y) = self.rng.sample([(here, p), (there, q)], 2)
        front, back = LEADING.get(a, a), LEADING.get(b, b)
        phrases = (
            f"{p} {after} {q}", f"{q} {before} {p}", f"{p} that is {after} {q}",
            f"{p} and {far} {q}", f"{p} and, {far}, {q}", f"{q} and {near} {p}",
            f"{p}, with {q} {far}", f"{q}, with {p} {near}", f"{p} with {q} {far}",
            f"{x} {a} and {y} {b}", f"{x} {a}, {y} {b}", f"{x} ({a}) and {y} ({b})",
        )  # fmt: skip
        clauses = (
            f"{p} is {after} {q}", f"{q} is {before} {p}", f"{after} {q} is {p}",
            f"{p} {self.one('sits', 'stands', 'lies')} {after} {q}",
            f"{q} {self.one('sits', 'stands', 'lies')} {before} {p}",
            f"{before} {p} there is {q}", f"{q} has {p} {near}", f"{front} {x}, {back} {y}",
            f"{front} {x} and {back} {y}", f"{a}: {x}, {b}: {y}", f"{front} {x}; {back} {y}",
            f"{a} there is {x}, {b} there is {y}", f"{a} is {x} and {b} is {y}",
            f"{x} is {a} and {y} is {b}",
        )  # fmt: skip
        return (self.one(*phrases), True) if self.chance(0.5) else (self.one(*clauses), False)

    def row(self, p: str, q: str, r: str, relation: str) -> tuple[str, bool]:
        here, there = (self.one(*some) for some in PLACES[relation])
        row, back = ROWS[relation], BACKWARDS[relation]
        word, other = self.word(relation), self.word(OPPOSITE[relation])
        phrases = (
            f"{p}, {q} and {r} {row}", f"{p} {here}, {q} in the middle and {r} {there}",
            f"{q} in the middle, {p} {here}, {r} {there}", f"{p} {word} {q}, and {q} {word} {r}",
            f"{p} {word} {q} {word} {r}", f"{r} {other} {q} {other} {p}", f"{p}, {q}, {r}, {row}",
        )  # fmt: skip
        clauses = (
            f"{row} {p}, {q} and {r}", f"{row}: {p}, {q}, {r}", f"{row} there is {p}, {q} and {r}",
            f"{row} {p}, then {q}, then {r}",
            f"{LEADING.get(here, here)} {p}, in the middle {q}, {LEADING.get(there, there)} {r}",
            f"{here}: {p}, middle: {q}, {there}: {r}", f"{back} {r}, {q} and {p}",
            f"{back}: {r}, {q}, {p}", f"{p} is {word} {q}, which is {word} {r}",
            f"{p} is {here}, {r} is {there} and {q} is in the middle",
        )  # fmt: skip
        return (self.one(*phrases), True) if self.chance(0.4) else (self.one(*clauses), False)

    def third(
        self, names: list[str], a: int, b: int, c: int, relation: str, aside: str, first: bool
    ) -> tuple[str, bool]:
        """Of a pair, the first in a relation to the second, and a third beside both."""
        side = aside if first else OPPOSITE[aside]
        word, other = self.word(side), self.word(OPPOSITE[side])
        edge = self.one(*PLACES[aside][0 if first else 1])
        edge = LEADING.get(edge, edge)
        (p, q, r), both = (names[k] for k in (a, b, c)), self.one("both", "both", "them")
        text, phrase = self.pair(p, relation, q)
        again = (self.counted(k, self.noun(k), "the") for k in (a, b))
        forms = [
            f"{text}, and {r} {word} {both}", f"{text}; {r} is {word} {both}",
            f"{text}, {r} {word} {both}", f"{text} and {word} {both} {r}",
            f"{text}, and {word} {both} is {r}", f"{text}, {edge} {r}",
            f"{text}. {r} is {word} both of them", f"{text}, both {other} {r}",
        ]  # fmt: skip
        clauses = [f"{edge} {r}, {text}", f"{word} both there is {r}, {text}"]
        if self.apart():
            mean, _ = self.pair(next(again), relation, next(again))
            clauses.append(f"{r} {word} {self.one(f'{p} and {q}', f'{q} and {p}')}; {mean}")
        chosen = self.rng.choice([*forms, *clauses])
        return chosen, phrase and chosen in forms

    # Around it

    def framed(self, text: str) -> str:
        return self.one(
            f"there is {text}", f"there are {text}", f"i see {text}", f"draw {text}",
            f"a picture of {text}", f"a picture with {text}", f"show me {text}", f"this is {text}",
            f"here is {text}", f"we see {text}", f"an image of {text}", f"please draw {text}",
            f"{text} in the picture", f"i want {text}", f"make {text}", f"you can see {text}",
        )  # fmt: skip

    def grounded(self, text: str, phrase: bool) -> str:
        """A text with the background, where one is stated."""
        value = self.facts["background"]
        if value is None:
            return text
        name = {"sky": ("sky", "gradient sky"), "gray": ("gray", "grey")}.get(value, (value,))
        name = self.one(*name)
        ground = self.one(f"a {name} background", f"the {name} background", self.word(value))
        anywhere = [
            f"{text} {self.one('on', 'on', 'against')} {ground}", f"{text}, on {ground}",
            f"on {ground}{self.one(',', ':', '')} {text}", f"{text}, {name} background",
            f"{name} background{self.one(',', ':', ';')} {text}", f"background {name}, {text}",
            f"{text}, {self.one('the', 'its')} background is {name}", f"{text}; background {name}",
            f"{text} on a background that is {name}", f"{text} and the background is {name}",
            f"{text}, with {name} as {self.one('background', 'the background')}",
            f"the background is {name}{self.one(',', ';', ' and')} {text}",
        ]  # fmt: skip
        phrases = [
            f"a {name} background with {text}", f"a {name} picture {self.one('of', 'with')} {text}",
            f"{text} {self.one('with', 'and')} a {name} background",
            f"on {ground} {self.one('there is', 'is', 'we see', 'i see')} {text}",
            f"{name} background with {text}",
        ]  # fmt: skip
        return self.rng.choice(anywhere + phrases * 2 if phrase else anywhere)
