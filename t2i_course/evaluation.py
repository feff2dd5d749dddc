"""How far drawn pictures are from real ones: numbers from features, each with an interval.

    features of real and generated pictures, [N, D] and [M, D] (`metrics.picture_features`)
    frechet           distance of their means and covariances; biased upwards, by about 1 / N
    kernel_distance   polynomial MMD; unbiased at any N
    precision_recall  share of generated samples that look real, of real ones that can be drawn
    retrieval         does a picture find its caption among 100?

The Frechet distance is called FID on Inception's features alone (`t2i_course.fid`). Everything here
takes any features, arrays or tensors, and computes in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from t2i_course.estimates import (
    NORMAL_95,
    Estimate,
    bootstrap_interval,
    feature_matrix,
    feature_pair,
    row_blocks,
    wilson_interval,
)
from t2i_course.metrics.picture_features import (
    cached_arrays,
    cached_features,
    check_pictures,
    extract_features,
    read_pictures,
)
from t2i_course.neighbours import PrecisionRecall, precision_recall, retrieval

__all__ = [
    "Estimate",
    "FeatureStatistics",
    "PrecisionRecall",
    "bootstrap_interval",
    "cached_features",
    "cached_statistics",
    "check_pictures",
    "extract_features",
    "frechet",
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
    "read_pictures",
    "retrieval",
    "statistics",
    "wilson_interval",
]


# Frechet distance


@dataclass(frozen=True)
class FeatureStatistics:
    """The Gaussian that stands for a set of pictures.

    Attributes:
        mean: mu, float64 [D].
        covariance: Sigma, float64 [D, D], with the divisor N - 1.
        count: N.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def statistics(features: np.ndarray | Tensor, allow_few: bool = False) -> FeatureStatistics:
    """Mean and covariance of features [N, D].

    Args:
        features: of N pictures.
        allow_few: take N <= D, too, to show what comes of it.

    Raises:
        ValueError: N <= D: the covariance has no inverse, and a Frechet distance from it measures
            the number of samples; or features that are not a finite matrix.
    """
    features = feature_matrix(features)
    _check_count(features, allow_few)
    count, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)  # [D]
    covariance = np.zeros((width, width))
    for rows in row_blocks(count, width):
        centred = features[rows] - mean  # [B, D]
        covariance += centred.T @ centred
    return FeatureStatistics(mean, covariance / (count - 1), count)


def _check_count(features: np.ndarray, allow_few: bool) -> None:
    """Raise ValueError if the features are too few for a covariance."""
    count, width = features.shape
    if count < 2 or (count <= width and not allow_few):
        raise ValueError(
            f"{count} samples of {width} features say nothing of a covariance, whose rank would be "
            f"{count - 1}: give more than {width}, better ten times as many, or use "
            "kernel_distance, which is unbiased at any number"
        )


def cached_statistics(
    key: str, make: Callable[[], np.ndarray], folder: str | Path | None = None
) -> FeatureStatistics:
    """Return the statistics of that key; compute and keep them the first time.

    Args:
        key: all that they depend on: pictures, their number, the extractor's fingerprint.
        make: computes the features [N, D].
        folder: of the cache; `cache/features` in the data folder by default.

    Raises:
        ValueError: see `statistics`.
    """

    def arrays() -> dict[str, np.ndarray]:
        found = statistics(make())
        return {"mean": found.mean, "covariance": found.covariance, "count": np.array(found.count)}

    kept = cached_arrays(f"statistics: {key}", arrays, folder)
    return FeatureStatistics(kept["mean"], kept["covariance"], int(kept["count"]))


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Squared Frechet distance of two Gaussians (heusel2017fid, equation 6).

        d^2 = ||mu_1 - mu_2||^2 + Tr(Sigma_1 + Sigma_2 - 2 (Sigma_1 Sigma_2)^(1/2))

    The trace of the root is the sum of the roots of the eigenvalues of Sigma_1 Sigma_2. That
    product is not symmetric; but with Sigma_1 = F F^T its eigenvalues are those of F^T Sigma_2 F,
    which is: they are real, not negative, and found several times faster.

    Args:
        mean1: mu_1, [D].
        covariance1: Sigma_1, [D, D].
        mean2: mu_2, [D].
        covariance2: Sigma_2, [D, D].

    Returns:
        d^2; 0 for equal Gaussians.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or no covariance matrix.
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
    if eigenvalues[0] < -1e-6 * max(eigenvalues[-1], 0.0):
        raise ValueError("the second covariance has negative eigenvalues: it is none")
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
        if values[0] < -1e-6 * max(values[-1], 0.0):
            raise ValueError("the first covariance has negative eigenvalues: it is none") from None
        return vectors * np.sqrt(np.maximum(values, 0))


def frechet(
    real: np.ndarray | Tensor | FeatureStatistics,
    generated: np.ndarray | Tensor,
    repeats: int = 200,
    seed: int = 0,
    allow_few: bool = False,
) -> Estimate:
    """Frechet distance of features, with a bootstrap interval.

    Args:
        real: features [N, D], or their kept statistics; those are not redrawn, and the interval is
            then for this one real set.
        generated: features [M, D].
        repeats: of the bootstrap; 0 for no interval. With 2,048 features each takes seconds.
        seed: of the bootstrap.
        allow_few: see `statistics`.

    Raises:
        ValueError: see `statistics` and `frechet_distance`.
    """
    sets = [feature_matrix(generated)]
    if not isinstance(real, FeatureStatistics):
        sets.insert(0, feature_matrix(real))
    for features in sets:
        _check_count(features, allow_few)

    def distance(*drawn: np.ndarray) -> float:
        found = [statistics(features, allow_few=True) for features in drawn]
        first = real if isinstance(real, FeatureStatistics) else found[0]
        second = found[-1]
        return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)

    found = bootstrap_interval(distance, *sets, repeats=repeats, seed=seed)
    if found.interval is None:
        return found
    return Estimate(found.value, (max(0.0, found.interval[0]), found.interval[1]), found.samples)


# Kernel distance


def kernel_distance(real: np.ndarray | Tensor, generated: np.ndarray | Tensor) -> Estimate:
    """Squared maximum mean discrepancy with a cubic kernel (KID on Inception's features).

        k(x, y) = (x . y / D + 1)^3
        MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    binkowski2018kid, equation 4. It leaves out i = j, so it is unbiased at any N, and may be
    negative where the sets are alike. The paper averages random subsets of 1,000; all of the
    samples are used here, which is the limit of ever more subsets. Interval: the jackknife, which
    leaves one sample out at a time and has a closed form.

    Args:
        real: x, [N, D].
        generated: y, [M, D].

    Raises:
        ValueError: fewer than three samples in a set, or widths that differ.
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
