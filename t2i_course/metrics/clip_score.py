"""CLIP score: how near a picture is to its caption, as a network that learnt from the web sees it.

    CLIPScore(picture, caption) = 100 max(cos(E_picture, E_caption), 0)

hessel2021clipscore has w = 2.5 in place of 100, and puts "A photo depicts" before each caption.
Papers on text to image take 100 and the caption as it is, and so does this module: state it, and
the weights, with the number. CLIP (radford2021clip) runs in transformers, with weights from a
folder. torchmetrics has the same measure; its release 1.9 does not run with transformers 5.

    clip = ClipNetwork("clip-vit-base-patch32")  # a folder: config.json, model.safetensors, ...
    found = clip_score(clip.embed_images(images), clip.embed_captions(captions))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.evaluation import Estimate, bootstrap_interval, feature_pair
from t2i_course.metrics.picture_features import check_pictures

REMEDY = (
    "Name a folder with config.json, model.safetensors, preprocessor_config.json, vocab.json and "
    "merges.txt (or tokenizer.json), such as a copy of openai/clip-vit-base-patch32"
)


class ClipNetwork:
    """CLIP with the transforms and the vocabulary that belong to it.

    Its `fingerprint` is made of weights, vocabulary and transforms.
    """

    def __init__(
        self, weights: str | os.PathLike[str], device: torch.device | str | None = None
    ) -> None:
        """Load a folder as `save_pretrained` writes it, or download OWNER/NAME from the hub.

        Raises:
            FileNotFoundError: there is no such folder.
            OSError: the hub cannot be reached, or has no such model.
            ValueError: the folder holds no CLIP, or not all of it.
        """
        # They take a while to import, and few evaluations need them.
        from transformers import AutoConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

        source = clip_source(weights)
        local = Path(source).is_dir()
        try:
            config = AutoConfig.from_pretrained(source, local_files_only=local)
            if config.model_type != "clip":
                raise ValueError(f"its network is of the kind {config.model_type}")
            network, found = CLIPModel.from_pretrained(
                source, local_files_only=local, output_loading_info=True, dtype=torch.float32
            )
            if missing := sorted(found["missing_keys"]):
                raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
            self.transform = CLIPImageProcessor.from_pretrained(source, local_files_only=local)
            self.tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=local)
            known, needed = len(self.tokenizer), config.text_config.vocab_size
            if known != needed:  # without its files the tokenizer is silently made of two words
                raise ValueError(f"the vocabulary has {known} words, the network {needed}")
        except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            if local:
                raise ValueError(f"{source} holds no whole CLIP ({reason}). {REMEDY}") from error
            raise OSError(
                f"no CLIP {source!r}: not a folder, and the hub gave none ({reason}). {REMEDY}"
            ) from error
        self.device = runtime.choose_device() if device is None else torch.device(device)
        self.network = network.to(self.device).eval()
        self.name = f"CLIP {Path(source).resolve().name}"
        self.fingerprint = self._fingerprint()

    def _fingerprint(self) -> str:
        parts = [sorted(self.tokenizer.get_vocab().items()), self.transform.to_dict()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy())
        return digest.hexdigest()[:16]

    def embed_images(self, images: np.ndarray | Tensor, progress: bool = False) -> np.ndarray:
        """Turn pictures, see `check_pictures`, into features of length 1, float32 [N, E].

        CLIP's own transform resizes them, to 224 pixels as published.
        """
        images = check_pictures(images)

        def embed(rows: slice) -> Tensor:
            part = torch.from_numpy(np.array(images[rows]))
            pixels = self.transform(part, return_tensors="pt")["pixel_values"].to(self.device)
            return self.network.get_image_features(pixels).pooler_output  # [B, E]

        return _in_batches(embed, len(images), 64, "CLIP, pictures", progress)

    def embed_captions(self, captions: Sequence[str], progress: bool = False) -> np.ndarray:
        """Turn N captions into features of length 1, float32 [N, E]; long ones are cut."""
        longest = self.network.config.text_config.max_position_embeddings  # 77 as published

        def embed(rows: slice) -> Tensor:
            tokens = self.tokenizer(
                list(captions[rows]), truncation=True, max_length=longest, padding=True,
                return_tensors="pt",
            ).to(self.device)  # fmt: skip
            return self.network.get_text_features(
                tokens["input_ids"], tokens["attention_mask"]
            ).pooler_output  # [B, E]

        return _in_batches(embed, len(captions), 256, "CLIP, captions", progress)


def _in_batches(
    embed: Callable[[slice], Tensor], count: int, size: int, label: str, progress: bool
) -> np.ndarray:
    """Embed all rows, some at a time; features of length 1, [N, E]."""
    found = []
    for start in tqdm(range(0, count, size), desc=label, disable=not progress):
        with torch.inference_mode():
            features = embed(slice(start, start + size))
        found.append(functional.normalize(features, dim=1).cpu().numpy())
    return np.concatenate(found)


def clip_source(weights: str | os.PathLike[str]) -> str:
    """Return what `from_pretrained` takes: a folder, or a name on the hub; refuse all else."""
    name, path = os.fspath(weights), Path(weights).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"no folder of CLIP's weights at {path}. {REMEDY}")
    return name


def clip_score(
    image_features: np.ndarray | Tensor,
    text_features: np.ndarray | Tensor,
    repeats: int = 200,
) -> Estimate:
    """Mean CLIP score of pictures and their captions, 0 to 100, with a bootstrap interval.

    The cosine is cut at 0 for each pair (hessel2021clipscore), and not for the mean, as
    torchmetrics does it. Features are [N, E], of any length; row i is the caption of picture i.
    """
    images, texts = feature_pair(image_features, text_features, 2)
    if len(images) != len(texts):
        raise ValueError(
            f"{len(images)} pictures and {len(texts)} captions: give one caption for each picture"
        )
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)  # [N]
    cosines = (images * texts).sum(axis=1) / np.where(lengths == 0, 1, lengths)  # [N]
    return bootstrap_interval(np.mean, 100 * np.maximum(cosines, 0), repeats=repeats)
