"""How far drawn pictures are from real ones: numbers from features, each with an interval.

    frechet           distance of means and covariances; biased upwards, by about 1 / N
    kernel_distance   polynomial MMD; unbiased at any N
    precision_recall  share of generated samples that look real, of real ones that can be drawn
    retrieval         does a picture find its caption among 100?

Each takes features, arrays or tensors [N, D], of real and of generated pictures, as
`metrics.picture_features` extracts them, and computes in float64. The Frechet distance is called
FID on Inception's features alone (`metrics.inception`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

BLOCK = 2**23  # elements of a matrix that are in memory at a time: 64 MB
NORMAL_95 = 1.959964  # 95 % of a normal distribution lie within so many standard deviations
CANDIDATES = 64  # neighbours that are kept of a tested sample


@dataclass(frozen=True)
class Estimate:
    """A measured number."""

    value: float  # of the whole samples
    interval: tuple[float, float] | None  # low and high at 95 %; None if it was not asked for
    samples: int  # on how many samples it rests, of the smaller set

    low = property(lambda self: self.interval[0])
    high = property(lambda self: self.interval[1])

    def __str__(self) -> str:
        """Four digits, and the interval."""
        if self.interval is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


# Intervals


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    repeats: int = 200,
    seed: int = 0,
    halves: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Draw from the samples again and again, and see how much a statistic varies.

    The spread of the redrawn statistics about their own mean is laid around the value, so that the
    bias that the Frechet distance has at N, and twice on redrawn samples, does not shift it.

    Args:
        statistic: of the samples, in their order; a redraw on which it is NaN does not count.
        samples: one or more, each redrawn by itself along its first axis.
        repeats: how often; 0 leaves the interval out.
        seed: of the draws.
        halves: draw half of each sample without replacement: no sample occurs twice, as statistics
            of neighbours need, and for means the spread is the same (Shao and Wu, 1989).
        limits: least and greatest value that the statistic can have; (0, 1) for a share.
    """
    value, size = float(statistic(*samples)), min(map(len, samples))
    if repeats == 0:
        return Estimate(value, None, size)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(repeats):
        rows = [
            rng.permutation(len(s))[: len(s) // 2] if halves else rng.integers(len(s), size=len(s))
            for s in samples
        ]
        drawn.append(statistic(*(s[row] for s, row in zip(samples, rows, strict=True))))
    low, high = value + np.nanquantile(drawn, [0.025, 0.975]) - np.nanmean(drawn)
    low, high = max(float(low), limits[0]), min(float(high), limits[1])
    return Estimate(value, (min(low, value), max(high, value)), size)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Interval of a share at 95 % (Wilson, 1927); it has a width at 0 and 1, too."""
    z2 = NORMAL_95**2 / count
    centre = (share + z2 / 2) / (1 + z2)
    margin = math.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin))


# Features


def feature_matrix(features: np.ndarray | Tensor) -> np.ndarray:
    """Features as a finite matrix."""
    features = features.detach().cpu().numpy() if isinstance(features, Tensor) else features
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features have the shape {features.shape}: give [samples, features]")
    if not np.isfinite(features).all():
        raise ValueError("features are not finite: look for NaN in the pictures or the weights")
    return features


def feature_pair(
    first: np.ndarray | Tensor, second: np.ndarray | Tensor, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features as float64, of one width and with enough samples."""
    first, second = (feature_matrix(f).astype(np.float64) for f in (first, second))
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"one set has {first.shape[1]} features, the other {second.shape[1]}: use one extractor"
        )
    if min(len(first), len(second)) < least:
        raise ValueError(f"{len(first)} and {len(second)} samples: {least} of each are needed")
    return first, second


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut a matrix into blocks of rows that fit into memory."""
    step = max(1, BLOCK // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


# Frechet distance


class FeatureStatistics(NamedTuple):
    """The Gaussian that stands for a set of pictures."""

    mean: np.ndarray  # mu, float64 [D]
    covariance: np.ndarray  # Sigma, float64 [D, D], with the divisor N - 1
    count: int  # N


def statistics(features: np.ndarray | Tensor, allow_few: bool = False) -> FeatureStatistics:
    """Mean and covariance of features [N, D].

    Raises:
        ValueError: features that are not a finite matrix; or N <= D, unless `allow_few`: a Frechet
            distance would measure the number of samples.
    """
    features = feature_matrix(features)
    check_count(features, allow_few)
    count, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)  # [D]
    covariance = np.zeros((width, width))
    for rows in row_blocks(count, width):
        centred = features[rows] - mean  # [B, D]
        covariance += centred.T @ centred
    return FeatureStatistics(mean, covariance / (count - 1), count)


def check_count(features: np.ndarray, allow_few: bool) -> None:
    """Raise ValueError if the features are too few for a covariance."""
    count, width = features.shape
    if count < 2 or (count <= width and not allow_few):
        raise ValueError(
            f"{count} samples of {width} features say nothing of a covariance, whose rank would be "
            f"{count - 1}: give more than {width}, better ten times as many, or use "
            "kernel_distance, which is unbiased at any number"
        )


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Squared Frechet distance of two Gaussians (heusel2017fid, equation 6).

        d^2 = ||mu_1 - mu_2||^2 + Tr(Sigma_1 + Sigma_2 - 2 (Sigma_1 Sigma_2)^(1/2))

    The trace of the root is the sum of the roots of the eigenvalues of Sigma_1 Sigma_2. That
    product is not symmetric; but with Sigma_1 = F F^T its eigenvalues are those of F^T Sigma_2 F,
    which is: they are real, not negative, and found several times faster. Means are [D],
    covariances [D, D].

    Raises:
        ValueError: shapes that do not fit, or covariances that are not finite or not symmetric.
    """
    mean1, mean2 = (np.asarray(m, dtype=np.float64) for m in (mean1, mean2))
    covariance1, covariance2 = (np.asarray(c, np.float64) for c in (covariance1, covariance2))
    shapes = [array.shape for array in (mean1, mean2, covariance1, covariance2)]
    if mean1.ndim != 1 or shapes != [mean1.shape] * 2 + [mean1.shape * 2] * 2:
        raise ValueError(f"means and covariances do not fit: they have the shapes {shapes}")
    for covariance in (covariance1, covariance2):
        largest = np.abs(covariance).max()
        if not np.isfinite(largest) or not np.allclose(covariance, covariance.T, 0, 1e-8 * largest):
            raise ValueError("a covariance is not symmetric, or not finite: check the features")
    factor = _factor(covariance1)
    eigenvalues = np.linalg.eigvalsh(factor.T @ covariance2 @ factor)  # [D]
    root = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    difference = mean1 - mean2
    squared = difference @ difference + np.trace(covariance1) + np.trace(covariance2) - 2 * root
    return max(0.0, float(squared))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F with F F^T = Sigma: Cholesky's, or by eigenvectors where Sigma has no inverse."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0))


def frechet(
    real: np.ndarray | Tensor,
    generated: np.ndarray | Tensor,
    repeats: int = 200,
    allow_few: bool = False,
) -> Estimate:
    """Frechet distance of features, with a bootstrap interval.

    Of [N, D] and [M, D], see `statistics`; without an interval for 0 repeats, of which each takes
    seconds with 2,048 features.
    """

    def distance(*drawn: np.ndarray) -> float:
        first, second = (statistics(features, allow_few) for features in drawn)
        return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)

    sets = feature_matrix(real), feature_matrix(generated)
    return bootstrap_interval(distance, *sets, repeats=repeats, limits=(0, math.inf))


# Kernel distance


def kernel_distance(real: np.ndarray | Tensor, generated: np.ndarray | Tensor) -> Estimate:
    """Squared maximum mean discrepancy with a cubic kernel (KID on Inception's features).

        k(x, y) = (x . y / D + 1)^3
        MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    binkowski2018kid, equation 4. Without i = j it is unbiased at any N, and may be negative. The
    paper averages random subsets of 1,000; all samples are used here, the limit of ever more
    subsets. Interval: the jackknife, which leaves one sample out at a time, in closed form. Takes
    x [N, D] and y [M, D]; fewer than three samples in a set are a ValueError.
    """
    x, y = feature_pair(real, generated, 3)
    within_x, within_y = _kernel_sums(x, x)[0], _kernel_sums(y, y)[0]  # [N], [M]
    across_x, across_y = _kernel_sums(x, y)  # [N], [M]
    n, m, across = len(x), len(y), across_x.sum()
    terms = within_x.sum() / (n * (n - 1)), within_y.sum() / (m * (m - 1)), across / (n * m)
    value = float(terms[0] + terms[1] - 2 * terms[2])
    variance = 0.0
    for k, inside, outside in ((n, within_x, across_x), (m, within_y, across_y)):
        other = n + m - k
        without = (inside.sum() - 2 * inside) / ((k - 1) * (k - 2))  # [k]: sample i left out
        without -= 2 * (across - outside) / ((k - 1) * other)
        variance += (k - 1) * without.var()
    margin = NORMAL_95 * math.sqrt(variance)
    return Estimate(value, (value - margin, value + margin), min(n, m))


def _kernel_sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row sums [N] and column sums [M] of k(x_i, y_j); without i = j if y is x."""
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    for part in row_blocks(len(x), len(y)):
        kernel = (x[part] @ y.T / x.shape[1] + 1) ** 3  # [B, M]
        if y is x:
            kernel[np.arange(len(kernel)), np.arange(part.start, part.stop)] = 0
        rows[part] = kernel.sum(axis=1)
        columns += kernel.sum(axis=0)
    return rows, columns


# Precision, recall and retrieval: metrics of nearest neighbours


class PrecisionRecall(NamedTuple):
    """Two shares that a single distance mixes: of quality and of variety."""

    precision: Estimate  # of the generated samples, how many lie where real ones do
    recall: Estimate  # of the real samples, how many lie where generated ones do


def precision_recall(
    real: np.ndarray | Tensor,
    generated: np.ndarray | Tensor,
    k: int = 3,
    repeats: int = 200,
) -> PrecisionRecall:
    """Improved precision and recall (kynkaanniemi2019precision, equations 1 and 2).

    The manifold of a set Phi is the union of balls around its samples, each as far as to the
    sample's k-th nearest neighbour in Phi:

        f(phi, Phi) = 1 if some phi' in Phi has ||phi - phi'|| <= ||phi' - NN_k(phi', Phi)||, else 0
        precision = mean over Phi_g of f(phi_g, Phi_r)
        recall    = mean over Phi_r of f(phi_r, Phi_g)

    Memory does not grow with N M. The intervals come from halves of both sets
    (`bootstrap_interval`), and are never narrower than Wilson's. Larger k raise both shares: state
    it. Takes Phi_r [N, D] and Phi_g [M, D]; fewer than 2 k + 2 samples in a set are a ValueError.
    """
    real, generated = feature_pair(real, generated, 2 * k + 2)
    centre = real.mean(axis=0)  # distances keep more digits near the origin
    real, generated = real - centre, generated - centre
    rows = np.arange(len(real)), np.arange(len(generated))
    of_real, of_generated = _manifold(real, generated, k), _manifold(generated, real, k)
    found = []
    for share, tested in (
        (lambda r, g: of_real.share(r, g, k), generated),
        (lambda r, g: of_generated.share(g, r, k), real),
    ):
        estimate = bootstrap_interval(share, *rows, repeats=repeats, halves=True, limits=(0, 1))
        if estimate.interval is not None:
            low, high = wilson_interval(estimate.value, len(tested))
            interval = min(low, estimate.low), max(high, estimate.high)
            estimate = Estimate(estimate.value, interval, estimate.samples)
        found.append(estimate)
    return PrecisionRecall(*found)


@dataclass(frozen=True)
class _Manifold:
    """Balls around points, and the tested samples that may lie in them, for any part of either.

    Fewer points have larger balls, so more neighbours are kept than k, and more candidates than
    those in whose ball a sample lies. Distances are squared.
    """

    neighbours: np.ndarray  # rows of each point's nearest others, from near to far, [N, K]
    distances: np.ndarray  # [N, K]
    candidates: np.ndarray  # rows of points in whose ball a tested sample may lie, [M, C]
    candidate_distances: np.ndarray  # [M, C]

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
) -> dict[str, Estimate]:
    """Does a picture find its own caption among others, by the cosine of their features?

    Each picture meets its caption and `candidates` - 1 others, each caption as often as any other.
    Chance is k / candidates, also for features that say nothing: among n captions that are equally
    near, the own one counts as 1 / n. Intervals are Wilson's.

    Features are [N, D], from a network that no measured generator was trained against; row i of
    the text is the caption of picture i.

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
    order = np.random.default_rng(0).permutation(count)
    place = np.argsort(order)  # [N]; the others of a picture follow it in the random order
    above, ties = np.empty(count), np.empty(count)
    for part in row_blocks(count, candidates * width):
        following = (place[part, None] + np.arange(1, candidates)) % count
        others = np.einsum("bd,bcd->bc", images[part], texts[order[following]])  # [B, C - 1]
        own = np.einsum("bd,bd->b", images[part], texts[part])[:, None]  # [B, 1]
        above[part] = (others > own + 1e-9).sum(axis=1)
        ties[part] = (np.abs(others - own) <= 1e-9).sum(axis=1)
    results = {}
    for top in (1, 5):
        share = float(np.clip((top - above) / (1 + ties), 0, 1).mean())
        results[f"R@{top}"] = Estimate(share, wilson_interval(share, count), count)
    return results


def _unit(features: np.ndarray) -> np.ndarray:
    """Features of length 1; those of length 0 stay."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length == 0, 1, length)
