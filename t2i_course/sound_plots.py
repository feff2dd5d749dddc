"""Pictures of sounds: waves above their spectrograms, with the moments that matter marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from t2i_course.plots import DOTS, PALETTE

TICKS = (500, 1000, 2000)  # Hz


def sound_panels(
    sounds: Mapping[str, tuple[np.ndarray, Tensor]],
    marks: Sequence[float],
    seconds: float,
    frequencies: Sequence[float],
) -> Figure:
    """Draw waves above their spectrograms, a column for each sound.

    Args:
        sounds: name to (wave [samples], levels [M, N] from 0 to 1).
        marks: seconds, such as those of impacts: lines above, white triangles below.
        seconds: how long the sounds last.
        frequencies: of the M bands, Hz, rising.
    """
    figure, axes = plt.subplots(
        2, len(sounds), figsize=(4 * len(sounds), 2.8), dpi=DOTS, layout="constrained",
        height_ratios=(1, 3), squeeze=False, sharex=True,
    )  # fmt: skip
    loudest = max(float(np.abs(wave).max()) for wave, _ in sounds.values())
    ticks, bands = np.searchsorted(frequencies, TICKS), len(frequencies)
    for (above, below), (name, (wave, levels)) in zip(axes.T, sounds.items(), strict=True):
        above.plot(np.linspace(0, seconds, len(wave)), wave, linewidth=0.5, color=PALETTE["blue"])
        above.vlines(marks, -loudest, loudest, color=PALETTE["vermillion"], linewidth=0.7)
        above.set(yticks=[], title=name, xlim=(0, seconds), ylim=(-loudest, loudest))
        below.imshow(torch.as_tensor(levels).numpy(), origin="lower", aspect="auto", cmap="magma",
                     vmin=0, vmax=0.9, extent=(0, seconds, 0, bands))  # fmt: skip
        below.plot(marks, [bands - 3] * len(marks), "v", color="white", markersize=4)
        below.set(xlabel="seconds", yticks=ticks, yticklabels=TICKS)
    axes[1, 0].set_ylabel("Hz")
    return figure
