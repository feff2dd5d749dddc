"""Tests of scenes.free_wording: the freer wordings say what the facts say, and nothing else."""

import hashlib
import random
import re
from collections import Counter

import pytest

from t2i_course.scenes.drawing import CROWDED, sample_scene
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.wording import (
    NUMBERS,
    UNSEEN_WORDS,
    VALUES,
    WORDS,
    choose_facts,
    groups_of,
    plural,
)


def scenes_facts(count, seed):
    rng = random.Random(seed)
    return [choose_facts(sample_scene(rng, shares=CROWDED), rng) for _ in range(count)]


def test_captions_name_all_that_is_stated_and_nothing_else():
    words = {
        form: value for value, (usual, _) in WORDS.items() for word in usual
        for form in (word, plural(word))
    }  # fmt: skip
    rng, seen = random.Random(2), Counter()
    for facts in scenes_facts(1500, 3):
        text = word_freely(facts, rng)
        for name in ("color", "size", "shape"):
            stated = {thing[name] for thing in facts["objects"] if name in thing}
            named = {words.get(word) for word in re.findall(r"\w+", text)}
            assert named & set(VALUES[name]) == stated, (text, facts)
            seen.update(stated)
        ground = facts["background"]
        grounds = set(re.findall(r"white|gray|grey|black|sky", text))
        assert {g.replace("grey", "gray") for g in grounds} == ({ground} if ground else set()), text
        groups = {NUMBERS[len(group)] for group in groups_of(facts) if len(group) > 1}
        assert all(number in text for number in groups), (text, facts)
        assert not any(re.search(rf"\b{word}\b", text) for word in UNSEEN_WORDS), text
    assert len(seen) == 16  # every colour, size and shape was stated somewhere


def test_wordings_are_many_and_those_that_training_captions_have():
    facts = next(f for f in scenes_facts(50, 5) if len(groups_of(f)) == 3 and f["relations"])
    many = [word_freely(facts, random.Random(seed)) for seed in range(200)]
    assert len(set(many)) > 150
    rng = random.Random(8)
    texts = "\n".join(word_freely(facts, rng) for facts in scenes_facts(1500, 9))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "d740f229c5cf7627"


def test_relations_that_the_grammar_has_not_are_an_error():
    facts = {"background": None, "objects": [{"shape": "star"}, {"shape": "heart"}],
             "relations": [[0, "left of", 1], [0, "above", 1]]}  # fmt: skip
    with pytest.raises(ValueError, match="no free wording"):
        word_freely(facts, random.Random(0))
