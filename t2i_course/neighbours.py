"""Metrics of nearest neighbours: precision and recall of a set of pictures, and retrieval.

`t2i_course.evaluation` builds on this module, and offers its public names, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from t2i_course.estimates import (
    Estimate,
    bootstrap_interval,
    feature_pair,
    row_blocks,
    wilson_interval,
)

CANDIDATES = 64  # neighbours that are kept of a tested sample


@dataclass(frozen=True)
class PrecisionRecall:
    """Two shares that a single distance mixes.

    Attributes:
        precision: of the generated samples, how many lie where real ones do: quality.
        recall: of the real samples, how many lie where generated ones do: variety.
    """

    precision: Estimate
    recall: Estimate


def precision_recall(
    real: np.ndarray | Tensor,
    generated: np.ndarray | Tensor,
    k: int = 3,
    repeats: int = 200,
    seed: int = 0,
) -> PrecisionRecall:
    """Improved precision and recall (kynkaanniemi2019precision, equations 1 and 2).

    The manifold of a set Phi is the union of balls, one around each of its samples, that reach to
    the sample's k-th nearest neighbour in Phi, itself not counted:

        f(phi, Phi) = 1 if some phi' in Phi has ||phi - phi'|| <= ||phi' - NN_k(phi', Phi)||, else 0
        precision = mean over Phi_g of f(phi_g, Phi_r)
        recall    = mean over Phi_r of f(phi_r, Phi_g)

    Distances are computed block by block, so that memory does not grow with N M. The intervals come
    from halves of both sets (`bootstrap_interval`), and are never narrower than Wilson's.

    Args:
        real: Phi_r, [N, D].
        generated: Phi_g, [M, D].
        k: of the neighbour. Larger balls raise both shares: state it.
        repeats: of the redrawing; 0 for no intervals.
        seed: of the redrawing.

    Raises:
        ValueError: fewer than 2 k + 2 samples in a set, widths that differ, or k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: choose 1 or more, 3 as in the paper")
    real, generated = feature_pair(real, generated, 2 * k + 2)
    centre = real.mean(axis=0)  # distances keep more digits near the origin
    real, generated = real - centre, generated - centre
    rows = np.arange(len(real)), np.arange(len(generated))
    of_real, of_generated = _manifold(real, generated, k), _manifold(generated, real, k)

    def precision(real_rows: np.ndarray, generated_rows: np.ndarray) -> float:
        return of_real.share(real_rows, generated_rows, k)

    def recall(real_rows: np.ndarray, generated_rows: np.ndarray) -> float:
        return of_generated.share(generated_rows, real_rows, k)

    found = []
    for share, tested in ((precision, generated), (recall, real)):
        estimate = bootstrap_interval(share, *rows, repeats=repeats, seed=seed, halves=True)
        if estimate.interval is not None:
            low, high = wilson_interval(estimate.value, len(tested))
            interval = min(low, estimate.interval[0]), max(high, estimate.interval[1])
            interval = max(0.0, interval[0]), min(1.0, interval[1])
            estimate = Estimate(estimate.value, interval, estimate.samples)
        found.append(estimate)
    return PrecisionRecall(*found)


@dataclass(frozen=True)
class _Manifold:
    """Balls around points, and the tested samples that may lie in them, for any part of either.

    A part of the points has larger balls than all of them, so more neighbours are kept than k, and
    more candidates than those in whose ball a sample lies.

    Attributes:
        neighbours: rows of each point's nearest others, from near to far, [N, K].
        distances: to them, squared, [N, K].
        candidates: rows of the points in whose ball each tested sample most likely lies, [M, C].
        candidate_distances: to them, squared, [M, C].
    """

    neighbours: np.ndarray
    distances: np.ndarray
    candidates: np.ndarray
    candidate_distances: np.ndarray

    def share(self, points: np.ndarray, tested: np.ndarray, k: int) -> float:
        """Share of the tested rows that lie in the manifold of these rows of the points."""
        kept = np.zeros(len(self.neighbours), dtype=bool)
        kept[points] = True
        reached = kept[self.neighbours].cumsum(axis=1) >= k  # [N, K]
        reached[:, -1] = True
        radius = self.distances[np.arange(len(kept)), reached.argmax(axis=1)]  # [N]
        candidates = self.candidates[tested]  # [B, C]
        inside = self.candidate_distances[tested] <= radius[candidates]
        return float((inside & kept[candidates]).any(axis=1).mean())


def _manifold(points: np.ndarray, tested: np.ndarray, k: int) -> _Manifold:
    """Find neighbours and candidates."""
    width, number = min(8 * k + 8, len(points) - 1), min(CANDIDATES, len(points))
    neighbours = np.empty((len(points), width), dtype=np.int64)
    distances = np.empty((len(points), width))
    for part in row_blocks(len(points), len(points)):
        block = _squared_distances(points[part], points)  # [B, N]
        block[np.arange(len(block)), np.arange(part.start, part.stop)] = np.inf
        neighbours[part], distances[part] = _smallest(block, block, width)
    radius = np.maximum(distances[:, k - 1], 1e-100)  # [N]
    candidates = np.empty((len(tested), number), dtype=np.int64)
    candidate_distances = np.empty((len(tested), number))
    for part in row_blocks(len(tested), len(points)):
        block = _squared_distances(tested[part], points)  # [B, N]
        candidates[part], candidate_distances[part] = _smallest(block / radius, block, number)
    return _Manifold(neighbours, distances, candidates, candidate_distances)


def _smallest(keys: np.ndarray, values: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of each row's smallest keys, in rising order, and the values there."""
    columns = np.argpartition(keys, number - 1, axis=1)[:, :number]
    order = np.take_along_axis(keys, columns, axis=1).argsort(axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    return columns, np.take_along_axis(values, columns, axis=1)


def _squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """||a - b||^2 = ||a||^2 + ||b||^2 - 2 a . b, [B, N]; exactly 0 for equal samples."""
    norms = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)
    squared = norms - 2 * first @ second.T
    squared[squared < 1e-12 * norms] = 0  # what rounding leaves
    return squared


def retrieval(
    image_features: np.ndarray | Tensor,
    text_features: np.ndarray | Tensor,
    candidates: int = 100,
    tops: Sequence[int] = (1, 5),
    seed: int = 0,
) -> dict[str, Estimate]:
    """Does a picture find its own caption among others, by the cosine of their features?

    Each picture meets its caption and `candidates` - 1 others, drawn at random, each caption as
    often as any other. Chance is k / candidates. Among n captions that are equally near, the own
    one counts as 1 / n: features that say nothing score chance. Intervals are Wilson's.

    Args:
        image_features: [N, D], from a network that no measured generator was trained against.
        text_features: [N, D]; row i is the caption of picture i. Exchanged arguments measure the
            other direction: a caption that looks for its picture.
        candidates: captions that each picture meets.
        tops: the k of each R@k.
        seed: of the draw.

    Returns:
        {"R@1": share of pictures whose caption is the nearest, "R@5": among the nearest five}.

    Raises:
        ValueError: fewer pictures than candidates, or features that do not fit.
    """
    images, texts = feature_pair(image_features, text_features, 2)
    count, width = images.shape
    if len(texts) != count or not 2 <= candidates <= count:
        raise ValueError(
            f"{count} pictures, {len(texts)} captions and {candidates} candidates: give one "
            "caption for each picture, and at least as many as candidates"
        )
    images, texts = _unit(images), _unit(texts)
    order = np.random.default_rng(seed).permutation(count)
    place = np.argsort(order)  # [N]; the others of a picture follow it in the random order
    above, ties = np.empty(count), np.empty(count)
    for part in row_blocks(count, candidates * width):
        following = (place[part, None] + np.arange(1, candidates)) % count
        others = np.einsum("bd,bcd->bc", images[part], texts[order[following]])  # [B, C - 1]
        own = np.einsum("bd,bd->b", images[part], texts[part])[:, None]  # [B, 1]
        above[part] = (others > own + 1e-9).sum(axis=1)
        ties[part] = (np.abs(others - own) <= 1e-9).sum(axis=1)
    results = {}
    for top in tops:
        share = float(np.clip((top - above) / (1 + ties), 0, 1).mean())
        results[f"R@{top}"] = Estimate(share, wilson_interval(share, count), count)
    return results


def _unit(features: np.ndarray) -> np.ndarray:
    """Features of length 1; those of length 0 stay."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length == 0, 1, length)
