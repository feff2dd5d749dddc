"""Precision, recall and retrieval: what each sees, chance, intervals, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from t2i_course import estimates
from t2i_course.neighbours import precision_recall, retrieval

MODES = 12 * np.eye(8)


def in_modes(rng: np.random.Generator, count: int, modes: int) -> np.ndarray:
    """Points [count, 8] around the first of eight distant modes."""
    return MODES[np.arange(count) % modes] + rng.normal(size=(count, 8))


def test_same_distribution_has_high_precision_and_recall():
    rng = np.random.default_rng(0)
    found = precision_recall(in_modes(rng, 800, 8), in_modes(rng, 800, 8), repeats=0)
    assert found.precision.value > 0.75 and found.recall.value > 0.75


def test_a_set_covers_itself():
    real = in_modes(np.random.default_rng(0), 300, 8)
    found = precision_recall(real, real.copy())
    assert found.precision.value == found.recall.value == 1
    low, high = found.precision.interval
    assert 0.9 < low < 0.99 and high == 1  # 300 successes do not prove that there is no failure


def test_lost_modes_lower_recall_and_not_precision():
    rng = np.random.default_rng(1)
    real = in_modes(rng, 800, 8)
    whole = precision_recall(real, in_modes(rng, 800, 8))
    lost = precision_recall(real, in_modes(rng, 800, 4))
    assert lost.recall.value < 0.55 < 0.75 < whole.recall.value
    assert lost.recall.interval[1] < whole.recall.interval[0]
    assert lost.precision.value > whole.precision.value - 0.05


def test_outliers_lower_precision_and_not_recall():
    rng = np.random.default_rng(2)
    real = in_modes(rng, 800, 8)
    clean = in_modes(rng, 800, 8)
    spoilt = clean.copy()
    spoilt[:200] = rng.uniform(-400, 400, size=(200, 8))  # far from everything, and each other
    spoilt[:200] += 1000 * np.sign(spoilt[:200])
    whole, outliers = precision_recall(real, clean), precision_recall(real, spoilt)
    assert outliers.precision.value == pytest.approx(0.75 * whole.precision.value, abs=0.05)
    assert outliers.precision.interval[1] < whole.precision.interval[0]
    # A quarter of the good samples is gone; the balls of the others grow.
    assert outliers.recall.value > whole.recall.value - 0.05


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


def test_interval_of_redrawn_halves_is_that_of_halves_computed_anew():
    """Kept neighbours and candidates give what the definition gives on the same halves."""
    rng = np.random.default_rng(4)
    real, generated = rng.normal(size=(120, 4)), rng.normal(size=(100, 4)) + 0.7
    found = precision_recall(real, generated, repeats=60, seed=5).precision
    again = estimates.bootstrap_interval(
        lambda r, g: by_definition(g, r, 3), real, generated, repeats=60, seed=5, halves=True
    )
    wilson = estimates.wilson_interval(found.value, 100)
    assert found.value == again.value
    assert found.interval[0] == pytest.approx(min(again.interval[0], wilson[0]), abs=1e-12)
    assert found.interval[1] == pytest.approx(max(again.interval[1], wilson[1]), abs=1e-12)


def test_intervals_cover_the_mean_at_that_number_of_samples():
    rng = np.random.default_rng(5)

    def draw(repeats: int):
        real, generated = rng.normal(size=(100, 3)), 0.7 * rng.normal(size=(100, 3)) + 0.6
        return precision_recall(real, generated, repeats=repeats)

    truth = np.mean([[f.precision.value, f.recall.value] for f in (draw(0) for _ in range(400))], 0)
    covered = []
    for _ in range(100):
        found = draw(100)
        pairs = zip(truth, (found.precision, found.recall), strict=True)
        covered.append([e.interval[0] <= t <= e.interval[1] for t, e in pairs])
    assert (np.mean(covered, axis=0) >= 0.89).all()


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
    monkeypatch.setattr("t2i_course.estimates.BLOCK", 2**16)  # half a megabyte
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
    with pytest.raises(ValueError, match="k is 0"):
        precision_recall(points, points, k=0)


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


def test_shuffled_captions_fall_to_chance():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(1000, 12))
    texts = images + 0.3 * rng.normal(size=images.shape)
    assert retrieval(images, texts)["R@1"].value > 0.9
    assert retrieval(images, texts[rng.permutation(1000)])["R@1"].value < 0.03


def test_rank_among_all_captions_is_counted():
    images = np.eye(4)
    texts = np.array([[1.0, 0, 0, 0], [1, 0.9, 0, 0], [0, 1, 0.8, 0.9], [0.2, 0.2, 0.2, 0.4]])
    # Nearest captions of each picture, by hand: 0: itself; 1: caption 1 (0.67) over 2 (0.64);
    # 2: caption 2; 3: caption 3 (0.76) over 2 (0.57).
    found = retrieval(images, texts, candidates=4, tops=(1, 2))
    assert found["R@1"].value == 1
    swapped = retrieval(images, texts[[1, 0, 2, 3]], candidates=4, tops=(1, 2))
    assert swapped["R@1"].value == 0.5  # picture 0 ranks 2nd; picture 1 meets a caption at 0
    assert swapped["R@2"].value == 0.75


def test_equal_captions_share_the_hit():
    features = np.random.default_rng(3).normal(size=(100, 8))
    features[50:] = features[:50]  # each caption is there twice
    found = retrieval(features, features)
    assert found["R@1"].value == pytest.approx(0.5)
    assert found["R@5"].value == 1


def test_draw_of_candidates_repeats_and_does_not_depend_on_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
):
    rng = np.random.default_rng(4)
    images = rng.normal(size=(400, 6))
    texts = images + rng.normal(size=images.shape)
    whole = retrieval(images, texts, seed=1)
    monkeypatch.setattr("t2i_course.estimates.BLOCK", 5000)
    assert retrieval(images, texts, seed=1) == whole
    assert any(retrieval(images, texts, seed=s) != whole for s in (2, 3, 4))


@pytest.mark.parametrize(("pictures", "captions"), [(99, 99), (120, 121)])
def test_retrieval_needs_enough_pictures_and_their_captions(pictures: int, captions: int):
    with pytest.raises(ValueError, match="one caption for each picture"):
        retrieval(np.ones((pictures, 3)), np.ones((captions, 3)))
