"""Is one generator better than another, or were these captions and these seeds kind to it?

    compared = paired_bootstrap(right_gan, right_style)   # scores [C], or [S, C] of several seeds
    print(compared.difference, compared.p_value)
    holm([0.01, 0.04, 0.03])                              # of several comparisons

Both generators draw the same captions, so each caption is compared with itself: what makes a
caption hard for both drops out of the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from t2i_course.evaluation import Estimate


@dataclass(frozen=True)
class Comparison:
    """What `paired_bootstrap` says."""

    difference: Estimate  # mean score of the first minus that of the second
    p_value: float  # two-sided, of no difference


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, repeats: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two generators on the same captions: bootstrap over captions, then over seeds.

    A redraw takes C captions with replacement, the same ones for both, and as many seeds of each
    generator as it has, with replacement (the pigeonhole bootstrap, owen2007pigeonhole). Redrawn
    means of S seeds vary by (S - 1) / S too little, so the seeds' means are first moved apart by
    the root of S / (S - 1): then seeds alone give the textbook variance s^2 / S.

    With one seed each the result is about these two networks. With a few it is about the method,
    and still a little too sure: simulated with three of each, whose luck outweighs all else, the
    interval holds the truth in about nine cases of ten.

    Scores are [C], or [S, C] of seeds and captions; the two need not have the same seeds. Other
    captions, none, or scores that are not finite are a ValueError.
    """
    first, second = paired_scores(first, second)
    captions, rng = first.shape[1], np.random.default_rng(seed)
    value = float(first.mean() - second.mean())
    drawn = rng.multinomial(captions, np.full(captions, 1 / captions), size=repeats)  # [B, C]
    redrawn = np.zeros(repeats)
    for sign, scores in ((1, first), (-1, second)):
        seeds = len(scores)
        if seeds > 1:
            luck = scores.mean(axis=1, keepdims=True) - scores.mean()  # of each seed, [S, 1]
            scores = scores + luck * (np.sqrt(seeds / (seeds - 1)) - 1)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=repeats)  # [B, S]
        redrawn += sign * ((weights @ scores) * drawn).sum(axis=1) / (seeds * captions)
    low, high = (float(end) for end in np.quantile(redrawn, [0.025, 0.975]))
    beyond = 1 + min((redrawn <= 0).sum(), (redrawn >= 0).sum())
    interval = min(low, value), max(high, value)
    return Comparison(Estimate(value, interval, captions), min(1.0, 2 * beyond / (repeats + 1)))


def paired_scores(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as finite [seeds, captions], of the same captions."""
    first, second = (np.atleast_2d(np.asarray(scores, dtype=float)) for scores in (first, second))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.size:
        raise ValueError(
            f"scores {list(first.shape)} and {list(second.shape)}: give [seeds, captions] of the "
            "same captions"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a score is not finite: every caption needs one from both generators")
    return first, second


def seed_interval(
    values: Sequence[float] | np.ndarray, least: float = -np.inf, greatest: float = np.inf
) -> tuple[float, float] | None:
    """Student's interval of the mean of some seeds' values at 95 %, cut at the metric's limits.

    None of a single value.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return None
    margin = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    mean = values.mean()
    return float(max(mean - margin, least)), float(min(mean + margin, greatest))


def sign_test(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p-value of right-or-wrong answers to the same captions (mcnemar1947note).

    Only captions on which the two differ tell anything: if neither is better, each of these is won
    by either with probability 1/2, and the number of wins is binomial. Both are [C], True where
    right.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values that may be compared with 0.05 though there are several of them (holm1979simple).

    The smallest of K is multiplied by K, the next by K - 1, and so on, none falls below one before
    it: then the chance of any false finding at all is 5 % at most.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    return adjusted
