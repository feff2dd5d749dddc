"""A small training run that several test files share, and what stops it."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from t2i_course.data import PackedCaptions, pack
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.training import History, MeanSquaredError, TrainingConfig, train

WIDTH = 12  # features of a caption
SHORT = TrainingConfig(
    steps=12,
    batch_size=8,
    learning_rate=3e-3,
    warmup_steps=2,
    validate_every=5,
    validation_images=20,
    checkpoint_every=4,
    precision="float32",
)


class SmallRun:
    """Packed scenes of 16 pixels and made-up text features, the same for the same caption."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.splits = {
            split: pack(folder, split, size=16, cache=cache, progress=False)
            for split in ("train", "val")
        }
        self.text = {split: made_up_features(packed) for split, packed in self.splits.items()}

    def train(self, generator: nn.Module, config: TrainingConfig = SHORT, **options) -> History:
        objective = options.pop("objective", None) or MeanSquaredError(generator, config)
        options = {"device": "cpu", "progress": False, "encoder": "made up"} | options
        parts = (self.splits["train"], self.splits["val"], self.text["train"], self.text["val"])
        return train(objective, config, *parts, **options)


def made_up_features(packed: PackedCaptions) -> np.ndarray:
    rows = [np.random.default_rng(list(text.encode())) for text in packed.all_captions]
    return np.stack([row.normal(size=WIDTH) for row in rows]).astype(np.float32)


def new_generator(noise_dim: int = 4) -> ResidualDecoder:
    torch.manual_seed(1)
    return ResidualDecoder(text_dim=WIDTH, noise_dim=noise_dim, image_size=16, width=16)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def interrupt_at(step: int, number: int = signal.SIGINT):
    """A drawing callback that presses Ctrl-C."""

    def draw(now: int, _: nn.Module) -> None:
        if now == step:
            signal.raise_signal(number)

    return draw


if __name__ == "__main__":  # the run that is killed
    torch.set_num_threads(1)
    scenes_folder, cache_folder, run_folder = map(Path, sys.argv[1:])
    SmallRun(scenes_folder, cache_folder).train(
        new_generator(),
        replace(SHORT, steps=120, checkpoint_every=10),
        run_folder=run_folder,
        resume=True,
    )
