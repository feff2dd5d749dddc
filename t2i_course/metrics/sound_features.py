"""Features of sounds, for FD-sounds: a small network that has learnt to read bounces from sound.

FD-sounds is the Frechet distance (`evaluation.frechet`) on these 64 features, as FID is on
Inception's 2,048. Frechet distances of sound are known as FAD (kilgour2019fad), on features of
VGGish; this is another network, so it has another name, and its numbers compare with each other
only. It learns from true sounds alone and takes no part in the training of any other network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course import checkpoints, runtime
from t2i_course.metrics.networks import descend
from t2i_course.scenes.bouncing_balls import (
    MATERIALS,
    RADII,
    Clip,
    draw_clip,
    impacts,
    synthesise,
)
from t2i_course.video_to_audio import log_mel

NAME = "sound-features"
WIDTH = 64
WINDOWS = 20  # parts of a clip, a tenth of a second each
PITCHES = 8  # classes of size
CLIPS = 4000  # that it learns from


class SoundFeatures(nn.Module):
    """Convolutions over pitch and time, and linear layers that read what was heard."""

    def __init__(self, width: int = WIDTH) -> None:
        """Build it, with random weights."""
        super().__init__()
        self.name, self.config, self.width = NAME, {"width": width}, width
        sizes = (1, 16, 32, 48, 64)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
                )
                for a, b in zip(sizes, sizes[1:], strict=False)
            ),
            nn.AdaptiveAvgPool2d((3, WINDOWS // 2)),
            nn.Flatten(),
            nn.Linear(64 * 3 * WINDOWS // 2, width),
        )
        self.kinds = nn.Linear(width, len(MATERIALS))  # impacts of each material
        self.pitches = nn.Linear(width, PITCHES)  # impacts of each class of size
        self.windows = nn.Linear(width, WINDOWS)  # is there an impact?

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Read features [B, 64] from log mel spectrograms [B, M, N]."""
        return self.layers(spectrogram[:, None])

    def loss(self, spectrogram: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Squared errors of the counts, and cross-entropy of the windows."""
        features = self(spectrogram)
        counts = functional.mse_loss(self.kinds(features), labels["kinds"])
        counts = counts + functional.mse_loss(self.pitches(features), labels["pitches"])
        return counts + functional.binary_cross_entropy_with_logits(
            self.windows(features), labels["windows"]
        )


def read_labels(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Count the impacts of clips: "kinds" [C, 4], "pitches" [C, 8], "windows" [C, 20], floats."""
    kinds = torch.zeros(len(clips), len(MATERIALS))
    pitches, windows = torch.zeros(len(clips), PITCHES), torch.zeros(len(clips), WINDOWS)
    column = {name: index for index, name in enumerate(MATERIALS)}
    for row, clip in enumerate(clips):
        for impact in impacts(clip):
            size = (impact.ball.radius - RADII[0]) / (RADII[1] - RADII[0])
            kinds[row, column[impact.ball.material]] += 1
            pitches[row, min(max(int(size * PITCHES), 0), PITCHES - 1)] += 1
            windows[row, min(int(impact.time / clip.seconds * WINDOWS), WINDOWS - 1)] = 1
    return {"kinds": kinds, "pitches": pitches, "windows": windows}


def spectrograms(sounds: Sequence[np.ndarray]) -> Tensor:
    """Log mel spectrograms [C, M, N] of sounds of one length."""
    return log_mel(torch.from_numpy(np.stack(sounds)))


@torch.inference_mode()
def features_of(network: SoundFeatures, sounds: Sequence[np.ndarray]) -> np.ndarray:
    """Features of sounds of one length, float32 [C, 64]."""
    return torch.cat([network(part) for part in spectrograms(sounds).split(100)]).numpy()


def train(
    steps: int, seed: int, device: torch.device, batch_size: int = 64, progress: bool = True
) -> tuple[SoundFeatures, dict[str, float]]:
    """Train the network on the sounds of drawn clips.

    Returns it, and how well it reads held-out sounds, for its card.
    """
    chance, rng = runtime.seed_everything(seed), np.random.default_rng(seed)
    clips = [draw_clip(rng) for _ in range(CLIPS + CLIPS // 8)]
    heard = spectrograms([synthesise(clip) for clip in clips])
    labels, network = read_labels(clips), SoundFeatures().to(device)

    def batches() -> Iterator[Tensor]:
        while True:
            yield torch.randint(CLIPS, (batch_size,), generator=chance)

    def loss(rows: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            wanted = {name: values[rows].to(device) for name, values in labels.items()}
            return network.loss(heard[rows].to(device), wanted)

    losses = descend(network, loss, batches(), steps, 2e-3, device, 0.05, progress)
    metrics = reading(network, heard[CLIPS:].to(device), clips[CLIPS:])
    return network, metrics | {"loss at the end": round(float(np.mean(losses[-100:])), 4)}


@torch.inference_mode()
def reading(network: SoundFeatures, heard: Tensor, clips: Sequence[Clip]) -> dict[str, float]:
    """How well the features tell what was heard, by name: correlations of counts, right windows."""
    features, labels = network(heard), read_labels(clips)
    found = {}
    for name, layer in (("kinds", network.kinds), ("pitches", network.pitches)):
        pair = torch.stack([layer(features).cpu().flatten(), labels[name].flatten()])
        found[f"correlation of {name}, held out"] = round(float(torch.corrcoef(pair)[0, 1]), 4)
    right = (network.windows(features).cpu() > 0) == labels["windows"].bool()
    return found | {"windows read right, held out": round(float(right.float().mean()), 4)}


def load_sound_features(
    name: str | os.PathLike[str] = NAME, device: torch.device | str | None = None
) -> SoundFeatures:
    """Load the trained network, in eval mode; errors as `checkpoints.load_generator`."""
    return checkpoints.load_generator(name, device, {NAME: SoundFeatures})[0]
