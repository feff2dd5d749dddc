import random

import pytest

from t2i_course.scenes import drawing
from t2i_course.scenes.caption_reader import read_caption
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.prompt_reader import read_prompt, reword
from t2i_course.scenes.wording import UNSEEN_WORDS, describe, word_facts

ROW = "from left to right a red star, a blue heart and a pink square"
COLUMN = "from top to bottom a small red star, a small blue heart and a small pink square"


@pytest.mark.parametrize("prompt", [
    "a red circle next to a blue square", "red circle beside blue square.",
    "Please draw a red circle alongside a blue square!", "a red circle by the blue square",
    "a red circle and a blue square side by side", "a red disk that is adjacent to a blue box",
    "a red circle, a blue square next to each other",
    "a red circle on the left side of a blue square",
])  # fmt: skip
def test_what_stands_beside_another_thing_stands_left_of_it(prompt):
    assert reword(prompt) == "a red circle to the left of a blue square"


@pytest.mark.parametrize("prompt", [
    "a red star above a blue heart above a pink square",
    "a red star above a blue heart and a pink square below the heart",
    "a pink square under a blue heart under a red star",
    "a red star is over a blue heart, which is over a pink square",
    "a red star, a blue heart and a pink square in a column",
    "a blue heart below a red star and above a pink square", "a column of " + COLUMN[19:],
    COLUMN.replace("small ", ""),
])  # fmt: skip
def test_three_above_each_other_are_a_column_of_small_things(prompt):
    assert reword(prompt) == COLUMN


@pytest.mark.parametrize("prompt", [
    "a red star left of a blue heart left of a pink square",
    "a red star next to a blue heart next to a pink square",
    "a blue heart between a red star and a pink square",
    "there is a red star, a blue heart and a pink square in a row",
    "a pink square to the right of a blue heart and the blue heart to the right of a red star",
])  # fmt: skip
def test_three_beside_each_other_are_a_row(prompt):
    assert reword(prompt) == ROW


def test_things_alike_stand_in_rows_too():
    assert reword("two red stars side by side") == "a red star to the left of a red star"
    row = "from left to right a red star, a red star and a red star on a black background"
    assert reword("three red stars in a row on black") == row


@pytest.mark.parametrize(("prompt", "expected"), [
    ("a red star and a blue heart above a pink square",
     "a red star to the left of a blue heart, and a pink square below both"),
    ("a red star above a blue heart and a pink square",
     "a blue heart to the left of a pink square, and a red star above both"),
    ("a red star next to a blue heart above a pink square",
     "a red star to the left of a blue heart, and a pink square below both"),
])  # fmt: skip
def test_other_relations_of_three_have_the_sentence_that_says_least_more(prompt, expected):
    assert reword(prompt) == expected


def test_things_in_places_get_the_colours_that_captions_name_and_scenes_show():
    for shape in drawing.SHAPES:
        facts = read_caption(reword(f"a {shape} above a star above a square"))
        shown = {(thing["shape"], thing["color"]) for thing in facts["objects"]}
        assert not shown & drawing.UNSEEN_PAIRS and len({color for _, color in shown}) == 3
    assert reword("a star above a heart") is None, "of two, colours may be left out"


@pytest.mark.parametrize(("prompt", "expected"), [
    ("a gigantic red ball", "a large red circle"),
    ("a miniature heart in the bottom left corner", "a small heart in the lower left corner"),
    ("2 blue boxes on black", "two blue squares on a black background"),
    ("a red star, no circle", "a red star"), ("two stars without any red circles", "two stars"),
    ("a red star and a heart, but not a circle", "a red star and a heart"),
    ("four red circles", "three red circles"), ("a dozen stars", "three stars"),
])  # fmt: skip
def test_other_words_numbers_and_what_is_not_there(prompt, expected):
    assert reword(prompt) == expected


@pytest.mark.parametrize("prompt", [
    "a dog next to a cat", "a red blue star next to a heart", "two star next to a heart",
    "a star next to", "next to a star", "stars next to a heart", "no circle", "a star, not red",
    "four stars and a heart", "two stars and two hearts", "a star, a heart, a cross and a circle",
    "a star next to a heart next to a cross next to a circle", "a star above a heart above it",
    "a star between two hearts", "a heart next to a star above the heart and below the heart", "",
])  # fmt: skip
def test_what_is_not_understood_or_has_no_sentence_stays_as_it_is(prompt):
    assert reword(prompt) is None


@pytest.mark.parametrize("unseen_words", [False, True])
def test_captions_of_scenes_stay_as_they_are_except_what_is_filled_in(unseen_words):
    rng, scenes = random.Random(4), []
    for _ in range(600):
        scene = drawing.sample_scene(rng)
        caption, facts = describe(scene, rng, unseen_words)
        if (other := reword(caption)) is not None:
            scenes.append(scene)
            assert len(facts["objects"]) == 3 and facts["relations"], caption
            lacking = [thing for thing in facts["objects"] if not {"color", "size"} <= set(thing)]
            assert lacking, caption
            assert not any(word in other for word in UNSEEN_WORDS)
    assert 0 < len(scenes) < 60


def test_a_free_wording_that_is_read_states_what_it_worded():
    rng, read = random.Random(6), 0
    for _ in range(2000):
        scene = drawing.sample_scene(rng)
        facts = drawing.choose_facts(scene, rng)
        caption = word_freely(facts, rng)
        found = read_prompt(caption)
        if found is not None:
            read += 1
            assert all(check_facts(found, scene).values()), caption
            assert word_facts(found, rng)
    assert read > 150
