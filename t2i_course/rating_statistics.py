"""What people's answers to a user study say, and how sure it is.

    mean_opinion_score(rating_table(answers, "quality", "baseline"))
    agreement(rating_table(answers, "quality"))
    bradley_terry(answers)

Ratings stand in a table [raters, pictures], with NaN where a rater did not see a picture. Every
interval is at 95 %, and every docstring says what it takes for granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import krippendorff
import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse.csgraph import connected_components

from t2i_course.evaluation import NORMAL_95, Estimate, bootstrap_interval
from t2i_course.user_study import POINTS, QUESTIONS, SIMULATED, Answer, Study

MM_STEPS, MM_TOLERANCE = 100_000, 1e-10


# Tables


def rating_table(answers: Iterable[Answer], question: str, source: str | None = None) -> np.ndarray:
    """Lay ratings of one question, "quality" or "fit", out as a table.

    Returns:
        [raters, captions] of that source's pictures; or [raters, pictures] of all sources, each
        picture a column of its own, as `agreement` wants them. NaN where there is no answer. Tables
        of two sources have the same rows and columns, so that they may be subtracted.

    Raises:
        ValueError: no such ratings, or answers to several studies.
    """
    answers = _of_one_study(answers, sources=1)
    if question not in QUESTIONS:
        raise ValueError(f"question is one of {', '.join(QUESTIONS)}, not {question!r}")
    given = pd.DataFrame([(a.rater, a.sources[0], a.item, a.scores[question]) for a in answers])
    table = given.pivot(index=0, columns=[2, 1], values=3).sort_index(axis=1)
    if source is None:
        return table.to_numpy(dtype=float)
    known = sorted(set(given[1]))
    if source not in known:
        raise ValueError(f"no ratings of {source!r}; there are some of {', '.join(known)}")
    own = table.xs(source, axis=1, level=1).reindex(columns=sorted(set(given[2])))
    return own.to_numpy(dtype=float)


def _of_one_study(answers: Iterable[Answer], sources: int) -> list[Answer]:
    """Return the answers as a list; they belong to one study and have that many pictures."""
    answers = list(answers)
    if not answers:
        raise ValueError("there are no answers yet")
    if len({answer.study for answer in answers}) > 1:
        raise ValueError("these are answers to several studies: keep those of one `study`")
    if any(len(answer.sources) != sources for answer in answers):
        wanted = "ratings of single pictures" if sources == 1 else "choices between two pictures"
        raise ValueError(f"need {wanted}, and these answers are not")
    return answers


# Ratings


def mean_opinion_score(ratings: np.ndarray, over: str = "raters", repeats: int = 2000) -> Estimate:
    """Average the ratings [R, U] of one model's pictures (Streijl, Winkler and Hands, 2016).

    The ratings of one rater resemble each other, and so do those of one picture: they are not as
    many independent measurements. `over` says what would be drawn anew if the study were repeated.

    - "raters": other people, the same pictures. Student's t interval over the raters' parts of the
      mean, with raters - 1 degrees of freedom. If all rated as many pictures, that is the textbook
      interval of the raters' means m_r: mean +- t * s(m_r) / sqrt(raters).
    - "pictures": the same people, other pictures. The same over pictures; it serves a single rater.
    - "both": other people, other pictures. The pigeonhole bootstrap (Owen, 2007): raters and
      pictures are both drawn with replacement, `repeats` times, and the interval is the middle 95 %
      of the means. Too narrow for fewer than about ten of either.

    The difference of two tables of the same raters and pictures is such a table, too: then this is
    the mean difference of two models, with its interval.

    Raises:
        ValueError: no ratings, or fewer than two raters (or pictures) with ratings.
    """
    ratings = _table(ratings)
    given = np.isfinite(ratings)
    value, number = float(ratings[given].mean()), int(given.sum())
    if over == "both":
        return Estimate(value, _pigeonhole_bootstrap(ratings, repeats), number)
    if over not in ("raters", "pictures"):
        raise ValueError(f'over is "raters", "pictures" or "both", not {over!r}')
    axis = 1 if over == "raters" else 0
    n = int(given.any(axis=axis).sum())
    if n < 2:
        other = "pictures" if over == "raters" else "raters"
        raise ValueError(f'an interval over {over} needs two of them, not {n}; try over="{other}"')
    # Each one's share of the mean's error: sum of the ratings' distances from the mean
    shares = np.nansum(ratings - value, axis=axis) / given.sum()
    reach = stats.t.ppf(0.975, df=n - 1) * np.sqrt(n / (n - 1) * np.sum(shares**2))
    return Estimate(value, (float(value - reach), float(value + reach)), number)


def _pigeonhole_bootstrap(ratings: np.ndarray, repeats: int) -> tuple[float, float]:
    """Draw raters and pictures anew; a rating counts as often as both of them were drawn."""
    rng = np.random.default_rng(0)
    draws = [rng.multinomial(n, np.full(n, 1 / n), size=repeats) for n in ratings.shape]  # [B, n]
    given = np.isfinite(ratings).astype(float)
    sums, counts = (
        np.einsum("br,ru,bu->b", draws[0], values, draws[1], optimize=True)
        for values in (np.nan_to_num(ratings), given)
    )
    low, high = np.quantile(sums[counts > 0] / counts[counts > 0], [0.025, 0.975])
    return float(low), float(high)


def agreement(ratings: np.ndarray, level: str = "ordinal", repeats: int = 200) -> Estimate:
    """Return the agreement of the raters by Krippendorff's alpha (2011).

        alpha = 1 - D_observed / D_expected

    D_observed is the mean squared difference of two ratings of the same picture, D_expected that of
    any two ratings. 1 is perfect agreement, 0 what dice would give, below 0 systematic
    disagreement. Ratings are [R, U], NaN where missing; pictures with one rating only do not count.
    The `level` of measurement says how values differ: "nominal" (the same or not), "ordinal" (how
    many ratings lie between them), "interval" (their distance). The interval is a bootstrap over
    pictures (Zapf et al., 2016).

    Raises:
        ValueError: no picture has two ratings, or all of those ratings are the same.
    """
    ratings = _table(ratings)
    ratings = ratings[:, np.isfinite(ratings).sum(axis=0) >= 2]
    if ratings.size == 0:
        raise ValueError("no picture has ratings by two raters: there is no agreement to measure")
    if np.nanmin(ratings) == np.nanmax(ratings):
        same = np.nanmin(ratings)
        raise ValueError(f"all ratings are {same:g}: without variation alpha is not defined")

    def alpha(pictures: np.ndarray) -> float:  # [U, R]
        if np.nanmin(pictures) == np.nanmax(pictures):  # a draw may have no variation
            return np.nan
        return krippendorff.alpha(reliability_data=pictures.T, level_of_measurement=level)

    return bootstrap_interval(alpha, ratings.T, repeats=repeats, limits=(-1, 1))


def _table(ratings: np.ndarray) -> np.ndarray:
    """Return the ratings as floats [R, U]; at least one must be there."""
    ratings = np.asarray(ratings, dtype=float)
    if ratings.ndim != 2:
        raise ValueError(f"need ratings [raters, pictures], got shape {list(ratings.shape)}")
    if np.isnan(ratings).all():
        raise ValueError("the table holds no ratings")
    return ratings


# Choices between two


def bradley_terry(answers: Iterable[Answer]) -> dict[str, Estimate]:
    """Fit the model of Bradley and Terry (1952): P(i is chosen over j) = g_i / (g_i + g_j).

    The likelihood's maximum is found by the MM algorithm (Hunter, 2004, equation 3): with n_ij
    choices between i and j,

        g_i <- wins_i / sum_j n_ij / (g_i + g_j)

    and the intervals come from the Fisher information of the log-strengths: -n_ij p_ij p_ji off its
    diagonal, rows that sum to 0. Its pseudo-inverse is their covariance when their mean is held at
    0. Choices are taken for independent of each other.

    Returns:
        The log-strength of each source; their mean is 0.

    Raises:
        ValueError: no choices between two pictures, answers to several studies; or some sources
            never lost to the others (or were never compared with them), so that no finite strengths
            exist (Hunter's assumption 1).
    """
    answers = _of_one_study(answers, sources=2)
    names = sorted({source for answer in answers for source in answer.sources})
    wins = np.zeros((len(names), len(names)))  # of the row over the column
    for answer in answers:
        left, right = map(names.index, answer.sources)
        wins[(right, left) if answer.scores["choice"] else (left, right)] += 1
    # A chain of wins must lead from every source to every other
    if connected_components(wins > 0, directed=True, connection="strong")[0] > 1:
        raise ValueError(
            f"no finite strengths: of {', '.join(names)} some never won, or never lost, against "
            "the others. Gather more choices, or report win rates"
        )
    choices, strengths = wins + wins.T, np.ones(len(wins))
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
    reach = NORMAL_95 * np.sqrt(np.diag(np.linalg.pinv(information, hermitian=True)))
    found = zip(names, np.log(strengths).tolist(), reach.tolist(), choices.sum(1), strict=True)
    return {name: Estimate(s, (s - r, s + r), int(count)) for name, s, r, count in found}


# Answers that nobody gave


def simulated_answers(
    study: Study, strengths: Mapping[str, float], raters: int = 8, seed: int = 0
) -> list[Answer]:
    """Draw answers from a random rule, to show what the statistics do. Nobody gave them.

    The rule. A rating is strength + rater + picture + noise, rounded and kept in 1 to 5; the three
    are normal with mean 0 and standard deviation 0.5, 0.5 and 0.7, drawn once for each rater, each
    picture, and each single rating. A choice falls on the left picture with the probability
    1 / (1 + exp(strength of the right - strength of the left)). So the strength of a source is its
    mean rating, or the log-strength of Bradley and Terry. The time of all these answers is
    "simulated"; `append_answer` refuses to write them to a file.
    """
    rng, answers = np.random.default_rng(seed), []
    of_pictures = rng.normal(0, 0.5, len(study.trials()))
    for rater in (f"{SIMULATED}-{number}" for number in range(1, raters + 1)):
        of_rater = rng.normal(0, 0.5)
        for trial in study.order(rater):
            values = [strengths[source] for source in trial.sources]
            if len(values) == 1:
                opinion = values[0] + of_rater + of_pictures[trial.number]
                noisy = opinion + rng.normal(0, 0.7, len(QUESTIONS))
                ratings = np.clip(np.rint(noisy), *POINTS).astype(int).tolist()
                scores = dict(zip(QUESTIONS, ratings, strict=True))
            else:
                left_wins = rng.random() < 1 / (1 + np.exp(values[1] - values[0]))
                scores = {"choice": 0 if left_wins else 1}
            place = (trial.number, trial.item, trial.sources)
            answers.append(Answer(study.id, rater, *place, scores, 0.0, SIMULATED))
    return answers
