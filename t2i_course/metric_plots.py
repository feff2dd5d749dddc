"""Figures of measurements: Gaussians, clouds of features, measures against faults, shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from t2i_course.charts import POINTS, panel_grid
from t2i_course.evaluation import Estimate
from t2i_course.plots import DASHES, PALETTE

COLOURS = (PALETTE["blue"], PALETTE["vermillion"])
MARKERS = "osDx^v"

Gaussian = tuple[np.ndarray, np.ndarray]  # mean [2], covariance [2, 2]


def draw_ellipse(axes: Axes, mean: np.ndarray, covariance: np.ndarray, number: int) -> None:
    """Draw the line at two standard deviations of the first or the second Gaussian."""
    values, vectors = np.linalg.eigh(covariance)
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    width, height = 4 * np.sqrt(values[::-1])
    style = {"fill": False, "linewidth": 1.6, "color": COLOURS[number], "ls": DASHES[number]}
    axes.add_patch(Ellipse(mean, width, height, angle=angle, **style))


def gaussian_pairs(pairs: Mapping[str, tuple[Gaussian, Gaussian]]) -> Figure:
    """Draw two Gaussians of two features in each panel, at two standard deviations."""
    figure, panels = panel_grid(1, len(pairs), (2.4, 2.7))
    for panel, (title, both) in zip(panels[0], pairs.items(), strict=True):
        for number, (mean, covariance) in enumerate(both):
            draw_ellipse(panel, mean, covariance, number)
        panel.set(xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), box_aspect=1, xlabel="feature 1")
        panel.set_title(title, fontsize=POINTS)
    panels[0, 0].set_ylabel("feature 2")
    return figure


def feature_clouds(real: np.ndarray, others: Mapping[str, np.ndarray], most: int = 300) -> Figure:
    """Draw sets of features in the two directions in which the real ones vary most.

    Args:
        real: [N, D].
        others: name to [M, D]; a panel each, beside the real ones.
        most: points that are drawn of a set; the Gaussians are of all.
    """
    centre = real.mean(axis=0)
    directions = np.linalg.svd(real - centre, full_matrices=False)[2][:2]  # [2, D]
    figure, panels = panel_grid(1, len(others), (3.6, 3), sharex=True, sharey=True)
    for panel, (name, cloud) in zip(panels[0], others.items(), strict=True):
        for number, (features, label) in enumerate(((real, "real"), (cloud, name))):
            flat = (features - centre) @ directions.T  # [N, 2]
            panel.scatter(*flat[:most].T, s=4, alpha=0.5, color=COLOURS[number], label=label)
            draw_ellipse(panel, flat.mean(axis=0), np.cov(flat.T), number)
        panel.legend(loc="upper right", markerscale=3, fontsize=POINTS)
        panel.set_xlabel("first direction")
    panels[0, 0].set_ylabel("second direction")
    return figure


def fault_panels(
    measured: Mapping[str, Mapping[float, Mapping[str, Estimate]]], metrics: Sequence[str]
) -> Figure:
    """Draw measures (rows) against the strength of faults (columns).

    A band shows the interval without the fault. Measures whose values exceed 1 get a logarithmic
    axis, or one that is linear around 0 where they can be negative.

    Args:
        measured: fault to strength to measure to value; the first strength is that of no fault.
        metrics: those to draw; one that was not measured leaves its panel empty.
    """
    figure, panels = panel_grid(
        len(metrics), len(measured), (1.55, 1.3), sharex="col", sharey="row"
    )
    for row, metric in enumerate(metrics):
        for column, by_strength in enumerate(measured.values()):
            found = {k: e[metric] for k, e in enumerate(by_strength.values()) if metric in e}
            _fault_panel(panels[row, column], found)
        values = [e[metric].low for by in measured.values() for e in by.values() if metric in e]
        _fit_axis(panels[row, 0], min(values), max(values))
        panels[row, 0].set_ylabel(metric)
    for column, (fault, by_strength) in enumerate(measured.items()):
        panels[0, column].set_title(fault, fontsize=POINTS)
        strengths = [f"{s:g}".replace("0.", ".") for s in by_strength]
        panels[-1, column].set_xticks(range(len(by_strength)), strengths)
    return figure


def _fault_panel(axes: Axes, found: Mapping[int, Estimate]) -> None:
    """Draw one measure against the strengths of one fault."""
    values = np.array([estimate.value for estimate in found.values()])
    low, high = np.array([estimate.interval for estimate in found.values()]).T
    axes.axhspan(low[0], high[0], color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.errorbar(list(found), values, (values - low, high - values), color=COLOURS[1],
                  marker="o", markersize=3, linewidth=1, capsize=2)  # fmt: skip


def _fit_axis(axes: Axes, least: float, greatest: float) -> None:
    """Choose a row's vertical axis: of shares, logarithmic, or linear around 0."""
    if 0 <= least and greatest <= 1:
        axes.set(ylim=(-0.05, 1.08), yticks=(0, 0.5, 1))
    elif least < 0:
        axes.set_yscale("symlog", linthresh=3000)
        axes.set_yticks([0, 1e5, 1e8])
    else:
        axes.set_yscale("log")


def values_by_size(values: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """Draw a panel for each measure: single values (dots) and their mean (bars) at each N."""
    figure, panels = panel_grid(1, len(values), (3.6, 2.8))
    for panel, (metric, by_size) in zip(panels[0], values.items(), strict=True):
        for size, found in by_size.items():
            panel.plot([size] * len(found), found, ".", markersize=4, color=COLOURS[0], alpha=0.5)
            panel.plot(size, np.mean(found), "_", markersize=16, mew=2, color=COLOURS[1])
        panel.axhline(0, color="black", linewidth=0.8)
        panel.set(xscale="log", xlabel="pictures in each set, N", ylabel=metric)
        panel.set_xticks(list(by_size), [str(size) for size in by_size])
        panel.minorticks_off()
    return figure


def shares(rows: Sequence[str], columns: Mapping[str, Sequence[Estimate]], label: str) -> Figure:
    """Draw shares with their intervals: a row for each kind, a marker for each source."""
    figure, panels = panel_grid(1, 1, (7.2, 0.32 * len(rows) + 0.9))
    axes, step = panels[0, 0], 0.7 / len(columns)
    for k, (name, estimates) in enumerate(columns.items()):
        values = np.array([estimate.value for estimate in estimates])
        reach = np.abs(np.array([estimate.interval for estimate in estimates]).T - values)
        places = np.arange(len(rows)) + step * (k - (len(columns) - 1) / 2)
        axes.errorbar(values, places, xerr=reach, fmt=MARKERS[k], markersize=5, label=name,
                      color=list(PALETTE.values())[k], capsize=2)  # fmt: skip
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlim=(-0.02, 1.02), xlabel=label, ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="y", linewidth=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=POINTS)
    return figure
