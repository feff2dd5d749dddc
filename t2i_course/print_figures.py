"""Figures for print: at the size that they have on paper, as PDF with its fonts and as PNG.

    pictures = draw_fresh(["gan", "style"], captions=6, seeds=(0,))
    save(sample_grid(pictures, TEXT_WIDTH), folder / "samples")

Text is 8 points on paper, pictures are shown without smoothing, and things are told apart by their
markers and names, so that a figure serves in grayscale and for colour-blind readers.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from t2i_course import generation
from t2i_course.checkpoints import read_card
from t2i_course.metrics.held_out import draw_pictures
from t2i_course.plots import PALETTE
from t2i_course.runtime import data_folder
from t2i_course.scenes import accuracy, drawing, wording

COLUMN_WIDTH, TEXT_WIDTH = 3.3, 6.3  # inches, of A4 in two columns and in one
DOTS = 300  # per inch, of the PNG
POINTS = 8  # of all text
PRINT = {
    "font.size": POINTS, "axes.titlesize": POINTS, "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS, "ytick.labelsize": POINTS,
    "axes.linewidth": 0.6, "lines.linewidth": 1.0,
    "pdf.fonttype": 42,  # whole TrueType fonts: matplotlib's default, Type 3, many printers refuse
}  # fmt: skip
MARKERS = "osD^vPX*"
COLOURS = [PALETTE[n] for n in ("blue", "vermillion", "green", "purple", "orange", "black")]
LETTER = 0.58  # width of a letter over its height


@dataclass(frozen=True)
class FreshPictures:
    """What generators drew of C fresh captions, with S seeds of the noise."""

    captions: tuple[str, ...]
    real: np.ndarray  # uint8 [C, 3, 64, 64], scenes that they describe
    drawn: dict[str, np.ndarray]  # of each generator, uint8 [S, C, 3, 64, 64]
    right: dict[str, np.ndarray]  # of each, [S, C]: is all right that the caption states?


@dataclass(frozen=True)
class Cost:
    """What a generator is worth, and what it cost."""

    name: str
    seconds: float  # of its training
    steps: int
    machine: str  # that trained it
    share: tuple[float, float, float]  # value, low, high: captions with everything right


def scene_generators() -> list[str]:
    """Names of the generators of scenes in `data/checkpoints`."""
    names = sorted(path.stem for path in (data_folder() / "checkpoints").glob("*.safetensors"))
    cards = {name: read_card(name) for name in names}
    return [
        name for name, card in cards.items()
        if card["model"] in generation.GENERATORS and card.get("data") == "scenes"
        and card["config"].get("image_size") == drawing.SIDE
    ]  # fmt: skip


def draw_fresh(
    names: Sequence[str],
    captions: int = 100,
    seeds: Sequence[int] = (0, 1),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FreshPictures:
    """Let generators draw the same captions, of scenes that nobody has seen; check each picture.

    `seeds` are those of the noise, `seed` is that of the scenes.
    """
    scenes, texts, facts = [], [], []
    for number in range(captions):
        source = random.Random(f"fresh scene {seed} {number}")
        scenes.append(drawing.sample_scene(source))
        text, stated = wording.describe(scenes[-1], source)
        texts.append(text)
        facts.append(stated)
    drawn, right = {}, {}
    for name in names:
        generator, encoder, _ = generation.load_model(name, device)
        with torch.inference_mode():
            features = encoder(texts)
        drawn[name] = np.stack([draw_pictures(generator, features, s) for s in seeds])
        verdicts = [accuracy.check_images(images, facts) for images in drawn[name]]
        right[name] = np.stack([(found != 0).all(axis=1) for found in verdicts])
    return FreshPictures(tuple(texts), drawing.render_all(scenes), drawn, right)


def sample_grid(pictures: FreshPictures, width: float = TEXT_WIDTH) -> Figure:
    """Draw what each generator made with the first seed: a line each, real scenes first.

    As many captions are shown as fit in the width, in inches, at about an inch each.
    """
    left = 0.08 + max(map(len, ["real", *pictures.drawn])) * POINTS * LETTER / 72
    count = min(len(pictures.captions), max(1, round((width - left) / 0.95)))
    side = (width - left) / count - 0.04
    letters = int(side * 72 / POINTS / LETTER)
    titles = [textwrap.fill(text, letters) for text in pictures.captions[:count]]
    top = (1 + max(title.count("\n") + 1 for title in titles)) * POINTS * 1.15 / 72
    lines = {"real": pictures.real, **{name: images[0] for name, images in pictures.drawn.items()}}
    height = top + len(lines) * (side + 0.04) + 0.02  # room for the lowest frame
    with matplotlib.rc_context(PRINT):
        figure = plt.figure(figsize=(width, height))
        for row, (name, images) in enumerate(lines.items()):
            for column in range(count):
                x, y = left + column * (side + 0.04), height - top - (row + 1) * (side + 0.04)
                place = (x / width, y / height, side / width, side / height)
                axes = figure.add_axes(place)
                axes.imshow(images[column].transpose(1, 2, 0), interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                if row == 0:
                    axes.set_title(titles[column], fontsize=POINTS, pad=3, parse_math=False)
                if column == 0:
                    axes.set_ylabel(name, rotation=0, ha="right", va="center", parse_math=False)
    return figure


def cost_figure(costs: Sequence[Cost], width: float = COLUMN_WIDTH) -> Figure:
    """Draw quality against cost: captions with everything right, and minutes of training."""
    with matplotlib.rc_context(PRINT):
        figure, axes = plt.subplots(figsize=(width, 0.72 * width), layout="constrained")
        for number, cost in enumerate(costs):
            value, low, high = (100 * share for share in cost.share)
            minutes = cost.seconds / 60
            axes.errorbar(
                minutes, value, yerr=[[value - low], [high - value]], capsize=2, markersize=5,
                marker=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)],
            )  # fmt: skip
            axes.annotate(
                cost.name, (minutes, value), (6, 5), textcoords="offset points", parse_math=False
            )
        most = max(cost.seconds for cost in costs) / 60
        least = min(cost.seconds for cost in costs) / 60
        axes.set(xscale="log", xlim=(least / 1.6, most * 3), ylim=(-3, 106))
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.set(xlabel="training, minutes", ylabel="everything right, %")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PDF with its fonts in it, and as PNG of 300 dots an inch; close it."""
    files = [path.with_suffix(".pdf"), path.with_suffix(".png")]
    with matplotlib.rc_context(PRINT):
        figure.savefig(files[0], metadata={"CreationDate": None})  # the same bytes another day
        figure.savefig(files[1], dpi=DOTS)
    plt.close(figure)
    return files
