"""Mean opinion scores, win rates, strengths and agreement, on published worked examples."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from t2i_course.rating_statistics import (
    agreement,
    bradley_terry,
    mean_opinion_score,
    rating_table,
    simulated_answers,
    wins_table,
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
# Agresti, "Categorical Data Analysis" (2nd edition, 2002), section 10.6: seven baseball teams of
# 1987, wins of the row over the column, home and away together
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
GAMES = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
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


# Choices between two


def logit(fit, *names):
    return np.array([fit[name].value for name in names])


def test_bradley_terry_of_agrestis_baseball_example():
    strengths = logit(bradley_terry(GAMES, TEAMS), *TEAMS)
    assert np.round(strengths - strengths[-1], 2).tolist() == [
        1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0,
    ]  # fmt: skip
    assert strengths.mean() == pytest.approx(0)


def test_bradley_terry_intervals_are_those_of_logistic_regression():
    fit = bradley_terry(GAMES, TEAMS)
    strengths, information = logit(fit, *TEAMS), np.zeros((6, 6))  # above the last one's
    for i, j in itertools.combinations(range(7), 2):
        row = (np.eye(7)[i] - np.eye(7)[j])[:-1]
        chance = 1 / (1 + np.exp(strengths[j] - strengths[i]))
        information += 13 * chance * (1 - chance) * np.outer(row, row)
    centre = (np.eye(7) - 1 / 7)[:, :-1]
    covariance = centre @ np.linalg.inv(information) @ centre.T  # of strengths with the mean 0
    reach = [(fit[team].high - fit[team].low) / 2 for team in TEAMS]
    np.testing.assert_allclose(reach, 1.959964 * np.sqrt(np.diag(covariance)), rtol=1e-6)


def test_bradley_terry_of_two_is_the_odds_of_winning():
    fit = bradley_terry([[0, 30], [10, 0]], ["a", "b"])
    assert fit["a"].value - fit["b"].value == pytest.approx(np.log(3))
    # Closed form: the logit of a proportion has the variance 1 / (n p (1 - p)); each has half of it
    gap = stats.norm.ppf(0.975) / np.sqrt(40 * 0.75 * 0.25)
    assert fit["a"].high - fit["a"].low == pytest.approx(gap, rel=1e-6)
    assert fit["a"].samples == 40


def test_bradley_terry_intervals_cover_true_strengths():
    rng = np.random.default_rng(6)
    truth = np.array([0.8, 0.2, -0.3, -0.7])
    chance = 1 / (1 + np.exp(-np.subtract.outer(truth, truth)))
    inside = []
    for _ in range(200):
        wins = np.triu(rng.binomial(40, chance), 1)
        wins += np.tril(40 - wins.T, -1)
        fit = bradley_terry(wins).values()
        inside.append([e.low <= t <= e.high for e, t in zip(fit, truth, strict=True)])
    assert 0.9 < np.mean(inside) < 0.99


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        ([[0, 3, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1], [0, 0, 4, 0]], "a, b never lost"),
        ([[0, 1, 1, 1], [0, 0, 2, 1], [0, 1, 0, 1], [0, 1, 2, 0]], "a never lost"),
        ([[0, 0, 0, 0], [1, 0, 2, 1], [1, 1, 0, 1], [1, 1, 2, 0]], "a never won"),
    ],
)
def test_no_finite_strengths_are_an_error_that_names_the_source(wins, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry(wins, "abcd")


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        ([[0, 1, 1], [1, 0, 1]], "S, S"),
        ([[0]], "S, S"),
        ([[1, 1], [1, 0]], "zeros on its diagonal"),
        ([[0, -1], [1, 0]], "counts"),
        ([[0, NAN], [1, 0]], "counts"),
    ],
)
def test_what_is_no_table_of_wins_is_an_error(wins, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry(wins)
    with pytest.raises(ValueError, match="3 names for 2"):
        bradley_terry([[0, 1], [1, 0]], "abc")


# Tables

RATING = Answer(
    "abc", "ada", 3, 1, ("baseline",), {"quality": 2, "fit": 4}, 1.5, "2026-01-31T12:00:00+00:00"
)
CHOICE = replace(RATING, sources=("real", "baseline"), scores={"choice": 0})


def numbered(*trials, **changes):
    return [replace(RATING, trial=trial, **changes) for trial in trials]


def test_table_of_ratings_has_a_row_for_each_rater_and_gaps_where_nobody_answered():
    given = [
        *numbered(0, item=0, sources=("b",)),
        *numbered(1, item=1, sources=("a",), scores={"quality": 5, "fit": 1}),
        *numbered(1, item=1, sources=("a",), rater="grace", scores={"quality": 3, "fit": 3}),
    ]
    of_a = rating_table(given, "quality", "a")
    np.testing.assert_array_equal(of_a, [[np.nan, 5], [np.nan, 3]])
    of_b = rating_table(given, "quality", "b")
    np.testing.assert_array_equal(of_b, [[2, np.nan], [np.nan, np.nan]])
    every = rating_table(given, "fit")
    np.testing.assert_array_equal(every, [[4, 1], [np.nan, 3]])


def test_tables_of_wins_count_the_chosen_picture_on_either_side():
    left = replace(CHOICE, trial=0, scores={"choice": 0})  # real
    right = replace(CHOICE, trial=1, scores={"choice": 1})  # baseline
    swapped = replace(right, trial=2, sources=("baseline", "real"))  # real
    other = replace(right, rater="grace")
    wins, sources = wins_table([left, right, swapped, other])
    assert sources == ("baseline", "real")
    assert wins.tolist() == [[0, 2], [2, 0]]


def test_tables_refuse_what_does_not_belong_together():
    with pytest.raises(ValueError, match="no answers yet"):
        wins_table([])
    with pytest.raises(ValueError, match="several studies"):
        rating_table([RATING, replace(RATING, study="other")], "fit")
    with pytest.raises(ValueError, match="need ratings"):
        rating_table([CHOICE], "fit")
    with pytest.raises(ValueError, match="need choices"):
        wins_table([RATING])
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


def test_simulated_choices_follow_their_strengths():
    captions = [f"caption {i}" for i in range(40)]
    study = make_study(captions, pictures("a", "b", "c", count=40), kind="pairs")
    truth = {"a": 1.0, "b": 0.0, "c": -1.0}
    wins, sources = wins_table(simulated_answers(study, truth, raters=20))
    assert wins.shape == (3, 3) and wins.sum() == 20 * 120
    fit = bradley_terry(wins, sources)
    np.testing.assert_allclose(logit(fit, *"abc"), [1, 0, -1], atol=0.2)


def test_simulated_answers_need_a_strength_for_each_source():
    study = make_study(CAPTIONS, pictures("a", "b"))
    with pytest.raises(ValueError, match="strengths of a, b"):
        simulated_answers(study, {"a": 1.0})
