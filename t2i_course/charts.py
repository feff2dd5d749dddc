"""Charts that the notebooks share: lines, bars, matrices and points, with labels that can be read.

Each function returns a matplotlib figure, to be shown by `plots.show`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from t2i_course.plots import DASHES, DOTS, PALETTE

POINTS = 9  # of labels
MARKERS = "os^Dv<>P"


def panel_grid(
    rows: int, columns: int, size: tuple[float, float], **options: object
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes [rows, columns], labels of `POINTS` and no frame on two sides.

    The size of a panel is in inches; the options are those of `plt.subplots`.
    """
    with plt.rc_context({
        "font.size": POINTS, "axes.titlesize": POINTS, "legend.fontsize": POINTS,
    }):  # fmt: skip
        figure, grid = plt.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows), dpi=DOTS,
            layout="constrained", squeeze=False, **options,
        )  # fmt: skip
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=POINTS)
    return figure, grid


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Name the series beside the axes, where they hide nothing."""
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=POINTS, loc="center left", bbox_to_anchor=(1, 0.5))


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    labels: tuple[str, str],
    levels: Mapping[str, float] | None = None,
    logarithmic: str = "",
    size: tuple[float, float] = (6.4, 2.6),
) -> Figure:
    """Draw curves.

    Args:
        curves: name to (x, y), in the order of the legend.
        labels: of the two axes, with their units.
        levels: name to a height at which a dotted line is drawn.
        logarithmic: "x", "y" or "xy" for logarithmic axes.
        size: inches.
    """
    levels = dict(levels or {})
    figure, ((axes,),) = panel_grid(1, 1, size)
    for number, (name, (x, y)) in enumerate(curves.items()):
        colour = list(PALETTE.values())[number % len(PALETTE)]
        axes.plot(x, y, DASHES[number % len(DASHES)], color=colour, label=name)
    for number, (name, height) in enumerate(levels.items()):
        axes.axhline(height, color="black", linestyle=(":", "-.")[number % 2], lw=1, label=name)
    for axis in logarithmic:
        getattr(axes, f"set_{axis}scale")("log")
    axes.set_xlabel(labels[0], fontsize=POINTS)
    axes.set_ylabel(labels[1], fontsize=POINTS)
    _legend(axes, [*curves, *levels])
    return figure


def bars(
    series: Mapping[str, Mapping[str, float]],
    label: str,
    number_format: str | None = None,
    size: tuple[float, float] = (6.4, 2.6),
) -> Figure:
    """Draw horizontal bars in groups.

    Args:
        series: name to (group to value), with the same groups in each.
        label: of the values, with their unit.
        number_format: such as ".0%" to write each value behind its bar.
        size: inches.
    """
    groups = list(next(iter(series.values())))
    figure, ((axes,),) = panel_grid(1, 1, size)
    height = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = np.arange(len(groups)) + height * (number - (len(series) - 1) / 2)
        colour = list(PALETTE.values())[number % len(PALETTE)]
        drawn = axes.barh(places, list(values.values()), 0.9 * height, color=colour, label=name)
        if number_format:
            texts = [format(value, number_format) for value in values.values()]
            axes.bar_label(drawn, texts, padding=2, fontsize=POINTS)
    axes.margins(x=0.15 if number_format else 0.05)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=POINTS)
    _legend(axes, list(series))
    return figure


def matrices(
    panels: Mapping[str, Tensor | np.ndarray],
    row_labels: Sequence[str] | None = None,
    number_format: str | None = None,
    size: tuple[float, float] = (3.0, 2.6),
) -> Figure:
    """Draw matrices of values from 0 to 1 side by side; their cells are numbered, or rows labelled.

    Args:
        panels: title to matrix [R, C].
        row_labels: R of them, beside the first panel.
        number_format: such as ".2f" to write each value in its cell.
        size: inches of a panel.
    """
    figure, (grid,) = panel_grid(1, len(panels), size)
    for axes, (title, matrix) in zip(grid, panels.items(), strict=True):
        values = np.asarray(matrix)
        axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.set_title(title, fontsize=POINTS)
        axes.set(xticks=range(values.shape[1]) if number_format else [], yticks=[])
        for (row, column), value in np.ndenumerate(values if number_format else np.empty((0, 0))):
            colour = "black" if value > 0.5 else "white"
            text = format(float(value), number_format)
            axes.text(column, row, text, ha="center", va="center", fontsize=POINTS, color=colour)
    if row_labels is not None:
        grid[0].set_yticks(range(len(row_labels)), row_labels)
    return figure


def scatter_panels(
    panels: Mapping[str, Mapping[str, Tensor | np.ndarray]], size: int = 300
) -> Figure:
    """Draw groups of points [N, 2], a panel of a width in pixels for each way to look at them.

    `panels` are title to name of a group to points; every panel has its own scale, and its legend
    below.
    """
    figure, (row,) = panel_grid(1, len(panels), (size / DOTS, (size + 40) / DOTS))
    for axes, (title, groups) in zip(row, panels.items(), strict=True):
        for index, (name, places) in enumerate(groups.items()):
            colour = list(PALETTE.values())[index % len(PALETTE)]
            marker = MARKERS[index % len(MARKERS)]
            style = {"s": 9, "color": colour, "marker": marker, "alpha": 0.6, "linewidths": 0}
            axes.scatter(*np.asarray(places).T, label=name, **style)
        axes.set_title(title, fontsize=POINTS, parse_math=False)
        axes.set(xticks=[], yticks=[])
        axes.legend(fontsize=POINTS, frameon=False, handletextpad=0.1, borderpad=0.1, ncols=2,
                    loc="upper center", bbox_to_anchor=(0.5, 0))  # fmt: skip
    return figure
