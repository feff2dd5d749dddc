"""Features of photos without labels: SimCLR on the photos themselves (chen2020simclr).

Two views of a photo, cut, mirrored and coloured at random, are to have like features, and those of
all other photos of the batch other ones. No caption and no label takes part. A Frechet distance on
these features is a distance on the features of this network, trained on these photos: it compares
generators on one data set, and is never a FID.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.data import Batch, to_float, to_uint8
from t2i_course.evaluation import retrieval
from t2i_course.metrics.networks import PictureNetwork, Setting, Task, load_network

NAME = "photo-features"
TEMPERATURE = 0.2
SMALLEST = 0.4  # side of a cut, of the photo's


def random_view(
    images: Tensor,
    generator: torch.Generator | None = None,
    smallest: float = SMALLEST,
    cut_only: bool = False,
) -> Tensor:
    """Cut a random square out of each picture, mirror half of them, change their colours.

    Takes and gives [B, 3, S, S] in [-1, 1], on the CPU: a cut, whose side is `smallest` of the
    picture's or more, is brought back to S x S bilinearly. Brightness, contrast and saturation are
    changed, so that colours alone do not tell two photos apart; with `cut_only` neither they nor
    the sides are, for captions name them.
    """
    number = len(images)
    drawn = torch.rand(number, 7, generator=generator)  # [B, 7]
    side = smallest + (1 - smallest) * drawn[:, 0]  # [B], of the photo's
    move = (1 - side)[:, None] * (2 * drawn[:, 1:3] - 1)  # [B, 2], in [-1, 1]
    mirror = torch.where((drawn[:, 3] < 0.5) & (not cut_only), -1.0, 1.0)  # [B]
    matrix = torch.zeros(number, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = side * mirror, side, move
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    view = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    if cut_only:
        return view
    brightness, contrast, saturation = drawn[:, 4:, None, None].unbind(1)  # [B, 1, 1] each
    gray = view.mean(dim=1, keepdim=True)  # [B, 1, S, S]
    view = gray + (view - gray) * (0.4 + 1.2 * saturation)[:, None]
    view = view * (0.6 + 0.8 * contrast)[:, None] + (0.8 * brightness - 0.4)[:, None]
    return view.clamp(-1, 1)


class PhotoFeatures(nn.Module):
    """A picture network that learns from pairs of views; a `picture_features.Extractor`."""

    def __init__(self, image_size: int = 64, width: int = 64) -> None:
        """Build it, with random weights, for pictures of that side and D = `width` features."""
        super().__init__()
        self.name, self.fingerprint, self.width = NAME, "", width
        self.config = {"image_size": image_size, "width": width}
        self.picture = PictureNetwork(width, image_size)
        self.project = nn.Sequential(
            nn.ReLU(), nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Turn uint8 [B, 3, S, S] into features [B, D], in eval mode."""
        return self.picture.read(images)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """NT-Xent of two views (chen2020simclr, equation 1).

            l(i, j) = -log( exp(cos(z_i, z_j) / tau) / sum_{k != i} exp(cos(z_i, z_k) / tau) )

        The mean over all 2B views; both [B, 3, S, S] in [-1, 1], of the same pictures.
        """
        number = len(first)
        projected = self.project(self.picture(torch.cat([first, second]))).float()  # [2B, E]
        unit = functional.normalize(projected, dim=1)
        logits = unit @ unit.T / TEMPERATURE  # [2B, 2B]
        logits = logits.masked_fill(torch.eye(2 * number, dtype=torch.bool, device=first.device),
                                    float("-inf"))  # fmt: skip
        own = torch.arange(2 * number, device=first.device).roll(number)  # the other view's row
        return functional.cross_entropy(logits, own)


def prepare(setting: Setting) -> Task:
    """A new network and its training, for `networks.train_network`; captions are not used."""
    network, device = PhotoFeatures(setting.train.size).to(setting.device), setting.device

    def loss(batch: Batch) -> Tensor:
        return network.loss(*(random_view(batch.images).to(device) for _ in range(2)))

    def measure() -> dict[str, float]:
        draw = torch.Generator().manual_seed(0)
        held = to_float(torch.from_numpy(np.array(setting.val.images[:1000])))  # [N, 3, S, S]
        views = (to_uint8(random_view(held, draw)) for _ in range(2))
        with torch.inference_mode():
            features = [functional.normalize(network(view), dim=1).cpu().numpy() for view in views]
        candidates = min(100, len(held))
        return {
            f"{top} of another view of the same picture among {candidates}, val": found.value
            for top, found in retrieval(*features, candidates).items()
        }

    return Task(network, loss, measure)


def load_photo_features(
    name: str | os.PathLike[str], device: torch.device | str | None = None
) -> PhotoFeatures:
    """Load a trained network, in eval mode; errors as `checkpoints.load_generator`."""
    network, card = load_network(name, {NAME: PhotoFeatures}, device)
    network.name = (
        f"photo-features {network.fingerprint[:8]} of {card['data']}, without labels, "
        f"{network.width} features at {network.picture.image_size} px"
    )
    return network
