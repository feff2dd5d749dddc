"""Frechet and kernel distance: closed forms, other programs, bias, intervals, the cache."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from scipy import linalg

from t2i_course import evaluation
from t2i_course.evaluation import FeatureStatistics, frechet_distance, kernel_distance, statistics


def random_covariance(rng: np.random.Generator, width: int) -> np.ndarray:
    factor = rng.normal(size=(width, width)) * np.geomspace(1, 0.03, width)
    return factor @ factor.T


def random_sets(
    samples: int, width: int, shift: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of correlated features, [samples, width]."""
    rng = np.random.default_rng(seed)
    mixing = [rng.normal(size=(width, width)) / np.sqrt(width) for _ in range(2)]
    mixing[1] = mixing[0] + 0.3 * mixing[1]
    sets = [rng.normal(size=(samples, width)) @ m for m in mixing]
    return sets[0].astype(np.float32), (sets[1] + shift).astype(np.float32)


# Frechet distance: closed forms


def test_equal_gaussians_have_distance_zero():
    rng = np.random.default_rng(0)
    mean, covariance = rng.normal(size=40), random_covariance(rng, 40)
    distance = frechet_distance(mean, covariance, mean, covariance)
    assert 0 <= distance < 1e-6 * np.trace(covariance)


def test_shifted_means_add_their_squared_distance():
    rng = np.random.default_rng(1)
    mean, shift, covariance = rng.normal(size=30), rng.normal(size=30), random_covariance(rng, 30)
    distance = frechet_distance(mean, covariance, mean + shift, covariance)
    assert distance == pytest.approx(shift @ shift, rel=1e-6)


def test_scaled_covariance_gives_the_squared_difference_of_the_scales():
    rng = np.random.default_rng(2)
    mean, covariance = np.zeros(30), random_covariance(rng, 30)
    distance = frechet_distance(mean, 4 * covariance, mean, 9 * covariance)
    assert distance == pytest.approx((3 - 2) ** 2 * np.trace(covariance), rel=1e-9)


def test_commuting_covariances_give_the_distance_of_their_roots():
    rng = np.random.default_rng(3)
    axes, _ = np.linalg.qr(rng.normal(size=(25, 25)))
    first, second = rng.uniform(0.1, 5, size=(2, 25))
    covariances = [(axes * values) @ axes.T for values in (first, second)]
    distance = frechet_distance(np.zeros(25), covariances[0], np.zeros(25), covariances[1])
    assert distance == pytest.approx(np.square(np.sqrt(first) - np.sqrt(second)).sum(), rel=1e-9)


def test_one_feature_is_a_formula_of_standard_deviations():
    distance = frechet_distance([2.0], [[9.0]], [5.0], [[16.0]])
    assert distance == pytest.approx((5 - 2) ** 2 + (4 - 3) ** 2)


def test_distance_is_symmetric_also_where_covariances_do_not_commute():
    rng = np.random.default_rng(4)
    first, second = random_covariance(rng, 20), random_covariance(rng, 20)
    forth = frechet_distance(np.zeros(20), first, np.ones(20), second)
    back = frechet_distance(np.ones(20), second, np.zeros(20), first)
    assert forth == pytest.approx(back, rel=1e-9)


def test_covariances_without_an_inverse_are_no_obstacle():
    first, second = np.diag([4.0, 0.0, 1.0, 0.0]), np.diag([1.0, 9.0, 0.0, 0.0])
    distance = frechet_distance(np.zeros(4), first, np.zeros(4), second)
    assert distance == pytest.approx(1 + 9 + 1, abs=1e-6)


@pytest.mark.parametrize(
    "covariance",
    [np.array([[1.0, 2.0], [0.0, 1.0]]), np.diag([1.0, np.nan]), np.diag([1.0, -1.0]), np.eye(3)],
)
def test_what_is_no_covariance_is_refused(covariance: np.ndarray):
    for pair in ((covariance, np.eye(2)), (np.eye(2), covariance)):
        with pytest.raises(ValueError, match="covariance"):
            frechet_distance(np.zeros(2), pair[0], np.zeros(2), pair[1])


# Frechet distance: other programs


class Identity(torch.nn.Module):
    """Features that are features already, for torchmetrics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.parametrize(("samples", "width"), [(400, 48), (2000, 64), (300, 256)])
def test_distance_agrees_with_scipys_root_and_with_torchmetrics(samples: int, width: int):
    from torchmetrics.image.fid import FrechetInceptionDistance

    first, second = random_sets(samples, width)
    ours = evaluation.frechet(first, second, repeats=0).value
    covariances = [np.cov(f.astype(np.float64), rowvar=False) for f in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    difference = first.mean(0, dtype=np.float64) - second.mean(0, dtype=np.float64)
    scipys = difference @ difference + np.trace(sum(covariances) - 2 * root)
    metric = FrechetInceptionDistance(feature=Identity(width)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(first).double(), real=True)
    metric.update(torch.from_numpy(second).double(), real=False)
    assert ours == pytest.approx(scipys, rel=1e-6)
    assert ours == pytest.approx(metric.compute().item(), rel=1e-6)


def test_distance_of_few_samples_agrees_with_scipys_root_of_singular_covariances():
    first, second = random_sets(40, 96)
    ours = evaluation.frechet(first, second, repeats=0, allow_few=True).value
    centred = [(f - f.mean(0)).astype(np.float64) / np.sqrt(len(f) - 1) for f in (first, second)]
    # With X^T X = Sigma the roots of the eigenvalues are the singular values of X_1 X_2^T.
    root = linalg.svdvals(centred[0] @ centred[1].T).sum()
    traces = sum(np.square(c).sum() for c in centred)
    difference = (first.mean(0) - second.mean(0)).astype(np.float64)
    assert ours == pytest.approx(difference @ difference + traces - 2 * root, rel=1e-3)


def test_statistics_are_numpys_in_double_precision_for_floats_far_from_zero():
    features = (1000 + np.random.default_rng(0).normal(size=(500, 8))).astype(np.float32)
    found = statistics(torch.from_numpy(features))
    assert found.mean == pytest.approx(features.astype(np.float64).mean(0), rel=1e-12)
    assert found.covariance == pytest.approx(np.cov(features.astype(np.float64).T), rel=1e-9)
    assert found.count == 500


def test_statistics_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch):
    features, _ = random_sets(333, 16)
    whole = statistics(features)
    monkeypatch.setattr("t2i_course.estimates.BLOCK", 16 * 50)
    assert statistics(features).covariance == pytest.approx(whole.covariance, rel=1e-12)


@pytest.mark.parametrize("count", [1, 16, 32])
def test_too_few_samples_for_the_dimensions_are_refused(count: int):
    few, enough = np.random.default_rng(0).normal(size=(2, 100, 32))
    with pytest.raises(ValueError, match=f"{count} samples of 32 features .* kernel_distance"):
        statistics(few[:count])
    for pair in ((few[:count], enough), (enough, few[:count])):
        with pytest.raises(ValueError, match="more than 32"):
            evaluation.frechet(*pair)
    assert statistics(few[:33]).count == 33


def test_features_that_are_no_finite_matrix_are_refused():
    good = np.random.default_rng(0).normal(size=(50, 4))
    bad = good.copy()
    bad[3, 2] = np.nan
    for call in (evaluation.frechet, kernel_distance):
        with pytest.raises(ValueError, match="not finite"):
            call(good, bad)
        with pytest.raises(ValueError, match="shape"):
            call(good, good[0])
        with pytest.raises(ValueError, match="do not fit|one extractor"):
            call(good, good[:, :3])


# Kernel distance


def test_kernel_distance_is_its_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 3 + 1) ** 3

    def within(z: np.ndarray) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        return float(np.mean(pairs))

    across = np.mean([kernel(a, b) for a in x for b in y])
    expected = within(x) + within(y) - 2 * across
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_agrees_with_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    first, second = random_sets(300, 40)
    metric = KernelInceptionDistance(feature=Identity(40), subsets=1, subset_size=300)
    metric.update(torch.from_numpy(first).double(), real=True)
    metric.update(torch.from_numpy(second).double(), real=False)
    assert kernel_distance(first, second).value == pytest.approx(
        metric.compute()[0].item(), rel=1e-4
    )


def test_kernel_distance_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch):
    first, second = random_sets(120, 8)
    whole = kernel_distance(first, second[:90])
    monkeypatch.setattr("t2i_course.estimates.BLOCK", 1000)
    assert kernel_distance(first, second[:90]).interval == pytest.approx(whole.interval, rel=1e-9)


def test_its_interval_is_the_jackknife():
    first, second = random_sets(30, 5)
    found = kernel_distance(first, second[:20])
    without_first = [kernel_distance(np.delete(first, i, 0), second[:20]).value for i in range(30)]
    without_second = [kernel_distance(first, np.delete(second[:20], i, 0)).value for i in range(20)]
    variance = 29 * np.var(without_first) + 19 * np.var(without_second)
    assert found.interval[1] - found.value == pytest.approx(1.96 * np.sqrt(variance), rel=1e-4)


def test_its_interval_agrees_with_redrawn_halves():
    first, second = random_sets(300, 6)
    found = kernel_distance(first, second)
    redrawn = evaluation.bootstrap_interval(
        lambda a, b: kernel_distance(a, b).value, first, second, halves=True
    )
    width = redrawn.interval[1] - redrawn.interval[0]
    assert width == pytest.approx(found.interval[1] - found.interval[0], rel=0.25)


def test_kernel_distance_is_unbiased_where_the_frechet_distance_is_biased():
    rng = np.random.default_rng(0)
    width = 10
    frechets = []
    for count in (25, 100, 400):
        pairs = rng.normal(size=(60, 2, count, width))
        kernels = [kernel_distance(x, y).value for x, y in pairs]
        error = np.std(kernels) / np.sqrt(len(kernels))
        assert abs(np.mean(kernels)) < 3 * error  # zero, the truth, at every N
        values = [evaluation.frechet(x, y, repeats=0).value for x, y in pairs]
        assert np.mean(values) > 10 * np.std(values) / np.sqrt(len(values))  # never zero
        frechets.append(np.mean(values))
    assert frechets[0] / frechets[1] == pytest.approx(4, rel=0.25)  # about 1 / N
    assert frechets[1] / frechets[2] == pytest.approx(4, rel=0.25)


# Both: what they see, and their intervals


def test_distances_grow_with_what_is_wrong_and_vanish_on_the_set_itself():
    real, _ = random_sets(1000, 16)
    rng = np.random.default_rng(1)
    for metric in (lambda a, b: evaluation.frechet(a, b, repeats=0), kernel_distance):
        itself = metric(real, real).value
        noisy = [
            metric(real, real + s * rng.normal(size=real.shape)).value for s in (0.3, 0.6, 1.2)
        ]
        assert itself < 1e-5
        assert itself < noisy[0] < noisy[1] < noisy[2]
        assert metric(real, real[real[:, 0] > 0]).value > noisy[0] / 10  # half of the modes


def test_frechet_interval_covers_the_mean_at_that_number_of_samples():
    rng = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(150, 3)), 1.3 * rng.normal(size=(150, 3)) + 0.4

    truth = np.mean([evaluation.frechet(*draw(), repeats=0).value for _ in range(1500)])
    intervals = [evaluation.frechet(*draw(), repeats=100, seed=i).interval for i in range(80)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered >= 0.87
    widths = np.array([high - low for low, high in intervals])
    assert np.median(widths) < truth  # an interval that says nothing would cover, too


def test_kernel_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    worlds = rng.normal(size=(40, 4)), 1.2 * rng.normal(size=(40, 4)) + 0.3
    kernels = [
        [((a @ b.T) / 4 + 1) ** 3 for b in worlds] for a in worlds
    ]  # of finite worlds the MMD is known
    truth = kernels[0][0].mean() + kernels[1][1].mean() - 2 * kernels[0][1].mean()
    covered, values = [], []
    for _ in range(300):
        x, y = (world[rng.integers(40, size=120)] for world in worlds)
        found = kernel_distance(x, y)
        covered.append(found.interval[0] <= truth <= found.interval[1])
        values.append(found.value)
    assert 0.9 <= np.mean(covered) <= 0.995
    assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / np.sqrt(300))


def test_frechet_interval_never_goes_below_zero_and_repeats_exactly():
    real, _ = random_sets(80, 5)
    found = evaluation.frechet(real[:40], real[40:], repeats=50, seed=3)
    assert 0 <= found.interval[0] <= found.value <= found.interval[1]
    assert found == evaluation.frechet(real[:40], real[40:], repeats=50, seed=3)
    assert found != evaluation.frechet(real[:40], real[40:], repeats=50, seed=4)


def test_kept_statistics_give_the_same_value_and_a_narrower_interval():
    real, generated = random_sets(200, 5)
    both = evaluation.frechet(real, generated)
    kept = evaluation.frechet(statistics(real), generated)
    assert kept.value == both.value
    assert kept.interval[1] - kept.interval[0] < both.interval[1] - both.interval[0]


# The cache of the real set's statistics


def test_statistics_are_computed_once_for_each_key(tmp_path):
    features, others = random_sets(60, 6)
    calls = []

    def make(which: np.ndarray) -> np.ndarray:
        calls.append(1)
        return which

    first = evaluation.cached_statistics("real, val, a1", lambda: make(features), tmp_path)
    again = evaluation.cached_statistics("real, val, a1", lambda: make(others), tmp_path)
    assert len(calls) == 1 and isinstance(again, FeatureStatistics)
    assert np.array_equal(first.covariance, again.covariance) and again.count == 60
    assert np.array_equal(first.mean, again.mean)
    other = evaluation.cached_statistics("real, val, b2", lambda: make(others), tmp_path)
    assert len(calls) == 2 and not np.array_equal(other.mean, first.mean)


def test_a_damaged_file_of_statistics_is_made_again(tmp_path):
    features, _ = random_sets(60, 6)
    first = evaluation.cached_statistics("key", lambda: features, tmp_path)
    (file,) = tmp_path.glob("*.npz")
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 100):
        file.write_bytes(damaged)
        again = evaluation.cached_statistics("key", lambda: features, tmp_path)
        assert np.array_equal(again.covariance, first.covariance)
        assert file.read_bytes() == whole


def test_a_failed_computation_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="more than 6"):
        evaluation.cached_statistics("key", lambda: np.zeros((3, 6)), tmp_path)
    assert not [name for name in os.listdir(tmp_path) if not name.endswith(".lock")]
