"""The networks that an evaluation measures with: which of them fit the data, and loading them.

instruments = load_instruments(held)                   # on scenes: the course's own
instruments = load_instruments(held, matcher="mine")   # on photos: those that learnt from them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from t2i_course.checkpoints import read_card
from t2i_course.fid import InceptionFeatures
from t2i_course.metrics import photo_features
from t2i_course.metrics.caption_matcher import load_caption_matcher
from t2i_course.metrics.clip_score import ClipNetwork
from t2i_course.metrics.held_out import HeldOut
from t2i_course.metrics.picture_features import Extractor
from t2i_course.metrics.scene_features import load_scene_features
from t2i_course.text_encoder import embed_captions, load_trained_encoder


class Matcher(Protocol):
    """What puts pictures and captions into one space, such as `caption_matcher.CaptionMatcher`.

    Attributes:
        name: for the ledger.
        fingerprint: hex digits of the weights.
        encoder: name, fingerprint and pooling of the text encoder whose features it takes.
    """

    name: str
    fingerprint: str
    encoder: dict[str, Any]

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 [N, 3, S, S] into float32 [N, E]."""
        ...

    def embed_text(self, features: np.ndarray) -> np.ndarray:
        """Turn the encoder's features [N, D] into float32 [N, E]."""
        ...


@dataclass(frozen=True)
class Instruments:
    """The networks that measure; None for those that do not.

    Attributes:
        extractor: features for distances, precision and recall.
        matcher: for retrieval.
        inception: features for FID.
        device: of the matcher's text encoder.
        clip: for the CLIP score.
    """

    extractor: Extractor | None = None
    matcher: Matcher | None = None
    inception: InceptionFeatures | None = None
    device: torch.device | str | None = None
    clip: ClipNetwork | None = None


def load_instruments(
    held: HeldOut,
    extractor: str | None = None,
    matcher: str | None = None,
    fid: bool = False,
    inception_weights: str | Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
    clip_weights: str | Path | None = None,
) -> Instruments:
    """Load what fits the data: for scenes the course's own networks, for photos those named.

    Args:
        held: the data.
        extractor: a trained `scene_features` or `photo_features` network, by name or path; None
            for the course's scene-features on scenes and for none on photos, of which that one
            knows nothing.
        matcher: a trained `caption_matcher`, in the same way.
        fid: measure FID, too.
        inception_weights: a file of Inception's weights, which also asks for FID; None loads the
            published ones if `fid` is asked for.
        device: of all of them.
        progress: show a bar if Inception's weights must be downloaded.
        clip_weights: a folder of CLIP's weights, or their name on the hub, which also asks for the
            CLIP score; None for none.

    Raises:
        FileNotFoundError, ValueError, OSError: weights are missing or damaged; ValueError also if
            nothing is left to measure with.
    """
    wanted = {"extractor": extractor, "matcher": matcher}
    loaders = {"extractor": load_scene_features, "matcher": load_caption_matcher}
    if extractor is not None and _is_photo_features(extractor):
        loaders["extractor"] = photo_features.load_photo_features
    networks: dict[str, Any] = {}
    for kind, load in loaders.items():
        if wanted[kind] is not None:
            networks[kind] = load(wanted[kind], device=device)
        elif held.facts is not None:
            networks[kind] = load(device=device)
    if fid or inception_weights is not None:
        networks["inception"] = InceptionFeatures(inception_weights, device, progress)
    if clip_weights is not None:
        networks["clip"] = ClipNetwork(clip_weights, device)
    if not networks:
        raise ValueError(
            f"nothing to measure {held.data} with, for the course's networks know scenes only: "
            "give --fid or --clip-weights, or train networks on these photos and name them with "
            "--extractor and --matcher"
        )
    return Instruments(device=device, **networks)


def _is_photo_features(name: str) -> bool:
    """Say what a checkpoint is; of one that is not there, the loader says so better."""
    try:
        return read_card(name)["model"] == photo_features.NAME
    except FileNotFoundError:
        return False


def matched_text(
    matcher: Matcher,
    captions: list[str],
    device: torch.device | str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Turn captions into features in the matcher's space.

    Args:
        matcher: that reads them.
        captions: N texts.
        device: of the text encoder.
        progress: show a bar.

    Returns:
        float32 [N, E].

    Raises:
        ValueError: the matcher was trained with another text encoder than there is.
    """
    encoder = load_trained_encoder(matcher.encoder, matcher.name, device)
    return matcher.embed_text(embed_captions(encoder, captions, progress=progress))
