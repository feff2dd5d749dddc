"""Distances, precision, recall, retrieval: closed forms, other programs, bias, intervals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from t2i_course import evaluation
from t2i_course.evaluation import (
    Estimate,
    bootstrap_interval,
    frechet_distance,
    kernel_distance,
    precision_recall,
    retrieval,
    statistics,
    wilson_interval,
)


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


def test_a_shift_adds_its_square_to_the_zero_of_equal_gaussians():
    rng = np.random.default_rng(0)
    mean, shift, covariance = rng.normal(size=30), rng.normal(size=30), random_covariance(rng, 30)
    assert 0 <= frechet_distance(mean, covariance, mean, covariance) < 1e-6 * np.trace(covariance)
    distance = frechet_distance(mean, covariance, mean + shift, covariance)
    assert distance == pytest.approx(shift @ shift, rel=1e-6)


def test_commuting_covariances_give_the_distance_of_their_roots():
    rng = np.random.default_rng(3)
    axes, _ = np.linalg.qr(rng.normal(size=(25, 25)))
    first, second = rng.uniform(0.1, 5, size=(2, 25))
    covariances = [(axes * values) @ axes.T for values in (first, second)]
    distance = frechet_distance(np.zeros(25), covariances[0], np.zeros(25), covariances[1])
    assert distance == pytest.approx(np.square(np.sqrt(first) - np.sqrt(second)).sum(), rel=1e-9)


def test_covariances_without_an_inverse_are_no_obstacle():
    first, second = np.diag([4.0, 0.0, 1.0, 0.0]), np.diag([1.0, 9.0, 0.0, 0.0])
    distance = frechet_distance(np.zeros(4), first, np.zeros(4), second)
    assert distance == pytest.approx(1 + 9 + 1, abs=1e-6)


@pytest.mark.parametrize(
    "covariance",
    [np.array([[1.0, 2.0], [0.0, 1.0]]), np.diag([1.0, np.nan]), np.eye(3)],
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


def test_statistics_are_numpys_in_double_precision_whatever_the_blocks(monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK", 8 * 50)
    features = (1000 + np.random.default_rng(0).normal(size=(500, 8))).astype(np.float32)
    found = statistics(torch.from_numpy(features))
    assert found.mean == pytest.approx(features.astype(np.float64).mean(0), rel=1e-12)
    assert found.covariance == pytest.approx(np.cov(features.astype(np.float64).T), rel=1e-9)
    assert found.count == 500


@pytest.mark.parametrize("count", [1, 32])
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


def test_its_interval_is_the_jackknife():
    first, second = (features[:20] for features in random_sets(30, 5))
    found = kernel_distance(first, second)
    without_first = [kernel_distance(np.delete(first, i, 0), second).value for i in range(20)]
    without_second = [kernel_distance(first, np.delete(second, i, 0)).value for i in range(20)]
    variance = 19 * np.var(without_first) + 19 * np.var(without_second)
    assert found.high - found.value == pytest.approx(1.96 * np.sqrt(variance), rel=1e-4)


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


def test_frechet_interval_covers_the_mean_at_that_number_of_samples():
    rng = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(150, 3)), 1.3 * rng.normal(size=(150, 3)) + 0.4

    truth = np.mean([evaluation.frechet(*draw(), repeats=0).value for _ in range(1500)])
    intervals = [evaluation.frechet(*draw(), repeats=100).interval for _ in range(80)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered >= 0.87
    widths = np.array([high - low for low, high in intervals])
    assert np.median(widths) < truth  # an interval that says nothing would cover, too


# Precision and recall


def by_definition(tested: np.ndarray, points: np.ndarray, k: int) -> float:
    """Equation 1 of the paper, word for word."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    radius = np.sort(distances, axis=1)[:, k]  # the nearest is the point itself
    across = np.linalg.norm(tested[:, None] - points[None], axis=2)
    return float((across <= radius).any(axis=1).mean())


@pytest.mark.parametrize(("real_count", "count", "k"), [(150, 90, 3), (40, 200, 1), (30, 30, 7)])
def test_values_are_the_papers_definition(real_count: int, count: int, k: int):
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=(real_count, 5)), 0.8 * rng.normal(size=(count, 5)) + 0.4
    found = precision_recall(real, generated, k, repeats=0)
    assert found.precision.value == by_definition(generated, real, k)
    assert found.recall.value == by_definition(real, generated, k)
    assert 0 < found.recall.value < 1
    itself = precision_recall(real, real.copy(), k).precision
    low, high = itself.interval
    assert itself.value == high == 1 and low < 1  # no failure seen is no proof that there is none


def test_interval_of_redrawn_halves_is_that_of_halves_computed_anew():
    """Kept neighbours and candidates give what the definition gives on the same halves."""
    rng = np.random.default_rng(4)
    real, generated = rng.normal(size=(120, 4)), rng.normal(size=(100, 4)) + 0.7
    found = precision_recall(real, generated, repeats=60).precision
    again = bootstrap_interval(
        lambda r, g: by_definition(g, r, 3), real, generated, repeats=60, halves=True
    )
    wilson = wilson_interval(found.value, 100)
    assert found.value == again.value
    assert found.interval[0] == pytest.approx(min(again.interval[0], wilson[0]), abs=1e-12)
    assert found.interval[1] == pytest.approx(max(again.interval[1], wilson[1]), abs=1e-12)


def test_distant_features_and_repeated_samples_keep_their_digits():
    rng = np.random.default_rng(6)
    real = rng.normal(size=(60, 4)).astype(np.float32)
    near = precision_recall(real, real[:40], repeats=0)
    far = precision_recall(real + np.float32(4096), real[:40] + np.float32(4096), repeats=0)
    assert far.recall.value == pytest.approx(near.recall.value, abs=0.1)
    collapsed = np.repeat(real[:1], 30, axis=0)  # its balls have no radius
    found = precision_recall(real, collapsed, repeats=0)
    assert found.precision.value == 1 and found.recall.value == pytest.approx(1 / 60)


def test_memory_stays_flat(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "BLOCK", 2**16)  # half a megabyte
    points = np.random.default_rng(7).normal(size=(2, 2000, 2))
    tracemalloc.start()
    precision_recall(*points, repeats=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 2000 * 8 / 2, "less than half of one matrix of distances"


def test_too_few_samples_and_other_widths_are_refused():
    points = np.random.default_rng(8).normal(size=(20, 4))
    with pytest.raises(ValueError, match="8 of each"):
        precision_recall(points, points[:7])
    with pytest.raises(ValueError, match="one extractor"):
        precision_recall(points, points[:, :3])


# Retrieval


def test_perfect_features_find_every_caption():
    features = np.random.default_rng(0).normal(size=(250, 16))
    found = retrieval(features, 3 * features)  # the cosine does not see the length
    assert found["R@1"].value == found["R@5"].value == 1
    assert 0.97 < found["R@1"].interval[0] < 1


def test_features_that_say_nothing_score_chance():
    rng = np.random.default_rng(1)
    found = retrieval(rng.normal(size=(3000, 8)), rng.normal(size=(3000, 8)))
    assert found["R@1"].interval[0] < 0.01 < found["R@1"].interval[1]
    assert found["R@5"].interval[0] < 0.05 < found["R@5"].interval[1]
    for constant in (np.ones((300, 8)), np.zeros((300, 8))):
        found = retrieval(constant, constant)
        assert found["R@1"].value == pytest.approx(0.01)
        assert found["R@5"].value == pytest.approx(0.05)


def test_rank_among_all_captions_is_counted():
    images = np.eye(4)
    texts = np.array([[1.0, 0, 0, 0], [1, 0.9, 0, 0], [0, 1, 0.8, 0.9], [0.2, 0.2, 0.2, 0.4]])
    # Nearest captions of each picture, by hand: 0: itself; 1: caption 1 (0.67) over 2 (0.64);
    # 2: caption 2; 3: caption 3 (0.76) over 2 (0.57).
    assert retrieval(images, texts, candidates=4)["R@1"].value == 1
    swapped = texts[[1, 0, 2, 3]]  # picture 0 ranks 2nd; picture 1 meets a caption at 0
    assert retrieval(images, swapped, candidates=4)["R@1"].value == 0.5


def test_equal_captions_share_the_hit():
    features = np.random.default_rng(3).normal(size=(100, 8))
    features[50:] = features[:50]  # each caption is there twice
    found = retrieval(features, features)
    assert found["R@1"].value == pytest.approx(0.5)
    assert found["R@5"].value == 1


def test_draw_of_candidates_repeats_and_does_not_depend_on_the_blocks(monkeypatch):
    rng = np.random.default_rng(4)
    images = rng.normal(size=(400, 6))
    texts = images + rng.normal(size=images.shape)
    whole = retrieval(images, texts)
    monkeypatch.setattr(evaluation, "BLOCK", 5000)
    assert retrieval(images, texts) == whole


@pytest.mark.parametrize(("pictures", "captions"), [(99, 99), (120, 121)])
def test_retrieval_needs_enough_pictures_and_their_captions(pictures: int, captions: int):
    with pytest.raises(ValueError, match="one caption for each picture"):
        retrieval(np.ones((pictures, 3)), np.ones((captions, 3)))


# Intervals


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


def test_an_interval_ends_where_the_statistic_can_go_no_further():
    sample = np.array([1.0] * 5 + [0.0] * 5)
    commoner = lambda part: max(part.mean(), 1 - part.mean())  # noqa: E731
    free = bootstrap_interval(commoner, sample, repeats=500)
    cut = bootstrap_interval(commoner, sample, repeats=500, limits=(0.5, 1))
    assert free.interval[0] < 0.5 and cut == Estimate(0.5, (0.5, free.interval[1]), 10)


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (480, 500)])
def test_wilson_interval_is_scipys(successes: int, count: int):
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes / count, count) == pytest.approx(tuple(expected), abs=1e-6)
