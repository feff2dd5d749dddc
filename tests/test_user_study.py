"""What is shown to whom in which order, and the rule that simulated answers follow."""

from collections import Counter

import numpy as np
import pytest
import torch

from t2i_course.answers import rating_table, wins_tables
from t2i_course.rating_statistics import bradley_terry
from t2i_course.user_study import make_study, simulated_answers

CAPTIONS = ["a red circle", "two blue stars", "a cross above a heart", "a pink square"]


def pictures(*names, count=4, size=8):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(count, 3, size, size, generator=generator) * 2 - 1 for name in names}


def test_every_picture_is_rated_once():
    study = make_study(CAPTIONS, pictures("baseline", "real"))
    trials = study.order("ada")
    assert {(t.item, t.sources) for t in trials} == {
        (item, (source,)) for item in range(4) for source in ("baseline", "real")
    }
    assert len(trials) == 8


def test_every_two_sources_meet_on_every_caption():
    study = make_study(CAPTIONS, pictures("a", "b", "c"), kind="pairs")
    met = Counter((t.item, frozenset(t.sources)) for t in study.order("ada"))
    assert len(met) == 4 * 3 and set(met.values()) == {1}


def test_order_is_the_same_for_the_same_seed_and_rater_and_another_for_others():
    study = make_study(CAPTIONS, pictures("a", "b"), kind="pairs", seed=5)
    again = make_study(CAPTIONS, pictures("a", "b"), kind="pairs", seed=5)
    other = make_study(CAPTIONS, pictures("a", "b"), kind="pairs", seed=6)
    assert study.order("ada") == again.order("ada") != study.order("grace")
    assert study.order("ada") != other.order("ada")


def test_numbers_of_trials_do_not_depend_on_order_or_on_how_sources_are_listed():
    study = make_study(CAPTIONS, pictures("a", "b", "c"), kind="pairs")
    reversed_sources = dict(reversed(list(pictures("a", "b", "c").items())))
    again = make_study(CAPTIONS, reversed_sources, kind="pairs", seed=9)
    assert study.id == again.id and study.trials() == again.trials()
    by_number = {t.number: (t.item, frozenset(t.sources)) for t in study.trials()}
    for trial in again.order("grace"):
        assert by_number[trial.number] == (trial.item, frozenset(trial.sources))


def test_sides_are_balanced_and_left_does_not_tell_the_source():
    captions = [f"caption {i}" for i in range(40)]
    study = make_study(captions, pictures("a", "b", count=40), kind="pairs")
    assert Counter(t.sources for t in study.order("ada")) == {("a", "b"): 20, ("b", "a"): 20}


def test_id_changes_with_a_pixel_a_caption_a_source_and_the_kind():
    base = pictures("a", "b")
    brighter = {name: images.clone() for name, images in base.items()}
    brighter["b"][2, 0, 3, 3] = 1.0 if base["b"][2, 0, 3, 3] < 0.9 else 0.0
    ids = {
        make_study(CAPTIONS, base).id,
        make_study(CAPTIONS, brighter).id,
        make_study([*CAPTIONS[:3], "a pink heart"], base).id,
        make_study(CAPTIONS, {"a": base["a"], "c": base["b"]}).id,
        make_study(CAPTIONS, base, kind="pairs").id,
    }
    assert len(ids) == 5


def test_a_study_shown_by_mistake_does_not_name_its_sources():
    study = make_study(CAPTIONS, pictures("secret-model", "real"))
    assert "secret" not in repr(study) and study.id in repr(study)


def test_pictures_are_rounded_to_eight_bits():
    floats = torch.linspace(-1, 1, 3 * 4 * 4).reshape(1, 3, 4, 4)
    study = make_study(["c"], {"floats": floats, "bytes": floats.add(1).mul(127.5).round().byte()})
    np.testing.assert_array_equal(study.pictures["floats"], study.pictures["bytes"])
    assert study.pictures["bytes"].dtype == np.uint8 and study.pictures["bytes"].shape[-1] == 3


@pytest.mark.parametrize(
    ("captions", "shown", "kind", "message"),
    [
        ([], {}, "ratings", "none"),
        (CAPTIONS, {}, "ratings", "none"),
        ([], pictures("a", count=0), "ratings", "none"),
        (CAPTIONS, pictures("a"), "pairs", "two sources"),
        (CAPTIONS, pictures("a"), "stars", "'stars'"),
        (CAPTIONS, pictures("a", count=3), "ratings", "a: 3 pictures for 4 captions"),
        ([*CAPTIONS[:3], " "], pictures("a"), "ratings", "caption is empty"),
        (CAPTIONS, pictures("a") | pictures("b", size=16), "pairs", "different sizes"),
        (CAPTIONS, {"a": torch.full((4, 3, 8, 8), 255.0)}, "ratings", "up to 255"),
        (CAPTIONS, {"a": torch.full((4, 3, 8, 8), torch.nan)}, "ratings", "a: .*not finite"),
        (CAPTIONS, {"a": torch.zeros(4, 8, 8)}, "ratings", "a: need images of shape"),
        (CAPTIONS, {"a": torch.zeros(4, 1, 8, 8)}, "ratings", "a: need images of shape"),
        (CAPTIONS, {"a": torch.zeros(4, 3, 8, 8).long()}, "ratings", "torch.int64"),
    ],
)
def test_what_cannot_be_shown_is_an_error(captions, shown, kind, message):
    with pytest.raises(ValueError, match=message):
        make_study(captions, shown, kind=kind)


def test_simulated_ratings_follow_their_rule_and_say_that_nobody_gave_them():
    captions = [f"caption {i}" for i in range(100)]
    study = make_study(captions, pictures("weak", "strong", count=100))
    answers = simulated_answers(study, {"weak": 2.5, "strong": 3.5}, raters=20)
    assert len(answers) == 20 * 200
    assert all(a.time == "simulated" and a.rater.startswith("simulated-") for a in answers)
    for question in ("quality", "fit"):
        weak, strong = (rating_table(answers, question, source) for source in ("weak", "strong"))
        assert (strong - weak).mean() == pytest.approx(1, abs=0.2)
        assert strong.mean(axis=1).std() == pytest.approx(0.5, abs=0.25)  # raters differ
    assert answers == simulated_answers(study, {"weak": 2.5, "strong": 3.5}, raters=20)
    assert answers != simulated_answers(study, {"weak": 2.5, "strong": 3.5}, raters=20, seed=1)


def test_simulated_choices_follow_their_strengths():
    captions = [f"caption {i}" for i in range(40)]
    study = make_study(captions, pictures("a", "b", "c", count=40), kind="pairs")
    truth = {"a": 1.0, "b": 0.0, "c": -1.0}
    sources, tables = wins_tables(simulated_answers(study, truth, raters=20))
    assert tables.shape == (20, 3, 3) and tables.sum() == 20 * 120
    fit = bradley_terry(tables.sum(axis=0), sources)
    np.testing.assert_allclose(fit.log_strengths, [1, 0, -1], atol=0.2)


def test_simulated_answers_need_a_strength_for_each_source():
    study = make_study(CAPTIONS, pictures("a", "b"))
    with pytest.raises(ValueError, match="strengths of a, b"):
        simulated_answers(study, {"a": 1.0})
