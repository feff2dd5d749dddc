"""Mean opinion scores and agreement, on published worked examples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from t2i_course.rating_statistics import (
    agreement,
    mean_opinion_score,
    rating_table,
    simulated_answers,
)
from t2i_course.user_study import Answer, make_study

NAN = np.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), part C: 4 observers, 12 units
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# Student, "The probable error of a mean" (1908): hours of sleep gained by ten patients
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])


# Agreement


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_example(level, published):
    assert round(agreement(OBSERVERS, level, repeats=0).value, 3) == published


def test_alpha_is_one_in_agreement_near_zero_for_dice_negative_in_opposition():
    rng = np.random.default_rng(1)
    same = np.tile(rng.integers(1, 6, 50), (3, 1))
    for level in ("nominal", "ordinal", "interval"):
        assert agreement(same, level, repeats=0).value == pytest.approx(1)
        assert abs(agreement(rng.integers(1, 6, (3, 2000)), level, repeats=0).value) < 0.05
        opposed = np.array([[1, 5] * 20, [5, 1] * 20])
        assert agreement(opposed, level, repeats=0).value < -0.9


def test_interval_holds_alpha_and_narrows_with_more_pictures():
    few = agreement(OBSERVERS)
    assert few.low < few.value < few.high
    many = agreement(np.tile(OBSERVERS, 10))
    assert many.high - many.low < (few.high - few.low) / 2
    rare = np.array([[1, 1, 1, 2], [1, 1, 1, 2]])  # a draw may be without variation
    assert agreement(rare).interval == (1, 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, NAN], [NAN, 2]], "two raters"),
        ([[1, 2, 3]], "two raters"),
        ([[3, 3], [3, 3]], "without variation"),
        ([[NAN, NAN]], "no ratings"),
        ([[np.inf, 1]], "infinite"),
        ([1, 2], "raters, pictures"),
    ],
)
def test_alpha_that_is_not_defined_is_an_error(table, message):
    with pytest.raises(ValueError, match=message):
        agreement(np.array(table))


def test_unknown_level_is_named():
    with pytest.raises(ValueError, match="'ratio'"):
        agreement(OBSERVERS, "ratio")


# Mean opinion score


def test_interval_of_students_example():
    score = mean_opinion_score(SLEEP[:, None])
    assert score.value == pytest.approx(1.58)
    assert (score.low, score.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


def test_interval_over_raters_is_that_of_their_means_when_all_rated_all():
    table = np.random.default_rng(2).integers(1, 6, (6, 15))
    reference = stats.ttest_1samp(table.mean(axis=1), 0).confidence_interval()
    score = mean_opinion_score(table)
    assert (score.low, score.high) == pytest.approx(reference)
    swapped = mean_opinion_score(table.T, over="pictures")
    assert (swapped.low, swapped.high) == pytest.approx(reference)


def test_a_rater_without_ratings_changes_nothing():
    table = np.random.default_rng(3).integers(1, 6, (4, 9)).astype(float)
    table[0, 4:] = NAN  # one who stopped early
    longer = np.vstack([table, np.full(9, NAN)])
    assert mean_opinion_score(longer) == mean_opinion_score(table)


@pytest.mark.parametrize(("over", "least"), [("raters", 0.9), ("both", 0.9)])
def test_interval_covers_the_true_mean_of_raters_who_differ(over, least):
    rng = np.random.default_rng(4)
    covered, independent = [], []
    for seed in range(200):
        lenience, difficulty = rng.normal(0, 0.5, (12, 1)), rng.normal(0, 0.3, (1, 20))
        if over == "raters":
            difficulty = difficulty * 0  # the same pictures each time: they add no error
        table = 3 + lenience + difficulty + rng.normal(0, 0.5, (12, 20))
        score = mean_opinion_score(table, over=over, repeats=300, seed=seed)
        covered.append(score.low <= 3 <= score.high)
        naive = stats.ttest_1samp(table.ravel(), 0).confidence_interval()
        independent.append(naive.low <= 3 <= naive.high)
    assert np.mean(covered) > least
    assert np.mean(independent) < 0.75  # what taking 240 ratings for independent would do


def test_score_over_both_is_the_same_for_the_same_seed():
    table = np.random.default_rng(5).integers(1, 6, (4, 9))
    first, second, other = (mean_opinion_score(table, "both", seed=s) for s in (0, 0, 1))
    assert first == second and first != other and first.low < first.value < first.high


def test_score_says_what_it_lacks():
    with pytest.raises(ValueError, match='over="pictures"'):
        mean_opinion_score([[1, 2, 3]])
    with pytest.raises(ValueError, match='over="raters"'):
        mean_opinion_score([[1], [2]], over="pictures")
    with pytest.raises(ValueError, match="no ratings"):
        mean_opinion_score([[NAN]])
    with pytest.raises(ValueError, match="'items'"):
        mean_opinion_score([[1, 2]], over="items")


# Tables

RATING = Answer(
    "abc", "ada", 3, 1, "baseline", {"quality": 2, "fit": 4}, 1.5, "2026-01-31T12:00:00+00:00"
)


def numbered(*trials, **changes):
    return [replace(RATING, trial=trial, **changes) for trial in trials]


def test_table_of_ratings_has_a_row_for_each_rater_and_gaps_where_nobody_answered():
    given = [
        *numbered(0, item=0, source="b"),
        *numbered(1, item=1, source="a", scores={"quality": 5, "fit": 1}),
        *numbered(1, item=1, source="a", rater="grace", scores={"quality": 3, "fit": 3}),
    ]
    of_a = rating_table(given, "quality", "a")
    np.testing.assert_array_equal(of_a, [[np.nan, 5], [np.nan, 3]])
    of_b = rating_table(given, "quality", "b")
    np.testing.assert_array_equal(of_b, [[2, np.nan], [np.nan, np.nan]])
    every = rating_table(given, "fit")
    np.testing.assert_array_equal(every, [[4, 1], [np.nan, 3]])


def test_tables_refuse_what_does_not_belong_together():
    with pytest.raises(ValueError, match="no answers yet"):
        rating_table([], "fit")
    with pytest.raises(ValueError, match="several studies"):
        rating_table([RATING, replace(RATING, study="other")], "fit")
    with pytest.raises(ValueError, match="'speed'"):
        rating_table([RATING], "speed")
    with pytest.raises(ValueError, match="no ratings of 'gan'; there are some of baseline"):
        rating_table([RATING], "fit", "gan")


# Answers that nobody gave

CAPTIONS = ["a red circle", "two blue stars", "a cross above a heart", "a pink square"]


def pictures(*names, count=4, size=8):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(count, 3, size, size, generator=generator) * 2 - 1 for name in names}


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


def test_simulated_answers_need_a_strength_for_each_source():
    study = make_study(CAPTIONS, pictures("a", "b"))
    with pytest.raises(ValueError, match="strengths of a, b"):
        simulated_answers(study, {"a": 1.0})
