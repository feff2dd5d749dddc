"""The linear probe: it reads what is there, and not what is not."""

from __future__ import annotations

import numpy as np

from t2i_course.scenes import drawing, probe
from t2i_course.scenes.wording import VALUES


def pair(first: dict, second: dict, relation: str) -> dict:
    return {"background": None, "objects": [first, second], "relations": [[0, relation, 1]]}


def test_labels_bind_attributes_to_places():
    facts = pair({"shape": "star", "color": "red"}, {"shape": "heart"}, "left of")
    assert probe.stated_labels(facts).items() >= {
        "2 left of: left color": "red", "2 left of: right color": probe.UNSTATED,
        "2 left of: right shape": "heart", "2: arrangement": "2 left of", "count": "2",
    }.items()  # fmt: skip


def test_labels_do_not_depend_on_the_order_of_the_objects():
    first, second = {"shape": "star"}, {"shape": "heart"}
    one = pair(first, second, "above")
    other = {"background": None, "objects": [second, first], "relations": [[1, "above", 0]]}
    assert probe.stated_labels(one) == probe.stated_labels(other)


def test_three_in_a_row_and_one_aside():
    objects = [{"shape": "star"}, {"shape": "heart"}, {"shape": "cross"}]
    row = {"background": None, "objects": objects}
    row["relations"] = [[2, "left of", 0], [0, "left of", 1]]
    labels = probe.stated_labels(row)
    found = [labels[f"3 left of: {place} shape"] for place in ("left", "middle", "right")]
    assert found == ["cross", "star", "heart"]
    aside = row | {"relations": [[0, "left of", 1], [0, "above", 2], [1, "above", 2]]}
    labels = probe.stated_labels(aside)
    assert labels["3 left of, one aside: aside shape"] == "cross"
    assert labels["3 left of, one aside: side"] == "second"


def test_every_caption_of_the_grammar_has_labels():
    _, facts = drawing.sample_captions(3000, seed=5)
    questions = {question for f in facts for question in probe.stated_labels(f)}
    assert len(questions) == 58
    listed = {question for f in facts for question in probe.stated_labels(f, lists=True)}
    assert len(listed) == 73 and questions < listed


def one_hot(facts: list[dict], keep_places: bool) -> np.ndarray:
    """Features that hold each object's colour with its place, or colours without places."""
    colors = VALUES["color"]
    features = np.zeros((len(facts), 2, len(colors)), dtype=np.float32)
    for row, f in zip(features, facts, strict=True):
        for place, thing in enumerate(f["objects"]):
            row[place, colors.index(thing["color"])] = 1
    return features.reshape(len(facts), -1) if keep_places else features.sum(1)


def test_probe_reads_bound_colours_only_where_they_are_bound():
    rng = np.random.default_rng(0)
    picks = [rng.choice(VALUES["color"], 2, replace=False) for _ in range(900)]
    facts = [pair({"color": str(a)}, {"color": str(b)}, "left of") for a, b in picks]
    results = {}
    for bound in (True, False):
        features = one_hot(facts, bound)
        found = probe.probe_features(features[:600], facts[:600], features[600:], facts[600:])
        results[bound] = found["2 left of: left color"][0]
        assert found["2 left of: left color"][1] == 300
    assert results[True] == 1.0
    assert results[False] < 0.65
