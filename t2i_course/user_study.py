"""A user study: people rate pictures, or choose between two, without knowing whose they are.

    study = make_study(captions, {"baseline": drawn, "real": photos}, kind="ratings", seed=0)
    RatingForm(study, "answers.jsonl")  # of `rating_form`; the form appears below the cell

Trials come in an order of their own for each rater, drawn from the seed and the rater's name; of
two pictures, a random half of the trials swaps left and right. A trial's number does not depend on
the order, nor on the rater.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from t2i_course.answers import POINTS, QUESTIONS, SIMULATED, Answer
from t2i_course.plots import to_pixels

KINDS = ("ratings", "pairs")


@dataclass(frozen=True)
class Trial:
    """What is shown at once: a picture of a caption, or two, by their sources, left one first."""

    number: int
    item: int
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Study:
    """Captions, and a picture of each from every source; see `make_study`.

    Attributes:
        id: short hash of the kind, the captions, the sources and every pixel.
        kind: "ratings" or "pairs".
        seed: of the order.
        captions: N of them.
        pictures: uint8 [N, H, W, 3] of each source. Not in `repr`, so that no cell shows the names.
    """

    id: str
    kind: str
    seed: int
    captions: tuple[str, ...] = field(repr=False)
    pictures: Mapping[str, np.ndarray] = field(repr=False)

    def trials(self) -> list[Trial]:
        """List the trials by number: each caption with each source, or each pair of sources."""
        shown = itertools.combinations(self.pictures, 1 if self.kind == "ratings" else 2)
        pairs = itertools.product(range(len(self.captions)), list(shown))
        return [Trial(number, item, sources) for number, (item, sources) in enumerate(pairs)]

    def order(self, rater: str) -> list[Trial]:
        """Shuffle the trials for a rater; of two pictures, half of the trials swap the sides."""
        name = hashlib.sha256(rater.encode()).digest()
        rng = np.random.default_rng([self.seed, *name])
        trials = self.trials()
        swapped = rng.permutation(len(trials)) % 2
        shown = [
            Trial(trial.number, trial.item, trial.sources[:: -1 if swap else 1])
            for trial, swap in zip(trials, swapped, strict=True)
        ]
        return [shown[index] for index in rng.permutation(len(trials))]


def make_study(
    captions: Sequence[str],
    pictures: Mapping[str, Tensor | np.ndarray],
    kind: str = "ratings",
    seed: int = 0,
) -> Study:
    """Put a study together.

    Args:
        captions: N of them.
        pictures: for each source, a model's name or "real", N pictures in the captions' order:
            [N, 3, H, W], floats in [-1, 1] or uint8, of one size for all sources.
        kind: "ratings", of quality and fit from 1 to 5, one picture at a time; or "pairs", the
            choice between two sources' pictures of a caption, every two sources for every caption.
        seed: of the order of trials.

    Raises:
        ValueError: there are no pictures, lengths or sizes differ, or values are out of range.
    """
    captions = tuple(captions)
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    if not captions or not pictures:
        raise ValueError("a study needs captions and pictures of them, and there are none")
    if any(not isinstance(text, str) or not text.strip() for text in captions):
        raise ValueError("a caption is empty, or not a text")
    if kind == "pairs" and len(pictures) < 2:
        raise ValueError(f"pairs need two sources of pictures, not {len(pictures)}")
    pixels = {name: _pixels(name, images, len(captions)) for name, images in pictures.items()}
    if len({array.shape for array in pixels.values()}) > 1:
        sizes = ", ".join(f"{name} {array.shape[1:3]}" for name, array in pixels.items())
        raise ValueError(f"pictures of different sizes would give the sources away: {sizes}")
    shape = next(iter(pixels.values())).shape
    digest = hashlib.sha256(json.dumps([kind, captions, sorted(pixels), shape]).encode())
    for name in sorted(pixels):
        digest.update(pixels[name].tobytes())
    in_order = {name: pixels[name] for name in sorted(pixels)}
    return Study(digest.hexdigest()[:12], kind, seed, captions, in_order)


def _pixels(name: str, images: Tensor | np.ndarray, count: int) -> np.ndarray:
    """Turn a source's pictures into uint8 [N, H, W, 3], or say what is wrong with them."""
    images = torch.as_tensor(images)
    if len(images) != count:
        raise ValueError(f"{name}: {len(images)} pictures for {count} captions")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        raise ValueError(f"{name}: pictures are floats in [-1, 1] or uint8, not {images.dtype}")
    if images.is_floating_point() and images.abs().max() > 1.001:
        raise ValueError(f"{name}: pixels up to {images.abs().max():g}; they belong in [-1, 1]")
    try:
        return to_pixels(images)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


# Answers that nobody gave


def simulated_answers(
    study: Study,
    strengths: Mapping[str, float],
    raters: int = 8,
    seed: int = 0,
) -> list[Answer]:
    """Draw answers from a random rule, to show what the statistics do. Nobody gave them.

    The rule. A rating is strength + rater + picture + noise, rounded and kept in 1 to 5; the three
    are normal with mean 0 and standard deviation 0.5, 0.5 and 0.7, drawn once for each rater, each
    picture, and each single rating. A choice falls on the left picture with the probability
    1 / (1 + exp(strength of the right - strength of the left)).

    Args:
        study: whose trials are answered.
        strengths: of each source: the mean rating, or the log-strength of Bradley and Terry.
        raters: how many, named "simulated-1" and so on.
        seed: of the rule.

    Returns:
        Answers whose time is "simulated"; `append_answer` refuses to write them to a file.

    Raises:
        ValueError: the strengths are not those of the study's sources.
    """
    if set(strengths) != set(study.pictures):
        raise ValueError(f"need the strengths of {', '.join(study.pictures)}, got {strengths}")
    rng = np.random.default_rng(seed)
    trials = study.trials()
    of_pictures = rng.normal(0, 0.5, len(trials))
    answers = []
    for rater in (f"{SIMULATED}-{number}" for number in range(1, raters + 1)):
        of_rater = rng.normal(0, 0.5)
        for trial in study.order(rater):
            values = [strengths[source] for source in trial.sources]
            if len(values) == 1:
                opinion = values[0] + of_rater + of_pictures[trial.number]
                noisy = opinion + rng.normal(0, 0.7, len(QUESTIONS))
                ratings = np.clip(np.rint(noisy), POINTS[0], POINTS[-1]).astype(int).tolist()
                scores = dict(zip(QUESTIONS, ratings, strict=True))
            else:
                left_wins = rng.random() < 1 / (1 + np.exp(values[1] - values[0]))
                scores = {"choice": 0 if left_wins else 1}
            place = (trial.number, trial.item, trial.sources)
            answers.append(Answer(study.id, rater, *place, scores, 0.0, SIMULATED))
    return answers
