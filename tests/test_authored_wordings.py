"""Tests of t2i_course.authored_wordings: patterns by authors, and what is drawn from them."""

import random
import re
from collections import Counter

import pytest

from t2i_course import authored_wordings
from t2i_course.authored_wordings import (
    draw,
    exchange,
    mirror,
    read_file,
    read_line,
    stated_values,
    values_in,
)
from t2i_course.caption_parts import labels_of
from t2i_course.captions import ENDS, UNSEEN_WORDS, VALUES, groups_of, word_facts


def partition(facts):
    """Which things share which values, whatever the values are."""
    return [
        [[thing.get(name) == other.get(name) for other in facts["objects"]]
         for thing in facts["objects"]] + [name in thing for thing in facts["objects"]]
        for name in ("shape", "color", "size")
    ]  # fmt: skip


def test_every_caption_of_the_file_names_the_values_that_it_states_and_no_other():
    captions = read_file()
    assert len(captions) >= 800
    for caption, facts in captions:
        assert values_in(caption) == stated_values(facts), caption
        assert caption.isascii() and caption == caption.lower()
        assert word_facts(facts, random.Random(0))  # the grammar can say it as well
        labels_of(facts)
    kinds = Counter((len(groups_of(f)), bool(f["relations"])) for _, f in captions)
    assert min(kinds[k, tied] for k, tied in kinds) >= 40


def test_no_caption_of_the_test_files_is_among_them():
    """Benchmarks read `own_words.txt` and `other_words.txt`: the lessons must not hold them."""
    folder = authored_wordings.FILE.parent.parent / "benchmarks"
    lessons = {caption for caption, _ in read_file()}
    for name in ("own_words.txt", "other_words.txt"):
        tests = {caption for caption, _ in read_file(folder / name)}
        assert len(tests) > 60 and not tests & lessons


def skeleton(caption):
    """A caption without its values."""
    return re.sub(r"\ban?\b|\W+", " ", authored_wordings._VALUE.sub("_", caption))


def test_drawn_captions_state_their_facts_and_have_their_pattern():
    rng, seen = random.Random(0), set()
    for _ in range(3000):
        caption, facts = draw(rng)
        assert values_in(caption) == stated_values(facts), caption
        assert word_facts(facts, rng)
        assert not set(re.findall(r"\w+", caption)) & set(UNSEEN_WORDS) - {"beneath"}
        assert not re.search(r"\ba (?=orange|upper)|\ban (?=[^aeiou])", caption), caption
        seen |= stated_values(facts)
    assert seen == {value for name in VALUES if name != "corner" for value in VALUES[name]}


@pytest.mark.parametrize("k", range(20))
def test_exchanged_values_are_equal_where_they_were_and_the_sentence_is_the_same(k):
    rng = random.Random(k)
    caption, facts = rng.choice(read_file())
    told, others = exchange(caption, facts, rng)
    assert partition(others) == partition(facts)
    assert others["relations"] == facts["relations"]
    assert [t.get("corner") for t in others["objects"]] == [
        t.get("corner") for t in facts["objects"]
    ]
    assert skeleton(told) == skeleton(caption)
    assert (others["background"] == "sky") == (facts["background"] == "sky")


def test_a_value_stands_in_all_its_places_with_article_and_plural():
    line = "two small stars and an orange heart; the heart is above the stars | |" + (
        "small star, small star, orange heart | 2 above 0, 2 above 1"
    )
    caption, facts = read_line(line)
    found = set()
    for seed in range(300):
        told, others = exchange(caption, facts, random.Random(seed))
        match = re.fullmatch(
            r"two (\w+) (\w+) and (an?) (\w+) (\w+); the (\w+) is above the (\w+)", told
        )
        _, several, article, color, noun, again, same = match.groups()
        assert several == same and noun == again and several[-1] == "s" and several != noun + "s"
        assert article == ("an" if color == "orange" else "a")
        assert others["objects"][2]["color"] == color
        assert others["objects"][0] == others["objects"][1]
        found |= {several, color}
    assert {"crosses", "discs", "orange", "blue"} <= found


def test_compared_sizes_and_the_sky_stay():
    line = "a small star and a large one in the sky, the larger one red | sky |" + (
        "small star, large red star |"
    )
    caption, facts = read_line(line)
    for seed in range(30):
        told, others = exchange(caption, facts, random.Random(seed))
        assert others["objects"][0]["size"] == "small"
        assert told.startswith(("a small", "a little"))
        assert others["background"] == "sky" and "in the sky" in told


def test_a_mirrored_caption_says_the_mirrored_facts():
    caption, facts = read_line(
        "a red star to the left of a heart | | red star, heart | 0 left of 1"
    )
    told, others = mirror(caption, facts, "left of")
    assert told == "a red star to the right of a heart"
    assert others["relations"] == [[1, "left of", 0]] and others["objects"] == facts["objects"]
    assert mirror(told, others, "left of") == (caption, facts)
    assert mirror(caption, facts, "above") is None
    corner = read_line("an upper right corner with a star | | star [upper right] |")
    told, others = mirror(*corner, "above")
    assert told == "a lower right corner with a star"
    assert others["objects"] == [{"shape": "star", "corner": "lower right"}]
    assert mirror(told, others, "above") == corner
    told, others = mirror(told, others, "left of")
    assert told == "a lower left corner with a star"
    assert others["objects"] == [{"shape": "star", "corner": "lower left"}]


@pytest.mark.parametrize(
    "caption", ["a star on top of a heart", "a heart, right below a star", "a star up over a heart"]
)
def test_what_cannot_be_turned_word_by_word_is_not(caption):
    facts = read_line("x | | star, heart | 0 above 1")[1]
    assert mirror(caption, facts, "left of") is None
    if "right" not in caption:
        assert mirror(caption, facts, "above") is None


def test_every_relation_of_the_file_is_drawn_in_both_directions():
    rng, told = random.Random(1), Counter()
    for _ in range(3000):
        for i, relation, j in draw(rng)[1]["relations"]:
            told[relation, i < j] += 1
    assert all(told[relation, first] > 100 for relation in ENDS for first in (True, False))


def test_lines_that_are_none_are_errors_that_say_why():
    with pytest.raises(ValueError, match="3 parts"):
        read_line("a star | | star")
    with pytest.raises(ValueError, match="'golden' is no value of shape, color, size"):
        read_line("a golden star | | golden star |")
