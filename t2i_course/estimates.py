"""A number with its interval, and what the metrics of features have in common.

`t2i_course.evaluation` builds on this module, and offers its public names, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

BLOCK = 2**23  # elements of a matrix that are in memory at a time: 64 MB
NORMAL_95 = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: of the whole samples.
        interval: (low, high) at 95 %; None if it was not asked for.
        samples: on how many samples it rests, of the smaller set.
    """

    value: float
    interval: tuple[float, float] | None
    samples: int

    def __str__(self) -> str:
        """The number, and its interval."""
        if self.interval is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} ({self.interval[0]:.4g} to {self.interval[1]:.4g})"


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

    The spread of the redrawn statistics about their own mean is laid around the value. So the
    interval is one for what the statistic is on average at this number of samples: the bias that
    the Frechet distance has at N, and has twice on redrawn samples, does not shift it.

    Args:
        statistic: of the samples, in their order.
        samples: one or more, each redrawn by itself along its first axis.
        repeats: how often; 0 leaves the interval out.
        seed: of the draws.
        halves: draw half of each sample without replacement, in place of all of it with
            replacement. For means the spread is the same (the jackknife that leaves half out; Shao
            and Wu, 1989), and no sample occurs twice, which statistics of neighbours need.
        limits: least and greatest value that the statistic can have, such as (0, 1) for a share;
            the interval is cut off there.
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
    low, high = value + np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn)
    low, high = max(float(low), limits[0]), min(float(high), limits[1])
    return Estimate(value, (min(low, value), max(high, value)), size)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Interval of a share at 95 % (Wilson, 1927); it has a width at 0 and 1, too.

    Args:
        share: of `count` trials, 0 to 1.
        count: number of trials.
    """
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
