import itertools
import random

import pytest

from t2i_course.scenes import drawing
from t2i_course.scenes.caption_reader import is_true, read_caption
from t2i_course.scenes.wording import contradict, word_facts


def canonical(facts):
    """The same for all orders in which the objects are numbered."""
    return min(
        (
            str(facts["background"]),
            [sorted(facts["objects"][i].items()) for i in order],
            sorted([order.index(i), r, order.index(j)] for i, r, j in facts["relations"]),
        )
        for order in itertools.permutations(range(len(facts["objects"])))
    )


@pytest.mark.parametrize("unseen_words", [0.0, 0.5])
def test_all_that_the_grammar_words_is_read_back(unseen_words):
    captions, facts = drawing.sample_captions(10_000, seed=7, unseen_words=unseen_words)
    for caption, stated in zip(captions, facts, strict=True):
        assert canonical(read_caption(caption)) == canonical(stated), caption


def test_contradicting_captions_are_read_as_what_they_state():
    rng = random.Random(3)
    _, facts = drawing.sample_captions(2_000, seed=3)
    for changed in (contradict(f, rng, third=True) for f in facts):
        assert canonical(read_caption(word_facts(changed, rng))) == canonical(changed)


@pytest.mark.parametrize("caption", [
    "", "a", "hello", "a red", "a star a heart", "a red blue star", "two star and",
    "four red stars",
    "a red star on a pink background", "a dog on a white background", "a star over", "over a star",
    "on white, a star on black", "a star, a heart and", "a red star is small",
])  # fmt: skip
def test_what_is_no_sentence_of_the_grammar_is_not_guessed(caption):
    assert read_caption(caption) is None


def test_letters_and_spaces_do_not_matter():
    expected = read_caption("a red star, two circles and a heart on white")
    assert expected["objects"][1] == {"shape": "circle"} and len(expected["objects"]) == 4
    assert read_caption(" A red star , two discs and  a heart  on WHITE ") == expected


def test_a_caption_is_true_of_its_scene_and_false_once_it_is_contradicted():
    rng, wrong = random.Random(5), 0
    for _ in range(500):
        scene = drawing.sample_scene(rng)
        facts = drawing.choose_facts(scene, rng)
        assert is_true(word_facts(facts, rng), scene) is True
        changed = contradict(facts, rng)
        wrong += is_true(word_facts(changed, rng), scene) is False
    assert wrong > 450  # objects can be matched otherwise in a few
    assert is_true("a dog", scene) is None
