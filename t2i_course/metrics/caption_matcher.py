"""A network that says how well a picture and a caption match, for retrieval.

Two towers (radford2021clip): a picture network, and a small head on the text encoder's features.
A symmetric InfoNCE loss pulls a picture and its caption together and pushes all others of the batch
apart. No generator is trained against it, so that it can measure them. It learns from any data set
in COCO's layout: what it learnt on scenes says nothing about photos. Of photos it sees random cuts,
neither mirrored nor recoloured, for their captions name sides and colours.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.data import Batch
from t2i_course.evaluation import retrieval
from t2i_course.metrics.networks import PictureNetwork, Setting, Task, load_network
from t2i_course.metrics.photo_features import random_view
from t2i_course.scenes import drawing
from t2i_course.text_encoder import embed_captions, load_trained_encoder

NAME = "caption-matcher"
WIDTH = 128
SMALLEST = 0.5  # side of the cuts of photos that it learns from


class CaptionMatcher(nn.Module):
    """Features of pictures and of captions in one space, of length 1.

    Attributes:
        name: of the checkpoint's kind, and, once loaded, for the ledger.
        config: arguments of the constructor.
        fingerprint: the first 16 hex digits of the SHA-256 of the weights' file.
        encoder: name, fingerprint and pooling of the text encoder whose features it takes.
    """

    def __init__(self, text_dim: int, image_size: int = 64, width: int = WIDTH) -> None:
        """Build it, with random weights.

        Args:
            text_dim: D, width of the text encoder's features.
            image_size: side of the pictures, pixels.
            width: E, of the common space.
        """
        super().__init__()
        self.name, self.fingerprint, self.encoder = NAME, "", {}
        self.config = {"text_dim": text_dim, "image_size": image_size, "width": width}
        self.picture = PictureNetwork(width, image_size)
        self.text = nn.Sequential(
            nn.LayerNorm(text_dim), nn.Linear(text_dim, 512), nn.GELU(), nn.Linear(512, width)
        )
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())  # 1 / temperature

    def loss(self, images: Tensor, text: Tensor) -> Tensor:
        """Symmetric InfoNCE (radford2021clip, figure 3).

        Args:
            images: [B, 3, S, S] in [-1, 1].
            text: [B, D], features of a caption of each.
        """
        pictures = functional.normalize(self.picture(images).float(), dim=1)  # [B, E]
        captions = functional.normalize(self.text(text).float(), dim=1)  # [B, E]
        logits = self.log_scale.exp().clamp(max=100) * pictures @ captions.T  # [B, B]
        own = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

    def embed_images(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Turn uint8 [N, 3, S, S] into float32 [N, E] of length 1."""
        found = []
        for start in range(0, len(images), 250):
            part = torch.from_numpy(np.array(images[start : start + 250]))  # [B, 3, S, S]
            found.append(functional.normalize(self.picture.read(part), dim=1))  # [B, E]
        return torch.cat(found).cpu().numpy()

    def embed_text(self, features: np.ndarray | Tensor) -> np.ndarray:
        """Turn the text encoder's features [N, D] into float32 [N, E] of length 1."""
        features = torch.from_numpy(np.asarray(features).astype(np.float32))
        with torch.inference_mode():
            found = self.text(features.to(self.log_scale.device))
            return functional.normalize(found, dim=1).cpu().numpy()


def prepare(setting: Setting) -> Task:
    """A new network and its training, for `networks.train_network`.

    A step of 256 pairs gives each caption that many pictures to choose from.
    """
    device, drawn = setting.device, drawing.are_in(setting.folder)
    text = {
        split: embed_captions(setting.encoder, packed.all_captions, progress=setting.progress)
        for split, packed in (("train", setting.train), ("val", setting.val))
    }
    network = CaptionMatcher(setting.encoder.width, setting.train.size).to(device)

    def loss(batch: Batch) -> Tensor:
        images = batch.images  # [B, 3, S, S]
        if not drawn:  # a few thousand photos are soon overfit; a scene that is cut is another one
            images = random_view(images, smallest=SMALLEST, cut_only=True)
        features = torch.from_numpy(np.asarray(text["train"][batch.caption_rows.numpy()]))
        return network.loss(images.to(device), features.to(device))

    def measure() -> dict[str, float]:
        first = np.asarray(setting.val.caption_starts[:-1])
        features = network.embed_images(setting.val.images), network.embed_text(text["val"][first])
        candidates = min(100, len(first))
        return {
            f"{top} of real pictures among {candidates} captions, val": found.value
            for top, found in retrieval(*features, candidates).items()
        }

    return Task(network, loss, measure, learning_rate=1e-3)


def load_caption_matcher(
    name: str | os.PathLike[str] = NAME, device: torch.device | str | None = None
) -> CaptionMatcher:
    """Load a trained matcher, in eval mode.

    Raises:
        FileNotFoundError, ValueError: as `checkpoints.load_generator`.
    """
    network, card = load_network(name, {NAME: CaptionMatcher}, device)
    network.encoder = card["encoder"]
    network.name = f"caption-matcher {network.fingerprint[:8]}"
    return network


def matched_text(
    matcher: CaptionMatcher,
    captions: list[str],
    device: torch.device | str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Turn N captions into features in the matcher's space, float32 [N, E].

    Raises:
        ValueError: the matcher was trained with another text encoder than there is.
    """
    encoder = load_trained_encoder(matcher.encoder, matcher.name, device)
    return matcher.embed_text(embed_captions(encoder, captions, progress=progress))
