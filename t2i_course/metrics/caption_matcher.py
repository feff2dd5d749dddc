"""A network that says how well a picture and a caption match, for retrieval.

It is a `latent_space.SharedSpace` of its own weights: no generator is trained against them, so that
they can measure. Every other caption of a batch is a negative here. It learns from any data set
in COCO's layout: what it learnt on scenes says nothing about photos. Of photos it sees random cuts,
neither mirrored nor recoloured, for their captions name sides and colours.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from t2i_course.data import Batch
from t2i_course.evaluation import retrieval
from t2i_course.latent_space import SharedSpace, load_shared_space
from t2i_course.metrics.networks import Setting, Task
from t2i_course.metrics.photo_features import random_view
from t2i_course.scenes import drawing
from t2i_course.text_cache import embed_captions
from t2i_course.text_encoder import load_trained_encoder

NAME = "caption-matcher"
SMALLEST = 0.5  # side of the cuts of photos that it learns from


def prepare(setting: Setting) -> Task:
    """A new network and its training, for `networks.train_network`."""
    device, drawn = setting.device, drawing.are_in(setting.folder)
    text = {
        split: embed_captions(setting.encoder, packed.all_captions, progress=setting.progress)
        for split, packed in (("train", setting.train), ("val", setting.val))
    }
    network = SharedSpace(setting.encoder.width, setting.train.size, name=NAME).to(device)

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
) -> SharedSpace:
    """Load a trained matcher, in eval mode; errors as `checkpoints.load_generator`."""
    network = load_shared_space(name, device, NAME)
    network.name = f"caption-matcher {network.fingerprint[:8]}"
    return network


def matched_text(
    matcher: SharedSpace,
    captions: list[str],
    device: torch.device | str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Turn N captions into features in the matcher's space, float32 [N, E], by its own encoder."""
    encoder = load_trained_encoder(matcher.encoder, matcher.name, device)
    return matcher.embed_text(embed_captions(encoder, captions, progress=progress))
