"""Pictures of the course: image grids, curves, heat maps and diagrams of architectures.

Every function returns a matplotlib figure of a fixed size, to be shown at the end of a cell by
`show("what there is to see")`. Sizes are in screen pixels at 100 dots per inch; a picture is drawn
pixel for pixel at scale 1, which also keeps notebooks small. Labels are drawn in ASCII: a glyph
that the font lacks would put a warning into the notebook's output.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import LogLocator
from PIL import Image
from torch import Tensor

DOTS = 100  # per inch
GAP = 4  # pixels between two pictures
FONT = 9  # points, which can be read in print
LINE = 17.2  # pixels for a line of text in that font
CHARACTER = 6.9  # pixels, the mean width of a letter in that font
HAIR = 1e-6  # pixels: without it 58 / 100 * 100 is 57 pixels high, and a picture of 16 pixels 17

# Okabe and Ito, "Color universal design" (2008): colours that colour-blind readers tell apart.
PALETTE = {
    "blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "vermillion": "#D55E00",
    "purple": "#CC79A7", "sky": "#56B4E9", "yellow": "#F0E442", "black": "#000000",
}  # fmt: skip
DASHES = ("-", "--", "-.", ":")

# What a box of a diagram stands for, and its filling.
BOX_COLOURS = {"data": "#FFFFFF", "trained": "#CFE3F1", "frozen": "#E4E4E4", "loss": "#FBE3C4"}


def to_pixels(images: Tensor) -> np.ndarray:
    """Turn images [N, 3, H, W], floats in [-1, 1] or uint8, into pixels, uint8 [N, H, W, 3].

    Raises:
        ValueError: the batch has another shape, is empty, or holds numbers that are not finite.
    """
    images = torch.as_tensor(images).detach().cpu()
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"need images of shape [N, 3, H, W], got {list(images.shape)}")
    if images.is_floating_point():
        if not images.isfinite().all():
            raise ValueError("the images hold numbers that are not finite")
        images = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, 3]


def store_small_pictures(colors: int = 256) -> None:
    """Let a notebook store its figures as PNG of a few colours, a third of the usual size.

    Outside a notebook this does nothing. Flat diagrams need few of 2 to 256 colours, photos many.
    """
    shell = get_ipython()
    if shell is None:
        return

    def small_png(figure: Figure) -> bytes:
        whole, small = io.BytesIO(), io.BytesIO()
        figure.savefig(whole, format="png", dpi=figure.dpi)
        few_colours(Image.open(whole).convert("RGB"), colors).save(small, "png", optimize=True)
        return small.getvalue()

    plt.close(plt.figure())  # the first figure loads matplotlib's own writer, replaced here
    shell.display_formatter.formatters["image/png"].for_type(Figure, small_png)


def few_colours(picture: Image.Image, colors: int) -> Image.Image:
    """Take a palette by range; half of one of 64 colours or more by area, which smooths skies."""
    smooth = colors // 2 if colors >= 64 else 0
    parts = ((Image.Quantize.MEDIANCUT, smooth), (Image.Quantize.MAXCOVERAGE, colors - smooth))
    palette = sum((picture.quantize(count, method, kmeans=5).getpalette()[: 3 * count]
                   for method, count in parts if count), [])  # fmt: skip
    pixels = np.asarray(picture).astype(int) @ (1 << 16, 1 << 8, 1)  # [H, W]
    found, places = np.unique(pixels, return_inverse=True)  # [K], and where they are
    rgb, chosen = found[:, None] >> (16, 8, 0) & 255, np.reshape(palette, (-1, 3))  # [K, 3], [P, 3]
    nearest = (np.square(chosen).sum(axis=1) - 2 * rgb @ chosen.T).argmin(axis=1)  # [K]
    small = Image.fromarray(nearest[places].reshape(pixels.shape).astype(np.uint8), "P")
    small.putpalette(palette)
    return small


def show(alternative_text: str) -> None:
    """Show the current figure, and store with it what a reader who cannot see it should know."""
    display(plt.gcf(), metadata={"image/png": {"alt": alternative_text}})
    plt.close()


def image_grid(
    images: Tensor,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    row_titles: Sequence[str] | None = None,
    scale: float = 1.0,
) -> Figure:
    """Draw pictures in rows, with captions above them.

    Args:
        images: [N, 3, H, W], floats in [-1, 1] or uint8, row after row.
        titles: one for each column, drawn above the grid, or one for each picture.
        columns: pictures in a row; fewer if there are fewer pictures.
        row_titles: one for each row, drawn to its left.
        scale: screen pixels for a picture's pixel.

    Raises:
        ValueError: the number of titles or of row titles does not fit.
    """
    pixels = to_pixels(images)
    count, height, width, _ = pixels.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    titles, row_titles = list(titles or []), list(row_titles or [])
    if len(titles) not in (0, columns, count):
        raise ValueError(
            f"{len(titles)} titles for {count} pictures in {columns} columns: "
            "give one for each column or one for each picture"
        )
    if len(row_titles) not in (0, rows):
        raise ValueError(f"{len(row_titles)} row titles for {rows} rows")

    cell_width, cell_height = round(width * scale), round(height * scale)
    wrapped = [_wrap(title, cell_width) for title in titles]
    above = [  # pixels of text over each row of pictures
        max((round((text.count("\n") + 1) * LINE) + 6 for text in part), default=0)
        for part in (wrapped[row * columns : (row + 1) * columns] for row in range(rows))
    ]
    left = _widest(row_titles) + 10 if row_titles else 0

    figure = _figure(left + columns * (cell_width + GAP), rows * (cell_height + GAP) + sum(above))
    for index, picture in enumerate(pixels):
        row, column = divmod(index, columns)
        x = left + column * (cell_width + GAP)
        y = row * (cell_height + GAP) + sum(above[: row + 1])
        axes = _place(figure, x, y, cell_width, cell_height)
        axes.imshow(picture, interpolation="nearest" if scale == int(scale) else "hanning")
        axes.set_axis_off()
        if index < len(wrapped):
            _write(axes, 0.5, 1 + 4 / cell_height, wrapped[index], ha="center", va="bottom")
        if row_titles and column == 0:
            _write(axes, -6 / cell_width, 0.5, row_titles[row], ha="right", va="center")
    return figure


def caption_columns(
    images: Tensor,
    captions: Sequence[str],
    row_titles: Sequence[str] | None = None,
    scale: float = 1.0,
) -> Figure:
    """Draw S samples [C, S, 3, H, W] of each of C captions, a column for each caption.

    A row is of the same noise, so that it shows what the caption alone changes. Titles and scale
    are those of `image_grid`.
    """
    by_row = images.transpose(0, 1).flatten(0, 1)  # [S * C, 3, H, W]
    return image_grid(by_row, captions, len(captions), row_titles, scale)


def pair_grid(
    drawn: Tensor, real: Tensor, captions: Sequence[str], columns: int = 3, width: int = 256
) -> Figure:
    """Draw pairs of images [N, 3, H, W] under their caption: drawn on the left, real on the right.

    A pair has at least `width` screen pixels: small pictures are enlarged by a whole number, so
    that their captions can be read.
    """
    left, right = (torch.from_numpy(to_pixels(images)) for images in (drawn, real))
    white = torch.full((*left.shape[:2], 3, 3), 255, dtype=torch.uint8)  # [N, H, 3, 3]
    pairs = torch.cat((white, left, white[:, :, :1], right, white), dim=2)  # [N, H, 2 W + 7, 3]
    pairs = pairs.permute(0, 3, 1, 2)
    rows = -(-len(pairs) // min(columns, len(pairs)))
    scale = max(1, -(-width // pairs.shape[3]))
    return image_grid(pairs, list(captions), columns, ["drawn | real"] * rows, scale)


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    pictures: Mapping[int, Tensor] | None = None,
    label: str = "loss",
    logarithmic: bool = False,
    scale: float = 1.0,
    across: str = "step",
) -> Figure:
    """Draw curves over training steps, and beside them what the model drew at some of the steps.

    Args:
        curves: name to (steps, values), in the order of the legend.
        pictures: step to images [N, 3, H, W]; a column for each step, N rows.
        label: of the vertical axis, with its unit if it has one.
        logarithmic: whether it is.
        scale: screen pixels for a picture's pixel.
        across: label of the other axis.
    """
    pictures = {step: to_pixels(images) for step, images in (pictures or {}).items()}
    sizes = [pixels.shape[:3] for pixels in pictures.values()] or [(0, 0, 0)]
    rows, height, width = (max(size[k] for size in sizes) for k in range(3))
    cell_height, cell_width = round(height * scale), round(width * scale)
    plot_width, left, bottom, top = 340, 56, 42, 26
    plot_height = max(200, rows * (cell_height + GAP) - GAP)
    strip = len(pictures) * (cell_width + GAP) + (24 if pictures else 8)

    figure = _figure(left + plot_width + strip, top + plot_height + bottom)
    axes = _place(figure, left, top, plot_width, plot_height)
    for index, (name, (steps, values)) in enumerate(curves.items()):
        colour = list(PALETTE.values())[index % len(PALETTE)]
        dashes = DASHES[index % len(DASHES)]
        axes.plot(steps, values, dashes, color=colour, linewidth=1.4, label=_ascii(name))
    if logarithmic:
        axes.set_yscale("log", subs=[])
        axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    axes.set_xlabel(_ascii(across), fontsize=FONT + 1)
    axes.set_ylabel(_ascii(label), fontsize=FONT + 1)
    axes.tick_params(labelsize=FONT, which="both")
    axes.legend(fontsize=FONT + 1, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    outside = axes.yaxis.get_tightbbox().x0  # below 0, numbers with many digits push the label out
    if outside < 0:
        taken = math.ceil(-outside) + 2
        left, plot_width = left + taken, plot_width - taken
        axes.set_position(_fractions(figure, left, top, plot_width, plot_height))
    for column, (step, pixels) in enumerate(pictures.items()):
        x = left + plot_width + 20 + column * (cell_width + GAP)
        for row, picture in enumerate(pixels):
            y = top + row * (cell_height + GAP)
            cell = _place(figure, x, y, cell_width, cell_height)
            cell.imshow(picture, interpolation="nearest" if scale == int(scale) else "hanning")
            cell.set_axis_off()
            if row == 0:
                _write(cell, 0.5, 1 + 4 / cell_height, f"step {step}", ha="center", va="bottom")
    return figure


def interval_panels(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    unit: tuple[int, int] = (150, 26),
) -> Figure:
    """Draw values with their intervals, a panel for each measure and a row for each thing measured.

    Args:
        panels: name of the measure to name of the row to (value, low, high), with the same rows in
            each; what of an interval lies below 0 is not shown.
        unit: screen pixels of a panel's width and of a row's height.
    """
    rows = list(next(iter(panels.values())))
    left, bottom = _widest(rows) + 14, round(2.2 * LINE) + 13
    top, gap = 8, 24
    width, height = unit[0], unit[1] * len(rows)
    figure = _figure(left + len(panels) * (width + gap), top + height + bottom)
    for column, (name, values) in enumerate(panels.items()):
        axes = _place(figure, left + column * (width + gap), top, width, height)
        middle, low, high = np.array(list(values.values()), dtype=float).T  # [rows] each
        low = low.clip(0)
        axes.errorbar(
            middle, range(len(rows)), xerr=(middle - low, high - middle), fmt="o", markersize=4,
            linewidth=1.2, capsize=2, color=PALETTE["blue"],
        )  # fmt: skip
        axes.set(xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), [_ascii(row) if column == 0 else "" for row in rows])
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(_ascii(name), fontsize=FONT + 1, parse_math=False)
        axes.tick_params(labelsize=FONT)
        axes.grid(axis="y", linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def heat_map(
    matrix: Tensor | np.ndarray | Sequence[Sequence[float]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "",
    number_format: str | None = None,
    limits: tuple[float, float] | None = None,
    cell: int = 26,
) -> Figure:
    """Draw a matrix [R, C] in colours that stay in order when printed gray.

    A number format such as ".2f" writes each value in its cell; the limits are the values of the
    darkest and the lightest colour; a cell is that many screen pixels wide.
    """
    values = torch.as_tensor(matrix).detach().cpu().float().numpy()
    rows, columns = values.shape
    low, high = limits or (float(values.min()), float(values.max()))
    left, bottom = (_widest(labels or [""]) + 14 for labels in (row_labels, column_labels))
    top = 22 if title else 6
    width, height = columns * cell, rows * cell

    figure = _figure(left + width + 62, top + height + bottom)
    axes = _place(figure, left, top, width, height)
    drawn = axes.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(columns) if column_labels is not None else [])
    axes.set_yticks(range(rows) if row_labels is not None else [])
    if column_labels is not None:
        axes.set_xticklabels([_ascii(t) for t in column_labels], rotation=90, parse_math=False)
    if row_labels is not None:
        axes.set_yticklabels([_ascii(t) for t in row_labels], parse_math=False)
    axes.tick_params(labelsize=FONT, length=2)
    axes.set_title(_ascii(title), fontsize=FONT + 1, parse_math=False, pad=5)
    if number_format is not None:
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > (low + high) / 2 else "white"
            text = format(float(value), number_format)
            axes.text(column, row, text, color=colour, fontsize=FONT, ha="center", va="center")
    scale_axes = _place(figure, left + width + 10, top, 10, height)
    figure.colorbar(drawn, cax=scale_axes).ax.tick_params(labelsize=FONT)
    return figure


def diagram(
    boxes: Mapping[str, tuple[float, float, str, str]],
    arrows: Sequence[tuple[str, str] | tuple[str, str, str]],
    unit: tuple[int, int] = (130, 62),
) -> Figure:
    """Draw an architecture as boxes and arrows.

    Args:
        boxes: name to (column, row, text, kind). Columns and rows count from the upper left and
            may be fractions; the kind is data, trained, frozen or loss.
        arrows: (from, to) or (from, to, text beside the arrow).
        unit: screen pixels from one column and one row to the next.
    """
    columns = max(column for column, *_ in boxes.values()) + 1
    rows = max(row for _, row, *_ in boxes.values()) + 1
    width, height = round(columns * unit[0]), round(rows * unit[1])
    box_width, box_height = unit[0] * 0.68, unit[1] * 0.64

    figure = _figure(width, height + 20)
    axes = _place(figure, 0, 0, width, height + 20)
    axes.set(xlim=(0, width), ylim=(height + 20, 0))
    axes.set_axis_off()
    patches, style = {}, {"ha": "center", "va": "center", "parse_math": False}
    for name, (column, row, text, kind) in boxes.items():
        x, y = (column + 0.5) * unit[0], (row + 0.5) * unit[1]
        patches[name] = FancyBboxPatch(
            (x - box_width / 2, y - box_height / 2), box_width, box_height,
            boxstyle="round,pad=0,rounding_size=5", **_box_style(kind),
        )  # fmt: skip
        axes.add_patch(patches[name])
        axes.text(x, y, _wrap(text, box_width - 8), fontsize=FONT, **style)
    for source, target, *text in arrows:
        start, end = (
            [(boxes[name][k] + 0.5) * unit[k] for k in (0, 1)] for name in (source, target)
        )
        axes.add_patch(FancyArrowPatch(
            start, end, patchA=patches[source], patchB=patches[target], arrowstyle="-|>",
            mutation_scale=9, shrinkA=1, shrinkB=1, linewidth=0.9,
        ))  # fmt: skip
        if text:
            x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - LINE * 0.7
            axes.text(x, y, _ascii(text[0]), fontsize=FONT - 1, **style)
    used = {kind for *_, kind in boxes.values()}
    legend = [plt.Rectangle((0, 0), 1, 1, label=kind, **_box_style(kind))
              for kind in BOX_COLOURS if kind in used]  # fmt: skip
    axes.legend(handles=legend, loc="lower left", ncols=len(legend), fontsize=FONT, frameon=False)
    return figure


def _box_style(kind: str) -> dict[str, Any]:
    """Filling and edge of a kind of box."""
    dashes = "--" if kind == "frozen" else "-"
    return {"facecolor": BOX_COLOURS[kind], "edgecolor": "black", "linewidth": 0.8,
            "linestyle": dashes}  # fmt: skip


def _figure(width: float, height: float) -> Figure:
    """Make a figure of that many screen pixels."""
    size = (width + HAIR) / DOTS, (height + HAIR) / DOTS
    return plt.figure(figsize=size, dpi=DOTS, facecolor="white")


def _place(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes whose upper left corner is at (x, y) screen pixels."""
    return figure.add_axes(_fractions(figure, x, y, width, height))


def _fractions(
    figure: Figure, x: float, y: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Turn a place in screen pixels into left, bottom, width and height of a figure's axes."""
    full_width, full_height = figure.get_size_inches() * DOTS
    width, height = width - HAIR, height - HAIR
    bottom = 1 - (y + height) / full_height
    return x / full_width, bottom, width / full_width, height / full_height


def _write(axes: Axes, x: float, y: float, text: str, ha: str, va: str) -> None:
    """Write at a place in fractions of the axes, without TeX: captions may hold dollar signs."""
    style = {"transform": axes.transAxes, "fontsize": FONT, "parse_math": False, "ha": ha, "va": va}
    axes.text(x, y, _ascii(text), **style)


def _wrap(text: str, width: float) -> str:
    """Break each line into lines of so many screen pixels; a word a little longer stays whole."""
    letters, text = max(int(width / CHARACTER), 4), _ascii(text)
    cut = max(map(len, text.split()), default=0) > 1.25 * letters
    return "\n".join(textwrap.fill(line, letters, break_long_words=cut)
                     for line in text.split("\n"))  # fmt: skip


def _widest(texts: Sequence[str]) -> int:
    """Screen pixels that the widest of some lines of text takes."""
    font, measure = FontProperties(size=FONT), RendererAgg(1, 1, DOTS).get_text_width_height_descent
    lines = "\n".join(texts).split("\n")
    return math.ceil(max(measure(_ascii(line), font, False)[0] for line in lines))


def _ascii(text: str) -> str:
    """Put a question mark for each character that the font may lack."""
    return text.encode("ascii", "replace").decode("ascii")
