"""Mean opinion scores, win rates, strengths and agreement, on published worked examples."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from t2i_course.rating_statistics import (
    alpha_interval,
    bootstrap_raters,
    bradley_terry,
    coincidence_matrix,
    krippendorff_alpha,
    mean_opinion_score,
    win_rate,
)

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
    ("metric", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_example(metric, published):
    assert round(krippendorff_alpha(OBSERVERS, metric), 3) == published


def test_coincidences_of_krippendorffs_example():
    values, pairs = coincidence_matrix(OBSERVERS)
    assert values.tolist() == [1, 2, 3, 4, 5]
    published = [[7, 4 / 3, 1 / 3, 1 / 3], [4 / 3, 10, 4 / 3, 1 / 3], [1 / 3, 4 / 3, 8, 1 / 3]]
    np.testing.assert_allclose(pairs[:3, :4], published)
    assert pairs.sum() == pytest.approx(40)  # the unit with one rating does not count


def test_alpha_by_its_definition_over_all_pairs_of_ratings():
    rng = np.random.default_rng(0)
    table = rng.integers(1, 6, (5, 12)).astype(float)
    table[rng.random(table.shape) < 0.3] = NAN
    columns = [column[np.isfinite(column)] for column in table.T]
    columns = [column for column in columns if len(column) >= 2]
    n = sum(map(len, columns))
    within = sum(
        np.subtract.outer(column, column).__pow__(2).sum() / (len(column) - 1) for column in columns
    )
    everything = np.concatenate(columns)
    between = np.subtract.outer(everything, everything).__pow__(2).sum() / (n - 1)
    assert krippendorff_alpha(table, "interval") == pytest.approx(1 - within / between)


def test_alpha_is_one_in_agreement_near_zero_for_dice_negative_in_opposition():
    rng = np.random.default_rng(1)
    same = np.tile(rng.integers(1, 6, 50), (3, 1))
    for metric in ("nominal", "ordinal", "interval"):
        assert krippendorff_alpha(same, metric) == pytest.approx(1)
        assert abs(krippendorff_alpha(rng.integers(1, 6, (3, 2000)), metric)) < 0.05
        assert krippendorff_alpha(np.array([[1, 5] * 20, [5, 1] * 20]), metric) < -0.9


def test_ordinal_alpha_sees_only_the_order_of_the_values():
    stretched = np.select([OBSERVERS == v for v in range(1, 6)], [1, 10, 11, 50, 1000], NAN)
    stretched[np.isnan(OBSERVERS)] = NAN
    assert krippendorff_alpha(stretched) == pytest.approx(krippendorff_alpha(OBSERVERS))
    assert krippendorff_alpha(stretched, "interval") != pytest.approx(
        krippendorff_alpha(OBSERVERS, "interval")
    )


def test_alpha_interval_holds_alpha_and_narrows_with_more_pictures():
    few = alpha_interval(OBSERVERS, repeats=200)
    assert few.low < few.value < few.high
    many = alpha_interval(np.tile(OBSERVERS, 10), repeats=200)
    assert many.high - many.low < (few.high - few.low) / 2


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
    for function in (krippendorff_alpha, alpha_interval):
        with pytest.raises(ValueError, match=message):
            function(np.array(table))


def test_unknown_metric_is_named():
    with pytest.raises(ValueError, match="'ratio'"):
        krippendorff_alpha(OBSERVERS, "ratio")


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


@pytest.mark.parametrize(
    ("wins", "choices", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_of_newcombes_examples(wins, choices, low, high):
    rate = win_rate(wins, choices)
    assert rate.value == wins / choices
    assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)


@pytest.mark.parametrize(("wins", "choices"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_win_rate_is_an_error(wins, choices):
    with pytest.raises(ValueError, match="no such win rate"):
        win_rate(wins, choices)


def test_bradley_terry_of_agrestis_baseball_example():
    fit = bradley_terry(GAMES, TEAMS)
    above_baltimore = fit.log_strengths - fit.log_strengths[-1]
    assert np.round(above_baltimore, 2).tolist() == [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0]
    variances = np.diag(fit.covariance)
    errors = np.sqrt(variances + variances[-1] - 2 * fit.covariance[-1])[:-1]
    assert np.round(errors, 1).tolist() == [0.3] * 6  # "standard errors ... about 0.3"


def test_bradley_terry_is_where_a_general_optimizer_ends():
    def negative_log_likelihood(free):
        gaps = np.subtract.outer(np.append(free, 0.0), np.append(free, 0.0))
        return (GAMES * np.logaddexp(0, -gaps)).sum()

    best = optimize.minimize(negative_log_likelihood, np.zeros(6), method="BFGS", tol=1e-8)
    fit = bradley_terry(GAMES)
    np.testing.assert_allclose(best.x, fit.log_strengths[:-1] - fit.log_strengths[-1], atol=1e-4)


def test_bradley_terry_covariance_is_that_of_logistic_regression():
    fit = bradley_terry(GAMES)
    information = np.zeros((6, 6))  # of the strengths above the last one's
    for i, j in itertools.combinations(range(7), 2):
        row = (np.eye(7)[i] - np.eye(7)[j])[:-1]
        chance = 1 / (1 + np.exp(fit.log_strengths[j] - fit.log_strengths[i]))
        information += 13 * chance * (1 - chance) * np.outer(row, row)
    change = np.hstack([np.eye(6), -np.ones((6, 1))])
    np.testing.assert_allclose(change @ fit.covariance @ change.T, np.linalg.inv(information))


def test_bradley_terry_of_two_is_the_odds_of_winning():
    fit = bradley_terry([[0, 30], [10, 0]], ["a", "b"])
    assert fit.log_strengths[0] - fit.log_strengths[1] == pytest.approx(np.log(3))
    chance = fit.beats("a", "b")
    assert chance.value == pytest.approx(0.75)
    # Closed form: the logit of a proportion has the variance 1 / (n p (1 - p))
    gap = stats.norm.ppf(0.975) / np.sqrt(40 * 0.75 * 0.25)
    assert np.log(chance.low / (1 - chance.low)) == pytest.approx(np.log(3) - gap)
    assert fit.beats("a", "a").value == 0.5


def test_bradley_terry_intervals_cover_true_strengths():
    rng = np.random.default_rng(6)
    truth = np.array([0.8, 0.2, -0.3, -0.7])
    chance = 1 / (1 + np.exp(-np.subtract.outer(truth, truth)))
    inside = []
    for _ in range(200):
        wins = np.triu(rng.binomial(40, chance), 1)
        wins += np.tril(40 - wins.T, -1)
        low, high = bradley_terry(wins).intervals.T
        inside.append((low <= truth) & (truth <= high))
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


def test_bootstrap_over_raters_is_wider_than_wilson_when_tastes_differ():
    # Ten raters, each of one mind: 60 of 100 choices, but only ten opinions
    tables = np.array([[10, 0]] * 6 + [[0, 10]] * 4)
    by_rater = bootstrap_raters(lambda total: total[0] / total.sum(), tables)
    by_choice = win_rate(60, 100)
    assert by_rater.value == by_choice.value == 0.6
    assert by_rater.high - by_rater.low > 2 * (by_choice.high - by_choice.low)
    with pytest.raises(ValueError, match="two of them"):
        bootstrap_raters(np.sum, tables[:1])
