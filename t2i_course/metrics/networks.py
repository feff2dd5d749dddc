"""Metric networks: a small convolutional network from pictures to features, and their training.

`metrics.scene_features` reads attributes, `metrics.photo_features` tells photos apart,
`metrics.caption_matcher` compares a picture with captions; no generator is trained against any of
them. `t2i_course.multitask` and the networks of `t2i_course.latent_space`, which generators may be
trained against and which measure nothing, are trained by the same function, and those of sound
(`metrics.sound_features`, `t2i_course.video_to_audio`) by the same loop.

Each of these modules has a function `prepare`, which says what is trained, by which loss, and what
is measured at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from t2i_course import checkpoints, runtime
from t2i_course.data import Batch, CaptionBatches, PackedCaptions, pack, resolve_data, to_float
from t2i_course.photos.caption_check import check_captions
from t2i_course.scenes import drawing
from t2i_course.text_encoder import TextEncoder, card_entry

CHANNELS = (16, 32, 64, 128, 128)  # after the first layer, and after each halving
NO_ENCODER = {"name": "none", "fingerprint": "none", "pooling": "none"}
GRID = 4  # cells to a side that are left before the last layer: features know the place of things


class PictureNetwork(nn.Module):
    """Halve four times, then one linear layer over all places.

    The last layer sees a grid of 4 x 4 cells and not their mean, for a mean has lost what stands
    where. Batch normalization (ioffe2015batchnorm) behind every convolution.
    """

    def __init__(self, width: int, image_size: int = 64) -> None:
        """Build it for `width` features, and pictures whose side is a multiple of 16 pixels."""
        super().__init__()
        if image_size < 16 or image_size % 16:
            raise ValueError(f"pictures of {image_size} pixels cannot be halved four times")
        self.image_size, self.width = image_size, width
        layers: list[nn.Module] = []
        for index, channels in enumerate(CHANNELS):
            before, stride = (3, 1) if index == 0 else (CHANNELS[index - 1], 2)
            layers += [
                nn.Conv2d(before, channels, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten())
        self.features = nn.Linear(CHANNELS[-1] * GRID**2, width)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images [B, 3, S, S] in [-1, 1] into features [B, D]."""
        return self.features(self.layers(images))  # [B, 2048] -> [B, D]

    def read(self, images: Tensor) -> Tensor:
        """Turn bytes, uint8 [B, 3, S, S], into features [B, D], in eval mode, float32.

        Raises:
            ValueError: pictures of another side.
        """
        side = self.image_size
        if images.shape[1:] != (3, side, side):
            raise ValueError(
                f"the network reads pictures of 3 x {side} x {side} values, not of "
                f"{' x '.join(map(str, images.shape[1:]))}: draw or pack them at {side} pixels"
            )
        device = self.features.weight.device
        with torch.inference_mode():
            return self(to_float(images).to(device))


def fit(
    network: nn.Module,
    loss: Callable[[Batch], Tensor],
    data: PackedCaptions,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    progress: bool = True,
) -> list[float]:
    """Train a network on pictures with their captions, drawn anew each epoch; see `descend`."""
    batches = CaptionBatches(data, batch_size, torch.Generator().manual_seed(seed))
    return descend(network, loss, batches, steps, learning_rate, device, progress=progress)


def descend(
    network: nn.Module,
    loss: Callable[[Any], Tensor],
    batches: Iterator[Any],
    steps: int,
    learning_rate: float,
    device: torch.device,
    weight_decay: float = 0.01,
    progress: bool = True,
) -> list[float]:
    """Train a network, and leave it in eval mode.

    AdamW with a rate that rises to `learning_rate` over the first tenth of the steps and falls to
    nothing; bf16 where that is faster. `batches` have no end; `loss` makes a scalar of one. Returns
    the loss of each step.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    rising = max(0.1, 2 / steps)  # two steps at least
    schedule = OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=rising)
    network.train()
    losses: list[float] = []
    with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        for _ in range(steps):
            batch = next(batches)
            with torch.autocast(device.type, torch.bfloat16, enabled=runtime.bf16_pays(device)):
                value = loss(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(value.item())
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"the loss became {losses[-1]} at step {len(losses)}: lower the learning rate"
                )
            bar.update()
    network.eval()
    return losses


@dataclass(frozen=True)
class Setting:
    """What a metric network is trained with: a data set, its packed splits, where and by whom."""

    folder: Path
    train: PackedCaptions
    val: PackedCaptions
    device: torch.device
    encoder: TextEncoder | None  # for networks that take one
    progress: bool


@dataclass(frozen=True)
class Task:
    """A metric network with random weights, and how it is trained."""

    network: nn.Module  # on the device
    loss: Callable[[Batch], Tensor]  # of a batch of training pictures, a scalar on the device
    measure: Callable[[], Mapping[str, float]]  # of the trained network: what its card says
    batch_size: int = 256
    learning_rate: float = 2e-3  # the highest
    steps: int = 3000
    half: bool = False  # whether weights are stored, and measured, in half precision


def train_network(
    prepare: Callable[[Setting], Task],
    data: str,
    output: str | os.PathLike[str],
    steps: int | None = None,
    size: int = 64,
    seed: int = 0,
    device: str | None = None,
    encoder: TextEncoder | None = None,
    batch_size: int | None = None,
    on_bad_image: str = "raise",
    command: str = "",
    progress: bool = True,
) -> Path:
    """Train a metric network, and write weights and model card; return the weights' file.

    `prepare` is that of the kind of network, such as `scene_features.prepare`, and tells `steps`
    and `batch_size` where they are None; `data` is "scenes", or a folder in COCO's layout or of
    shards; `command` trains it again, for the card.

    Raises:
        ValueError: fewer than two pictures are held out, or the encoder cannot read the captions.
    """
    place, folder = runtime.choose_device(device), resolve_data(data)
    train, val = (
        pack(folder, split, size, on_bad_image=on_bad_image, progress=progress)
        for split in ("train", "val")
    )
    if len(val) < 2:  # they are to be told from each other, when all steps are done
        raise ValueError(
            f"{folder} has {len(val)} held-out picture, and 2 are needed at least: a tenth is "
            "held out, so give 20 pictures or more"
        )
    drawn = drawing.are_in(folder)
    if encoder is not None and not drawn:
        check_captions(encoder, train.all_captions)
    runtime.seed_everything(seed)
    task = prepare(Setting(folder, train, val, place, encoder, progress))
    steps, start = steps or task.steps, time.perf_counter()
    losses = fit(
        task.network, task.loss, train, steps, batch_size or task.batch_size, task.learning_rate,
        seed, place, progress,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if task.half:
        task.network.half().float()  # rounded, as whoever loads it will have it
    metrics = {**task.measure(), "loss at the end": np.mean(losses[-100:])}
    card = {
        "encoder": NO_ENCODER if encoder is None else card_entry(encoder),
        "data": "scenes" if drawn else folder.name,
        "command": command,
        "steps": steps,
        "seconds": round(seconds, 1),
        "hardware": runtime.hardware(),
        "metrics": {name: round(float(value), 4) for name, value in metrics.items()},
        "license": "Apache-2.0" if drawn else "as the training data allow",
        "seed": seed,
    }
    weights = task.network.half() if task.half else task.network
    return checkpoints.save_weights(output, weights, card)


def load_network(
    name: str | os.PathLike[str],
    builders: Mapping[str, Callable[..., nn.Module]],
    device: torch.device | str | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a trained metric network, in eval mode, and its card.

    Its `fingerprint` is the first 16 hex digits of the SHA-256 of the weights' file; `builders`
    lead from the name of a kind to its class. Errors are those of `checkpoints.load_generator`.
    """
    place = runtime.choose_device() if device is None else torch.device(device)
    network, card = checkpoints.load_generator(name, place, builders)
    network.fingerprint = card["sha256"][:16]
    return network, card
