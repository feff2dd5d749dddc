"""The grammar: what a caption states is true, and its words say what it states."""

from __future__ import annotations

import random

import pytest

from t2i_course.scenes import drawing, oracle, wording


def drawn(count: int, name: str) -> list[tuple[drawing.Scene, wording.Facts, random.Random]]:
    result = []
    for index in range(count):
        rng = random.Random(f"{name} {index}")
        scene = drawing.sample_scene(rng)
        result.append((scene, wording.choose_facts(scene, rng), rng))
    return result


def test_relations_are_spoken_from_both_sides_and_in_several_orders():
    circle, star = {"shape": "circle", "color": "red"}, {"shape": "star", "color": "blue"}
    facts = {"background": None, "objects": [circle, star], "relations": [[0, "left of", 1]]}
    texts = {wording.word_facts(facts, random.Random(k)) for k in range(200)}
    for form in (
        "a red circle to the left of a blue star",
        "a blue star right of a red circle",
        "a red circle on the left and a blue star on the right",
        "on the right there is a blue star, on the left a red circle",
    ):
        assert form in texts
    assert "a blue star to the left of a red circle" not in texts


def test_unseen_words_occur_only_when_asked_for():
    usual, asked = "", ""
    for _, facts, rng in drawn(600, "unseen"):
        usual += wording.word_facts(facts, rng) + " "
        asked += wording.word_facts(facts, rng, unseen_words=True) + " "
    for word in wording.UNSEEN_WORDS:
        assert word not in usual
        assert word in asked


def test_contradiction_can_be_worded_and_is_rarely_true_of_the_same_picture():
    still_true = []
    for scene, facts, rng in drawn(600, "contradict"):
        other = wording.contradict(facts, rng)
        assert wording.word_facts(other, rng)
        assert other != facts and len(other["objects"]) == len(facts["objects"])
        still_true.append(all(oracle.check_facts(other, scene).values()))
    assert sum(still_true) / len(still_true) < 0.05


def test_listed_objects_swap_attributes_but_never_into_the_same_words():
    red_star, blue_heart = {"shape": "star", "color": "red"}, {"shape": "heart", "color": "blue"}
    listed = {"background": None, "objects": [red_star, blue_heart], "relations": []}
    swapped = [{"shape": "star", "color": "blue"}, {"shape": "heart", "color": "red"}]
    found = [wording.contradict(listed, random.Random(k), True)["objects"] for k in range(60)]
    assert swapped in found  # by colour; by shape it is the same in another order
    assert all(sorted(f, key=str) != sorted(listed["objects"], key=str) for f in found)
    asis = [wording.contradict(listed, random.Random(k))["objects"] for k in range(60)]
    assert swapped not in asis  # unless it is asked for
    bare = {"background": None, "objects": [{"shape": "star"}, {"shape": "heart"}], "relations": []}
    for k in range(60):
        changed = wording.contradict(bare, random.Random(k), True)["objects"]
        assert sorted(thing["shape"] for thing in changed) != ["heart", "star"]
    two_stars = {**bare, "objects": [{"shape": "star"}, {"shape": "star"}, {"shape": "heart"}]}
    found = [wording.contradict(two_stars, random.Random(k), True)["objects"] for k in range(60)]
    assert [{"shape": "heart"}, {"shape": "heart"}, {"shape": "star"}] in found


def test_a_third_thing_changes_its_side_alone_where_that_is_asked_for():
    things = [{"shape": "star"}, {"shape": "heart"}, {"shape": "cross"}]
    pair, left = [0, "above", 1], [[2, "left of", 0], [2, "left of", 1]]
    right = [[0, "left of", 2], [1, "left of", 2]]
    facts = {"background": None, "objects": things, "relations": [pair, *left]}

    def turned(third, stated):
        found = [wording.contradict(stated, random.Random(k), third=third) for k in range(80)]
        return [sorted(f["relations"]) for f in found if f["objects"] == things]

    assert sorted([pair, *right]) in turned(True, facts)
    assert sorted([pair, *right]) not in turned(False, facts)
    row = {**facts, "relations": [[0, "above", 1], [1, "above", 2]]}  # here is no third thing aside
    assert turned(True, row) == turned(False, row)


def test_relations_without_a_sentence_are_an_error():
    facts = {"background": None, "objects": [{"shape": "circle"}, {"shape": "star"}],
             "relations": [[0, "left of", 1], [0, "above", 1]]}  # fmt: skip
    with pytest.raises(ValueError, match="no sentence"):
        wording.word_facts(facts, random.Random(0))
