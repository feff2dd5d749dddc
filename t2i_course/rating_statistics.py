"""What people's answers say, and how sure it is.

Ratings stand in a table [raters, pictures], with NaN where a rater did not see a picture. Choices
between two pictures stand in a table of wins [sources, sources]: how often the row's picture was
chosen over the column's. Every number comes with an interval at 95 %, and every docstring says what
the interval takes for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse.csgraph import connected_components

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
MM_STEPS = 100_000
MM_TOLERANCE = 1e-10
METRICS = ("nominal", "ordinal", "interval")


@dataclass(frozen=True)
class Estimate:
    """A number with its interval at 95 %."""

    value: float
    low: float
    high: float


# Mean opinion score


def mean_opinion_score(
    ratings: np.ndarray, over: str = "raters", repeats: int = 2000, seed: int = 0
) -> Estimate:
    """Average the ratings of one model's pictures (Streijl, Winkler and Hands, 2016).

    The ratings of one rater resemble each other, and so do those of one picture: they are not as
    many independent measurements. `over` says what would be drawn anew if the study were repeated.

    - "raters": other people, the same pictures. Student's t interval over the raters' parts of the
      mean, with raters - 1 degrees of freedom. If all rated as many pictures, that is the textbook
      interval of the raters' means m_r: mean +- t * s(m_r) / sqrt(raters).
    - "pictures": the same people, other pictures. The same over pictures; it serves a single rater.
    - "both": other people, other pictures. The pigeonhole bootstrap (Owen, 2007): raters and
      pictures are both drawn with replacement, and the interval is the middle 95 % of the means.
      Too narrow for fewer than about ten of either.

    The difference of two tables of the same raters and pictures is such a table, too: then this is
    the mean difference of two models, with its interval.

    Args:
        ratings: [R, U], NaN where missing.
        over: "raters", "pictures" or "both".
        repeats: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: no ratings, or fewer than two raters (or pictures) with ratings.
    """
    ratings = _table(ratings)
    given = np.isfinite(ratings)
    value = float(ratings[given].mean())
    if over == "both":
        return Estimate(value, *_pigeonhole_bootstrap(ratings, repeats, seed))
    if over not in ("raters", "pictures"):
        raise ValueError(f'over is "raters", "pictures" or "both", not {over!r}')

    axis = 1 if over == "raters" else 0
    n = int(given.any(axis=axis).sum())
    if n < 2:
        other = "pictures" if over == "raters" else "raters"
        raise ValueError(f'an interval over {over} needs two of them, not {n}; try over="{other}"')
    # Each one's share of the mean's error: sum of the ratings' distances from the mean
    shares = np.nansum(ratings - value, axis=axis) / given.sum()
    error = np.sqrt(n / (n - 1) * np.sum(shares**2))
    reach = stats.t.ppf(TAILS[1], df=n - 1) * error
    return Estimate(value, float(value - reach), float(value + reach))


def _pigeonhole_bootstrap(ratings: np.ndarray, repeats: int, seed: int) -> tuple[float, float]:
    """Draw raters and pictures anew; a rating counts as often as both of them were drawn."""
    rng = np.random.default_rng(seed)
    raters, pictures = ratings.shape
    row_draws = rng.multinomial(raters, np.full(raters, 1 / raters), size=repeats)  # [B, R]
    column_draws = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=repeats)
    given = np.isfinite(ratings).astype(float)
    sums = np.einsum("br,ru,bu->b", row_draws, np.nan_to_num(ratings), column_draws, optimize=True)
    counts = np.einsum("br,ru,bu->b", row_draws, given, column_draws, optimize=True)
    low, high = np.quantile(sums[counts > 0] / counts[counts > 0], TAILS)
    return float(low), float(high)


# Choices between two


def win_rate(wins: int, choices: int) -> Estimate:
    """Return how often one of two was chosen, with Wilson's score interval (1927).

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   z = 1.96

    It takes every choice for independent of the others. Where raters differ in taste and each
    chooses many times, `bootstrap_raters` is the more honest.

    Args:
        wins: how often it was chosen.
        choices: how often anything was chosen.

    Raises:
        ValueError: no choices, or more wins than choices.
    """
    if choices < 1 or not 0 <= wins <= choices:
        raise ValueError(f"{wins} wins in {choices} choices: there is no such win rate")
    interval = stats.binomtest(int(wins), int(choices)).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(wins / choices, float(interval.low), float(interval.high))


def bootstrap_raters(
    statistic: Callable[[np.ndarray], float],
    tables: np.ndarray,
    repeats: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Put an interval around a statistic of summed tables by drawing the raters anew.

    Args:
        statistic: turns a sum of tables into a number.
        tables: [R, ...]: one for each rater, such as their wins [R, S, S].
        repeats: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two raters, or the statistic raises it.
    """
    tables = np.asarray(tables)
    if len(tables) < 2:
        raise ValueError(f"a bootstrap over raters needs two of them, not {len(tables)}")
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(tables), size=(repeats, len(tables)))
    values = [statistic(tables[draw].sum(axis=0)) for draw in draws]
    low, high = np.quantile(values, TAILS)
    return Estimate(float(statistic(tables.sum(axis=0))), float(low), float(high))


@dataclass(frozen=True)
class BradleyTerry:
    """Strengths of several sources, from choices between two at a time.

    Attributes:
        names: of the S sources.
        log_strengths: [S], with mean 0.
        covariance: [S, S] of the log-strengths.
        intervals: [S, 2], at 95 %.
    """

    names: tuple[str, ...]
    log_strengths: np.ndarray
    covariance: np.ndarray
    intervals: np.ndarray

    def beats(self, first: str, second: str) -> Estimate:
        """Return the probability that the first is chosen over the second."""
        i, j = self.names.index(first), self.names.index(second)
        gap = self.log_strengths[i] - self.log_strengths[j]
        variance = self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j]
        reach = stats.norm.ppf(TAILS[1]) * np.sqrt(max(variance, 0.0))
        return Estimate(*(float(1 / (1 + np.exp(-x))) for x in (gap, gap - reach, gap + reach)))


def bradley_terry(wins: np.ndarray, names: Sequence[str] | None = None) -> BradleyTerry:
    """Fit the model of Bradley and Terry (1952): P(i is chosen over j) = g_i / (g_i + g_j).

    The likelihood's maximum is found by the MM algorithm (Hunter, 2004, equation 3): with n_ij
    choices between i and j,

        g_i <- wins_i / sum_j n_ij / (g_i + g_j)

    and the intervals come from the Fisher information of the log-strengths: -n_ij p_ij p_ji off its
    diagonal, rows that sum to 0. Its pseudo-inverse is their covariance when their mean is held at
    0. Choices are taken for independent of each other.

    Args:
        wins: [S, S], how often the row was chosen over the column; the diagonal is 0.
        names: of the sources, "0", "1" and so on if None.

    Raises:
        ValueError: the table is not one of wins, or some sources never lost to the others (or were
            never compared with them), so that no finite strengths exist (Hunter's assumption 1).
    """
    wins = np.asarray(wins, dtype=float)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or len(wins) < 2:
        raise ValueError(f"need a table of wins [S, S] of two or more, got {list(wins.shape)}")
    if not np.isfinite(wins).all() or (wins < 0).any() or np.diag(wins).any():
        raise ValueError("a table of wins holds counts, and zeros on its diagonal")
    names = tuple(map(str, range(len(wins)))) if names is None else tuple(names)
    if len(names) != len(wins):
        raise ValueError(f"{len(names)} names for {len(wins)} sources")
    _need_connected(wins, names)

    choices = wins + wins.T
    strengths = np.ones(len(wins))
    for _ in range(MM_STEPS):
        previous = strengths
        strengths = wins.sum(axis=1) / (choices / np.add.outer(previous, previous)).sum(axis=1)
        strengths /= np.exp(np.log(strengths).mean())
        if np.abs(np.log(strengths / previous)).max() < MM_TOLERANCE:
            break
    else:
        raise ValueError(f"the strengths did not settle in {MM_STEPS} steps: too few upsets")

    chance = strengths[:, None] / np.add.outer(strengths, strengths)  # [S, S], P(i over j)
    information = -choices * chance * chance.T
    np.fill_diagonal(information, -information.sum(axis=1))
    covariance = np.linalg.pinv(information, hermitian=True)
    middle = np.log(strengths)
    reach = stats.norm.ppf(TAILS[1]) * np.sqrt(np.diag(covariance))
    return BradleyTerry(names, middle, covariance, np.stack([middle - reach, middle + reach], 1))


def _need_connected(wins: np.ndarray, names: Sequence[str]) -> None:
    """Raise unless a chain of wins leads from every source to every other."""
    count, group = connected_components(wins > 0, directed=True, connection="strong")
    if count == 1:
        return
    for label in np.argsort(np.bincount(group)):  # the smallest group that lacks a chain
        inside = group == label
        lost, won = wins[~inside][:, inside].any(), wins[inside][:, ~inside].any()
        if not (lost and won):
            members = ", ".join(name for name, is_in in zip(names, inside, strict=True) if is_in)
            raise ValueError(
                f"no finite strengths: {members} never {'won' if lost else 'lost'} against the "
                "others. Gather more choices, or report win rates"
            )


# Agreement


def krippendorff_alpha(ratings: np.ndarray, metric: str = "ordinal") -> float:
    """Return the agreement of the raters by Krippendorff's alpha (2011).

        alpha = 1 - D_observed / D_expected

    D_observed is the mean squared difference of two ratings of the same picture, D_expected that of
    any two ratings. 1 is perfect agreement, 0 what dice would give, below 0 systematic
    disagreement. Pictures with one rating only do not count.

    Args:
        ratings: [R, U], NaN where missing.
        metric: of the squared difference of two values: "nominal" (the same or not), "ordinal" (how
            many ratings lie between them), "interval" (their distance).

    Raises:
        ValueError: no picture has two ratings, or all of those ratings are the same.
    """
    values, coincidences = coincidence_matrix(ratings)
    totals = coincidences.sum(axis=1)  # [V], ratings of each value
    n = totals.sum()
    differences = squared_differences(values, totals, metric)
    observed = (coincidences * differences).sum() / n
    expected = (np.outer(totals, totals) * differences).sum() / (n * (n - 1))
    if expected == 0:
        raise ValueError(f"all ratings are {values[0]:g}: without variation alpha is not defined")
    return float(1 - observed / expected)


def coincidence_matrix(ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the pairs of values that two raters gave to the same picture.

    Args:
        ratings: [R, U], NaN where missing.

    Returns:
        The values that occur [V], ascending, and the pairs [V, V]. A picture with m ratings adds
        m (m - 1) ordered pairs, each weighing 1 / (m - 1).

    Raises:
        ValueError: no picture has two ratings.
    """
    ratings = _table(ratings)
    ratings = ratings[:, np.isfinite(ratings).sum(axis=0) >= 2]
    if ratings.size == 0:
        raise ValueError("no picture has ratings by two raters: there is no agreement to measure")
    values = np.unique(ratings[np.isfinite(ratings)])
    counts = (ratings[:, :, None] == values).sum(axis=0)  # [U, V], raters who gave the value
    weights = 1 / (counts.sum(axis=1) - 1)  # [U]
    pairs = np.einsum("u,uv,uw->vw", weights, counts, counts)
    return values, pairs - np.diag(weights @ counts)  # no rating is paired with itself


def squared_differences(values: np.ndarray, totals: np.ndarray, metric: str) -> np.ndarray:
    """Return the squared differences [V, V] of the values, by a metric.

    Args:
        values: [V], ascending.
        totals: [V], how many ratings have each value.
        metric: "nominal", "ordinal" or "interval".
    """
    if metric not in METRICS:
        raise ValueError(f"metric is one of {', '.join(METRICS)}, not {metric!r}")
    if metric == "nominal":
        return 1.0 - np.eye(len(values))
    # Ordinal values lie at their middle ranks: n_c / 2 + ... + n_k / 2 ratings apart
    places = values if metric == "interval" else np.cumsum(totals) - totals / 2
    return np.subtract.outer(places, places) ** 2


def alpha_interval(
    ratings: np.ndarray, metric: str = "ordinal", repeats: int = 1000, seed: int = 0
) -> Estimate:
    """Return Krippendorff's alpha with a bootstrap interval over pictures (Zapf et al., 2016).

    Pictures are drawn with replacement. A draw in which alpha is not defined is left out.

    Raises:
        ValueError: as `krippendorff_alpha`.
    """
    value = krippendorff_alpha(ratings, metric)
    ratings = _table(ratings)
    ratings = ratings[:, np.isfinite(ratings).sum(axis=0) >= 2]
    rng = np.random.default_rng(seed)
    alphas = []
    for _ in range(repeats):
        drawn = ratings[:, rng.integers(ratings.shape[1], size=ratings.shape[1])]
        if np.nanmin(drawn) < np.nanmax(drawn):
            alphas.append(krippendorff_alpha(drawn, metric))
    low, high = np.quantile(alphas, TAILS)
    return Estimate(value, float(low), float(high))


def _table(ratings: np.ndarray) -> np.ndarray:
    """Return the ratings as floats [R, U]; at least one must be there."""
    ratings = np.asarray(ratings, dtype=float)
    if ratings.ndim != 2:
        raise ValueError(f"need ratings [raters, pictures], got shape {list(ratings.shape)}")
    if np.isinf(ratings).any():
        raise ValueError("a rating is infinite; a missing one is NaN")
    if np.isnan(ratings).all():
        raise ValueError("the table holds no ratings")
    return ratings
