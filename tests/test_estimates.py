"""Intervals: they cover what they claim to, and not by saying nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from t2i_course.estimates import Estimate, bootstrap_interval, row_blocks, wilson_interval


@pytest.mark.parametrize("halves", [False, True])
def test_interval_of_a_mean_is_that_of_the_central_limit(halves: bool):
    sample = np.random.default_rng(0).exponential(size=400)
    found = bootstrap_interval(np.mean, sample, repeats=2000, halves=halves)
    margin = 1.96 * sample.std(ddof=1) / np.sqrt(400)
    assert found.value == sample.mean() and found.samples == 400
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * margin, rel=0.1)


@pytest.mark.parametrize("halves", [False, True])
def test_interval_of_a_difference_redraws_both_samples_and_covers(halves: bool):
    rng = np.random.default_rng(1)
    covered = []
    for seed in range(200):
        first, second = rng.normal(0, 1, size=60), rng.normal(0.5, 2, size=90)
        found = bootstrap_interval(
            lambda a, b: b.mean() - a.mean(), first, second, seed=seed, halves=halves
        )
        covered.append(found.interval[0] <= 0.5 <= found.interval[1])
    assert 0.89 <= np.mean(covered) <= 0.99


def test_bias_does_not_shift_the_interval_away_from_the_value():
    sample = np.random.default_rng(2).normal(size=(50, 20))
    found = bootstrap_interval(lambda s: np.square(s.mean(axis=0)).sum(), sample)
    assert found.interval[0] < found.value < found.interval[1]


def test_an_interval_ends_where_the_statistic_can_go_no_further():
    sample = np.array([1.0] * 5 + [0.0] * 5)
    commoner = lambda part: max(part.mean(), 1 - part.mean())  # noqa: E731
    free = bootstrap_interval(commoner, sample, repeats=500)
    cut = bootstrap_interval(commoner, sample, repeats=500, limits=(0.5, 1))
    assert free.interval[0] < 0.5 and cut == Estimate(0.5, (0.5, free.interval[1]), 10)


def test_no_repeats_no_interval():
    found = bootstrap_interval(np.mean, np.arange(5.0), repeats=0)
    assert found == Estimate(2.0, None, 5) and str(found) == "2"


def test_estimate_reads_as_a_value_with_its_interval():
    assert str(Estimate(0.5, (0.25, 0.75), 9)) == "0.5 (0.25 to 0.75)"


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (480, 500)])
def test_wilson_interval_is_scipys(successes: int, count: int):
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes / count, count) == pytest.approx(tuple(expected), abs=1e-6)


def test_blocks_cover_each_row_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("t2i_course.estimates.BLOCK", 70)
    blocks = list(row_blocks(23, 10))
    assert [part.stop - part.start for part in blocks] == [7, 7, 7, 2]
    assert np.concatenate([np.arange(23)[part] for part in blocks]).tolist() == list(range(23))
    assert len(list(row_blocks(5, 1000))) == 5
