"""Mean opinion scores, strengths and agreement, on published worked examples."""

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
RATING = Answer("abc", "ada", 3, 1, ("baseline",), {"quality": 2, "fit": 4}, 1.5, "2026-01-31")
CHOICE = replace(RATING, sources=("real", "baseline"), scores={"choice": 0})


# Agreement


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_example(level, published):
    assert round(agreement(OBSERVERS, level, repeats=0).value, 3) == published


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
        ([[3, 3], [3, 3]], "without variation"),
        ([[NAN, NAN]], "no ratings"),
        ([1, 2], "raters, pictures"),
    ],
)
def test_alpha_that_is_not_defined_is_an_error(table, message):
    with pytest.raises(ValueError, match=message):
        agreement(np.array(table))


# Mean opinion score


def test_interval_of_students_example():
    score = mean_opinion_score(SLEEP[:, None])
    assert score.value == pytest.approx(1.58)
    assert (score.low, score.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


def test_interval_over_raters_is_that_of_their_means_when_all_rated_all():
    table = np.random.default_rng(2).integers(1, 6, (6, 15))
    reference = stats.ttest_1samp(table.mean(axis=1), 0).confidence_interval()
    for score in (mean_opinion_score(table), mean_opinion_score(table.T, over="pictures")):
        assert (score.low, score.high) == pytest.approx(reference)


def test_a_rater_without_ratings_changes_nothing():
    table = np.random.default_rng(3).integers(1, 6, (4, 9)).astype(float)
    table[0, 4:] = NAN  # one who stopped early
    longer = np.vstack([table, np.full(9, NAN)])
    assert mean_opinion_score(longer) == mean_opinion_score(table)


@pytest.mark.parametrize("over", ["raters", "both"])
def test_interval_covers_the_true_mean_of_raters_who_differ(over):
    rng = np.random.default_rng(4)
    covered, independent = [], []
    for _ in range(200):
        lenience, difficulty = rng.normal(0, 0.5, (12, 1)), rng.normal(0, 0.3, (1, 20))
        if over == "raters":
            difficulty = difficulty * 0  # the same pictures each time: they add no error
        table = 3 + lenience + difficulty + rng.normal(0, 0.5, (12, 20))
        score = mean_opinion_score(table, over=over, repeats=300)
        covered.append(score.low <= 3 <= score.high)
        naive = stats.ttest_1samp(table.ravel(), 0).confidence_interval()
        independent.append(naive.low <= 3 <= naive.high)
    assert np.mean(covered) > 0.9
    assert np.mean(independent) < 0.75  # what taking 240 ratings for independent would do


def test_score_says_what_it_lacks():
    with pytest.raises(ValueError, match='over="pictures"'):
        mean_opinion_score([[1, 2, 3]])
    with pytest.raises(ValueError, match='over="raters"'):
        mean_opinion_score([[1], [2]], over="pictures")
    with pytest.raises(ValueError, match="'items'"):
        mean_opinion_score([[1, 2]], over="items")


# Choices between two


def choices(wins, names):
    """Answers in which the row was chosen over the column so often, on either side."""
    for i, j in itertools.product(range(len(wins)), repeat=2):
        for number in range(wins[i][j]):
            pair = (names[i], names[j])[:: (1, -1)[number % 2]]
            yield replace(CHOICE, sources=pair, scores={"choice": number % 2})


def strengths_of(fit, names):
    return np.array([fit[name].value for name in names])


def test_bradley_terry_of_agrestis_baseball_example():
    fit = bradley_terry(choices(GAMES, TEAMS))
    strengths = strengths_of(fit, TEAMS)
    assert np.round(strengths - strengths[-1], 2).tolist() == [
        1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0,
    ]  # fmt: skip
    assert strengths.mean() == pytest.approx(0)
    information = np.zeros((6, 6))  # of a logistic regression: strengths above the last one's
    for i, j in itertools.combinations(range(7), 2):
        row = (np.eye(7)[i] - np.eye(7)[j])[:-1]
        chance = 1 / (1 + np.exp(strengths[j] - strengths[i]))
        information += 13 * chance * (1 - chance) * np.outer(row, row)
    centre = (np.eye(7) - 1 / 7)[:, :-1]
    covariance = centre @ np.linalg.inv(information) @ centre.T  # of strengths with the mean 0
    reach = [(fit[team].high - fit[team].low) / 2 for team in TEAMS]
    np.testing.assert_allclose(reach, 1.959964 * np.sqrt(np.diag(covariance)), rtol=1e-6)


def test_bradley_terry_of_two_is_the_odds_of_winning():
    fit = bradley_terry(choices([[0, 30], [10, 0]], "ab"))
    assert fit["a"].value - fit["b"].value == pytest.approx(np.log(3))
    # Closed form: the logit of a proportion has the variance 1 / (n p (1 - p)); each has half of it
    gap = stats.norm.ppf(0.975) / np.sqrt(40 * 0.75 * 0.25)
    assert fit["a"].high - fit["a"].low == pytest.approx(gap, rel=1e-6)
    assert fit["a"].samples == 40


@pytest.mark.parametrize(
    "wins",
    [
        [[0, 3, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1], [0, 0, 4, 0]],
        [[0, 1, 1], [0, 0, 2], [0, 1, 0]],
        [[0, 0, 0], [1, 0, 2], [1, 1, 0]],
    ],
    ids=["two worlds", "never lost", "never won"],
)
def test_no_finite_strengths_are_an_error(wins):
    with pytest.raises(ValueError, match="no finite strengths: of a, b, c"):
        bradley_terry(choices(wins, "abcd"))


# Tables


def test_table_of_ratings_has_a_row_for_each_rater_and_gaps_where_nobody_answered():
    first = replace(RATING, trial=1, item=1, sources=("a",), scores={"quality": 5, "fit": 1})
    given = [
        replace(RATING, trial=0, item=0, sources=("b",)),
        first,
        replace(first, rater="grace", scores={"quality": 3, "fit": 3}),
    ]
    np.testing.assert_array_equal(rating_table(given, "quality", "a"), [[NAN, 5], [NAN, 3]])
    np.testing.assert_array_equal(rating_table(given, "quality", "b"), [[2, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(rating_table(given, "fit"), [[4, 1], [NAN, 3]])


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="no answers yet"):
        bradley_terry([])
    with pytest.raises(ValueError, match="several studies"):
        rating_table([RATING, replace(RATING, study="other")], "fit")
    with pytest.raises(ValueError, match="need ratings"):
        rating_table([CHOICE], "fit")
    with pytest.raises(ValueError, match="need choices"):
        bradley_terry([RATING])
    with pytest.raises(ValueError, match="'speed'"):
        rating_table([RATING], "speed")
    with pytest.raises(ValueError, match="no ratings of 'gan'; there are some of baseline"):
        rating_table([RATING], "fit", "gan")


# Answers that nobody gave


def simulated(kind, count, strengths, **options):
    generator = torch.Generator().manual_seed(0)
    pictures = {name: torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1 for name in strengths}
    study = make_study([f"caption {i}" for i in range(count)], pictures, kind)
    return simulated_answers(study, strengths, raters=20, **options)


def test_simulated_answers_follow_their_rule_and_say_that_nobody_gave_them():
    strengths = {"weak": 2.5, "strong": 3.5}
    answers = simulated("ratings", 100, strengths)
    assert len(answers) == 20 * 200
    assert all(a.time == "simulated" and a.rater.startswith("simulated-") for a in answers)
    weak, strong = (rating_table(answers, "fit", source) for source in strengths)
    assert (strong - weak).mean() == pytest.approx(1, abs=0.2)
    assert strong.mean(axis=1).std() == pytest.approx(0.5, abs=0.25)  # raters differ
    assert answers == simulated("ratings", 100, strengths)
    assert answers != simulated("ratings", 100, strengths, seed=1)
    fit = bradley_terry(simulated("pairs", 40, {"a": 1.0, "b": 0.0, "c": -1.0}))
    np.testing.assert_allclose(strengths_of(fit, "abc"), [1, 0, -1], atol=0.2)
