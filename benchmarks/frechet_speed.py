"""Time the Frechet distance against SciPy's route and torchmetrics', and compare the values.

    python benchmarks/frechet_speed.py            prints the figures
    python benchmarks/frechet_speed.py --ledger   writes them to data/results/frechet_speed.json

All three begin with the same features, 10,000 of 2,048 in each set, and end with the distance:

    course        means and covariances; eigenvalues of the symmetric F^T Sigma_2 F
    scipy         numpy.cov; scipy.linalg.sqrtm of the product, as in pytorch-fid
    torchmetrics  sums as it keeps them, in double precision; eigenvalues of the product
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import linalg
from torchmetrics.image.fid import FrechetInceptionDistance

from t2i_course import evaluation, report, runtime


class Identity(torch.nn.Module):
    """Features in, features out: torchmetrics' place for a network."""

    def __init__(self, width: int) -> None:
        """Tell torchmetrics the number of features."""
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return features


def make_features(samples: int, width: int) -> list[np.ndarray]:
    """Two sets, float32 [samples, width], correlated, with falling variances as Inception's have.

    Like Inception's they are not negative.
    """
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(width, width)))
    mixing = (axes * np.geomspace(1, 1e-2, width)).astype(np.float32)  # [D, D]
    sets = []
    for shift, scale in ((0.5, 1.0), (0.6, 1.2)):
        drawn = rng.standard_normal((samples, width), dtype=np.float32)
        sets.append(np.maximum(0, shift + scale * drawn @ mixing.T))
    return sets


def course(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the distance with this package."""
    return evaluation.frechet(first, second, repeats=0).value


def scipy_route(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the distance as pytorch-fid does."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    difference = first.mean(axis=0) - second.mean(axis=0)
    return float(difference @ difference + np.trace(sum(covariances) - 2 * root))


def torchmetrics_route(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the distance with torchmetrics."""
    metric = FrechetInceptionDistance(feature=Identity(first.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(first).double(), real=True)
    metric.update(torch.from_numpy(second).double(), real=False)
    return metric.compute().item()


ROUTES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "course": course,
    "scipy": scipy_route,
    "torchmetrics": torchmetrics_route,
}


def main() -> None:
    """Time the three, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dimensions", type=int, default=2048, help="features (2048)")
    parser.add_argument("--samples", type=int, default=10_000, help="in each set (10000)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the median counts")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    small = make_features(64, 16)
    for route in ROUTES.values():
        route(*small)  # libraries load, threads start
    features = make_features(arguments.samples, arguments.dimensions)
    values: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ROUTES}
    for _ in range(arguments.repeats):
        for name, route in ROUTES.items():
            start = time.perf_counter()
            values[name] = route(*features)
            seconds[name].append(time.perf_counter() - start)
    size = f"{arguments.samples:,} samples of {arguments.dimensions:,} features"
    figures = []
    for name in ROUTES:
        median = float(np.median(seconds[name]))
        figures.append(
            (f"seconds-{name}", f"seconds of a Frechet distance, {size}, {name}", median)
        )
    for name in ("scipy", "torchmetrics"):
        ratio = figures[list(ROUTES).index(name)][2] / figures[0][2]
        error = abs(values[name] / values["course"] - 1)
        figures.append((f"times-{name}", f"time of {name} over the course's, {size}", ratio))
        figures.append((f"difference-{name}", f"relative difference from {name}, {size}", error))
    for _, metric, value in figures:
        print(f"{metric}: {value:.4g}")
    if arguments.ledger:
        options = f"--dimensions {arguments.dimensions} --samples {arguments.samples}"
        rows = [
            report.Row(
                id=f"frechet-{name}",
                metric=metric,
                value=float(f"{value:.3g}"),
                interval=None,
                samples=arguments.samples,
                seeds=(0,),
                split="none",
                extractor="none",
                data="random features",
                hardware=runtime.hardware(),
                seconds=round(sum(map(sum, seconds.values())), 2),
                command=f"python benchmarks/frechet_speed.py {options} "
                f"--repeats {arguments.repeats} --ledger",
            )
            for name, metric, value in figures
        ]
        print(f"written: {report.add_rows('frechet_speed.json', rows).name}")


if __name__ == "__main__":
    main()
