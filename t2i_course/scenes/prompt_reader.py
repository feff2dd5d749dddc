"""What people type about scenes, said anew as training captions say it.

The grammar relates two things by four words and three by rows; people type "next to", "a star above
a heart above a square", "two hearts, no circle". Such a prompt is read into the facts that it
states, and a sentence of the grammar is found that states them all. What is not understood to its
end is not read: None, and never a guess.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator

from t2i_course.scenes import caption_reader as reader
from t2i_course.scenes.caption_reader import any_of, tie
from t2i_course.scenes.drawing import UNSEEN_PAIRS
from t2i_course.scenes.wording import (
    OPPOSITE,
    ROWS,
    VALUES,
    WORDS,
    Facts,
    groups_of,
    noun_phrase,
    plural,
)

MOST = 3  # objects in a scene
OTHER_WORDS = {  # by a word that captions have, what people type in its place
    "small": "mini|miniature|minuscule|teeny", "large": "giant|gigantic|enormous|massive",
    "circle": "ball|dot|disk", "circles": "balls|dots|disks", "square": "box", "squares": "boxes",
    "under": "underneath", "above": "on top of|atop",
    "left of": "(?:on|at|to) (?:the )?left (?:side )?of",
    "right of": "(?:on|at|to) (?:the )?right (?:side )?of",
    "next to": "beside|adjacent to|alongside|close to|near(?: to)?|(?<!side )by(?: the side of)?",
    "two": "2|a pair of|a couple of", "three": "3|three or more",
}  # fmt: skip
TOO_MANY = r"four|five|six|seven|eight|nine|ten|(?:a )?dozen|many|several|[4-9]|10"
TOGETHER = {  # what is said of a list that stands in a row, or in a column
    "left of": re.compile(
        r"^a row of |,? (?:side by side|(?:all )?in (?:a|one) (?:row|line)|from left to right"
        r"|next to (?:each other|one another))$"
    ),
    "above": re.compile(
        r"^a (?:column|stack) of |,? (?:stacked|(?:all )?in (?:a|one) column|from top to bottom"
        r"|(?:one )?above (?:each other|one another|the other))$"
    ),
}
FRAME = re.compile(
    r"(?:please )?(?:(?:draw|paint|make|show|generate|create)(?: me)? |(?:there|here) (?:is|are) "
    r"|this is |(?:i|we) (?:see|want) )?(?:(?:a|an|the) (?:picture|image|drawing) (?:of|with) )?"
)
PLURALS = {plural(word) for value in VALUES["shape"] for words in WORDS[value] for word in words}
PLURALS.add("shapes")
COUNTS = reader.COUNTS | {"one": 1, "1": 1, "the": 1}

Ties = set[tuple[int, str, int]]  # of groups of objects: "left of" or "above"

_TRAIT, _NOUN = any_of([*reader.SIZES, *reader.COLORS]), any_of(reader.NOUNS)
THING = re.compile(
    rf"\b(?:{any_of(COUNTS, 'count')} )?(?P<traits>(?:{_TRAIT},? )*)(?P<noun>{_NOUN})\b"
)
ABSENT = re.compile(
    rf"(?:,|;)?(?: and| but)?(?: with)? (?:no|not|without)(?: any| an?)?(?: other)?"
    rf" (?:{_TRAIT} )*{_NOUN}\b|,? and nothing else"
)
GROUND = re.compile(
    rf"(?:on {any_of(reader.GROUNDS, 'before')},? )?(?P<body>.*?)"
    rf"(?:,? (?:on|against|with) {any_of(reader.GROUNDS, 'after')})?"
)
BESIDE = reader.BESIDE | {"next to": "left of"}
RELATED = re.compile(
    r"(?P<also>,? and)?(?:,? (?:that|which) (?:is|are)| is| are| sits?| stands?)?"
    rf"(?: directly| just| right)? {any_of(BESIDE, 'word')} "
)


def reword(prompt: str) -> str | None:
    """Say a prompt as training captions say it, with what `fill_in` adds.

    None where the prompt is such a caption, where there is none, or where it was not understood.
    """
    facts = read_prompt(prompt)
    if facts is None or len(facts["objects"]) > MOST:
        return None
    whole = fill_in(facts)
    if whole == facts and reader.read_caption(_plain(prompt)):
        return None
    return _worded(whole)


def read_prompt(prompt: str) -> Facts | None:
    """Read what a prompt states, in sentences of the grammar or in freer ones.

    "Next to" is read as left of; of what is not to be there nothing is stated; a number over three
    of one kind of thing is read as three. None where a part is not understood.
    """
    text = _plain(prompt)
    for word, others in OTHER_WORDS.items():
        text = re.sub(rf"\b(?:{others})\b", word, text)
    text = ABSENT.sub("", text)
    if len(THING.findall(text)) == 1:
        text = re.sub(rf"\b(?:{TOO_MANY})\b", "three", text)
    return reader.read_caption(text) or _read_freely(text)


def fill_in(facts: Facts) -> Facts:
    """State what captions of three things with places hardly ever leave out: every colour.

    In a column they are small as well: three that are large do not fit into a picture.
    """
    groups, whole = groups_of(facts), copy.deepcopy(facts)
    if len(groups) < MOST or not facts["relations"]:
        return facts
    things = [whole["objects"][group[0]] for group in groups]
    firsts, relations, seconds = map(set, zip(*facts["relations"], strict=True))
    column = relations == {"above"} and len(firsts) == len(seconds) == 2  # neither has all
    for thing in things:
        if column:
            thing.setdefault("size", "small")
        taken = {other.get("color") for other in things}
        free = (c for c in VALUES["color"] if (thing.get("shape"), c) not in UNSEEN_PAIRS)
        thing.setdefault("color", next(color for color in free if color not in taken))
    return whole


def _plain(prompt: str) -> str:
    """A prompt in small letters, without what stands around it: "please draw", a full stop."""
    text = re.sub(r"\s+([,;])", r"\1", " ".join(prompt.lower().split())).rstrip(" .!")
    return FRAME.sub("", text, count=1)


# From a text to facts


def _read_freely(text: str) -> Facts | None:
    """Read things with relations between them, in any number of clauses."""
    whole = GROUND.fullmatch(text)
    ground, body, row = whole["before"] or whole["after"], whole["body"], None
    for relation, pattern in TOGETHER.items():
        shorter = pattern.sub("", body, count=1)
        row, body = (relation if shorter != body else row), shorter
    found = list(THING.finditer(body))
    if not found or found[0].start() or found[-1].end() != len(body):
        return None
    groups: list[tuple[int, dict[str, str]]] = []
    which = [_group(match, groups) for match in found]
    between = [body[a.end() : b.start()] for a, b in itertools.pairwise(found)]
    ties = None if None in which else _ties(which, between)
    if row and len(groups) == 1:  # "two stars side by side"
        groups = [(1, groups[0][1])] * groups[0][0]
    if ties is None or (row and (ties or len(groups) < 2)):
        return None
    if row:
        ties = {(i, row, i + 1) for i in range(len(groups) - 1)}
    if ties and {i for a, _, b in ties for i in (a, b)} != set(range(len(groups))):
        return None
    background = reader.GROUNDS[ground] if ground else None
    return reader.facts_of_groups(groups, sorted(ties), background)


def _group(match: re.Match[str], groups: list[tuple[int, dict[str, str]]]) -> int | None:
    """The number of a thing among the groups, "the star" of before or new; None if unclear."""
    number, noun, traits = COUNTS[match["count"] or "a"], match["noun"], match["traits"]
    thing = {}
    for name, words in (("shape", reader.NOUNS), ("size", reader.SIZES), ("color", reader.COLORS)):
        of = re.findall(any_of(words), noun if name == "shape" else traits)
        if len(of) > 1:
            return None  # two colours
        if of and words[of[0]]:
            thing[name] = words[of[0]]
    if (number > 1) != (noun in PLURALS):
        return None
    if match["count"] == "the":
        meant = [i for i, (_, of) in enumerate(groups) if thing.items() <= of.items()]
        if len(meant) == 1:
            return meant[0]
    groups.append((number, thing))
    return len(groups) - 1


def _ties(which: list[int], between: list[str]) -> Ties | None:
    """Relations of the things of a text, given what stands between each and the next."""
    ties: Ties = set()
    subjects, last, name = [which[0]], [which[0]], None
    if between in ([" between ", " and "], [" in between ", " and "]):
        middle, left, right = which
        return {(left, "left of", middle), (middle, "left of", right)}
    related = [RELATED.fullmatch(text) for text in between]
    for number, (thing, text) in enumerate(zip(which[1:], between, strict=True)):
        later = any(related[number + 1 :])
        if found := related[number]:
            source = subjects if found["also"] else last
            name, last = BESIDE[found["word"]], [thing]
        elif text not in (" and ", ", ", ", and ", "; ", " with "):
            return None
        elif (name is None or not later) and (text == " and " or not any(related)):
            last = [*last, thing]  # one more of those before: "a star and a heart above a square"
            subjects = last if name is None else subjects
        else:
            subjects, last, name = [thing], [thing], None
        if name is not None:
            ties |= {tie(a, name, b) for a, b in itertools.product(source, last)}
    return ties


# From facts to a sentence


def _word(value: str) -> str:
    return WORDS[value][0][0]


def _worded(facts: Facts) -> str | None:
    """The plainest sentence of the grammar that states all these facts; None if there is none."""
    groups, objects = groups_of(facts), facts["objects"]
    phrases = [noun_phrase(objects[group[0]], len(group), _word) for group in groups]
    of = {i: number for number, group in enumerate(groups) for i in group}
    ties = {(of[i], relation, of[j]) for i, relation, j in facts["relations"]}
    fitting = [
        (len(ties ^ told), text) for text, told, more in _sentences(phrases) if ties <= told | more
    ]
    if not fitting:
        return None
    text = min(fitting, key=lambda sentence: sentence[0])[1]
    if "corner" in objects[0]:
        up, side = objects[0]["corner"].split()
        text += f" in the {_word(up)} {side} corner"
    return text if facts["background"] is None else f"{text} on {_word(facts['background'])}"


def _sentences(phrases: list[str]) -> Iterator[tuple[str, Ties, Ties]]:
    """Sentences of the grammar about some things: each states relations, from which more follow."""
    *first, last = phrases
    yield f"{', '.join(first)} and {last}" if first else last, set(), set()
    if len(phrases) == 2:
        for relation in OPPOSITE:
            yield f"{phrases[0]} {_word(relation)} {phrases[1]}", {tie(0, relation, 1)}, set()
    if len(phrases) != MOST:
        return
    for relation, row in ROWS.items():
        for a, b, c in itertools.permutations(range(MOST)):
            p, q, r = (phrases[k] for k in (a, b, c))
            told = {(a, relation, b), (b, relation, c)}
            yield f"{row} {p}, {q} and {r}", told, {(a, relation, c)}
    for a, b, c in itertools.permutations(range(MOST)):
        p, q, r = (phrases[k] for k in (a, b, c))
        for relation, aside in (("left of", "above"), ("above", "left of")):
            for side in (aside, OPPOSITE[aside]):
                told = {(a, relation, b), tie(c, side, a), tie(c, side, b)}
                yield f"{p} {_word(relation)} {q}, and {r} {_word(side)} both", told, set()
