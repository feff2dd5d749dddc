import numpy as np
import pytest
from scipy import stats

from t2i_course.significance import holm, paired_bootstrap, seed_interval, sign_test


def width(compared):
    return (compared.difference.high - compared.difference.low) / 2


def test_one_seed_gives_the_textbook_interval_of_a_paired_difference():
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 3, 400)  # of a caption, for both: drops out
    first, second = hardness + rng.normal(0.3, 1, 400), hardness + rng.normal(0, 1, 400)
    compared = paired_bootstrap(first, second, repeats=8000)
    differences = first - second
    margin = 1.96 * differences.std() / np.sqrt(400)
    assert compared.difference.value == pytest.approx(differences.mean())
    assert width(compared) == pytest.approx(margin, rel=0.04)
    unpaired = 1.96 * np.sqrt((first.var() + second.var()) / 400)
    assert width(compared) < 0.5 * unpaired
    p = stats.ttest_rel(first, second).pvalue
    assert compared.p_value == pytest.approx(p, abs=0.02)


def test_seeds_alone_give_the_textbook_variance():
    seeds = np.array([0.1, 0.4, 0.2, 0.9, 0.6])
    first = np.repeat(seeds[:, None], 30, axis=1)  # [5, 30]: captions do not matter
    compared = paired_bootstrap(first, np.zeros(30), repeats=20000)
    assert width(compared) == pytest.approx(1.96 * seeds.std(ddof=1) / np.sqrt(5), rel=0.06)


def simulated(rng, seeds, captions, gap=0.0):
    """Scores of two methods: luck of a training, hardness of a caption, and the rest."""
    hardness = rng.normal(0, 1, captions)
    return [
        shift + hardness + rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 1, (seeds, captions))
        for shift in (gap, 0.0)
    ]


def coverage(seeds, level, runs=300):
    rng = np.random.default_rng(seeds)
    held = 0
    for run in range(runs):
        pair = simulated(rng, seeds, 150, 0.5)
        if level == "captions":
            pair = [scores.mean(axis=0) for scores in pair]
        found = paired_bootstrap(*pair, repeats=400, seed=run).difference
        held += found.low <= 0.5 <= found.high
    return held / runs


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_stated_when_seeds_are_redrawn():
    assert coverage(12, "seeds") == pytest.approx(0.95, abs=0.035)
    assert 0.85 < coverage(3, "seeds") < 0.95  # a few seeds: too sure, as its text says
    assert coverage(3, "captions") < 0.6  # the luck of three trainings is taken for merit


def test_no_difference_is_found_in_one_case_of_twenty_only():
    rng = np.random.default_rng(2)
    found = [
        paired_bootstrap(*rng.normal(0, 1, (2, 100)), repeats=400, seed=i).p_value
        for i in range(300)
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 0], [1, 0, 1], "same captions"),
        ([1, np.nan], [1, 0], "not finite"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(np.array(first), np.array(second))


def test_sign_test_is_the_binomial_of_the_captions_that_differ():
    first = np.array([1] * 9 + [0] + [1] * 50 + [0] * 40, dtype=bool)
    second = np.array([0] * 9 + [1] + [1] * 50 + [0] * 40, dtype=bool)
    assert sign_test(first, second) == pytest.approx(2 * (1 + 10) / 2**10)  # 9 or 10 of 10
    assert sign_test(first, first) == 1.0


def test_holm_multiplies_by_the_number_that_is_left():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]


def test_the_interval_of_some_seeds_is_students_and_keeps_to_the_metrics_limits():
    values = np.array([0.90, 0.95, 0.97])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert seed_interval(values) == pytest.approx((low, high))
    assert high > 1 and seed_interval(values, 0, 1) == pytest.approx((low, 1))
    assert seed_interval([0.5]) is None
