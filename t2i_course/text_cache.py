"""Features of captions, kept on disk: each different caption is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.text_encoder import TextEncoder, TextFeatures, check_texts, token_counts

BATCH = 256  # captions encoded at once


@dataclass(frozen=True)
class EmbeddedCaptions:
    """Features of N captions on disk, sentence and words, as `embed_words` leaves them."""

    sentence: np.ndarray  # [M, D] of the M different captions, memory-mapped
    words: np.ndarray  # [all their tokens, D], half precision, memory-mapped
    starts: np.ndarray  # [M + 1]; different caption m has words[starts[m] : starts[m + 1]]
    which: np.ndarray  # [N], which of the different ones each caption is

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self.which), self.sentence.shape[1]

    def __len__(self) -> int:
        """N, the number of captions."""
        return len(self.which)

    def __getitem__(self, rows: np.ndarray | slice) -> TextFeatures:
        """Features of the captions in rows [B] or in a slice, padded to the longest of them."""
        which = self.which[rows]  # [B]
        first, end = self.starts[which], self.starts[which + 1]
        words = np.zeros((len(which), int((end - first).max()), self.shape[1]), np.float32)
        for row, (a, b) in enumerate(zip(first, end, strict=True)):
            words[row, : b - a] = self.words[a:b]
        mask = np.arange(words.shape[1]) < (end - first)[:, None]
        sentence = torch.from_numpy(self.sentence[which])
        return TextFeatures(sentence, torch.from_numpy(words), torch.from_numpy(mask).long())


def sentence_rows(text: np.ndarray | EmbeddedCaptions, rows: np.ndarray | slice) -> np.ndarray:
    """Sentences [..., D] of the captions in rows [...] of what `embed_for` gives."""
    return text.sentence[text.which[rows]] if isinstance(text, EmbeddedCaptions) else text[rows]


def embed_captions(
    encoder: TextEncoder,
    captions: Sequence[str],
    cache: Path | str | None = None,
    progress: bool = True,
    dtype: str = "float32",
) -> np.ndarray:
    """Encode each different caption once, and keep the features for the next run.

    The cache is keyed by the encoder (weights, vocabulary, pooling), the captions and the dtype.
    Processes that ask at the same time wait for the first. The features are never in memory all at
    once; a file has its name only when it is whole.

    Args:
        encoder: a frozen encoder.
        captions: N captions, repeated ones welcome.
        cache: folder of the cache; by default `cache/embeddings` in the data folder.
        progress: show a bar.
        dtype: "float32", or "float16": half the disk, rounded to 11 bits.

    Returns:
        Memory-mapped [N, D] of that dtype, rows in the captions' order.

    Raises:
        ValueError: the encoder is not frozen, a caption is empty, or the dtype is another one.
        OSError: the disk is full.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"unknown dtype {dtype!r}: choose float32 or float16")
    different, which, name = _different(encoder, captions, cache)
    path = Path(f"{name}.npy" if dtype == "float32" else f"{name}-{dtype}.npy")
    with runtime.locked(path):
        if not path.is_file():
            order = np.argsort(which, kind="stable")  # [N], equal captions side by side
            bounds = np.searchsorted(which[order], np.arange(len(different) + 1))  # [M + 1]
            shape = (len(captions), encoder.width)
            with runtime.atomic_array(path, dtype, shape) as features:
                for rows, text in _encode_by_length(encoder, different, progress):
                    sentences = _as_dtype(text.sentence.numpy(), dtype)  # [B, D]
                    for row, sentence in zip(rows, sentences, strict=True):
                        features[order[bounds[row] : bounds[row + 1]]] = sentence
    return np.load(path, mmap_mode="r")


def embed_words(
    encoder: TextEncoder,
    captions: Sequence[str],
    cache: Path | str | None = None,
    progress: bool = True,
) -> EmbeddedCaptions:
    """The same with the words, in half precision: 2 D bytes a token.

    COCO's 590,000 captions have 8 million tokens; with a D of 768 that is 12 GB, with the small
    BERT's 256 it is 4 GB.
    """
    different, which, name = _different(encoder, captions, cache)
    counts = np.minimum(token_counts(encoder, different), encoder.max_tokens)  # [M]
    starts = np.cumsum([0, *counts])  # [M + 1]
    words_file, sentences_file = Path(f"{name}-words.npy"), Path(f"{name}-sentences.npy")
    with runtime.locked(words_file):
        if not (words_file.is_file() and sentences_file.is_file()):
            shapes = (int(starts[-1]), encoder.width), (len(different), encoder.width)
            with (
                runtime.atomic_array(words_file, "float16", shapes[0]) as tokens,
                runtime.atomic_array(sentences_file, "float32", shapes[1]) as sentences,
            ):
                for rows, text in _encode_by_length(encoder, different, progress):
                    sentences[rows] = text.sentence.numpy()
                    words = _as_dtype(text.words.numpy(), "float16")  # [B, T, D]
                    for row, vectors in zip(rows, words, strict=True):
                        tokens[starts[row] : starts[row + 1]] = vectors[: counts[row]]
    sentences, words = (np.load(file, mmap_mode="r") for file in (sentences_file, words_file))
    return EmbeddedCaptions(sentences, words, starts, which)


def embed_for(
    generator: nn.Module,
    encoder: TextEncoder,
    captions: Sequence[str],
    progress: bool = True,
    dtype: str = "float32",
) -> np.ndarray | EmbeddedCaptions:
    """What a generator takes of captions: sentences [N, D], and words if it `takes_words`."""
    if getattr(generator, "takes_words", False):
        return embed_words(encoder, captions, progress=progress)
    return embed_captions(encoder, captions, progress=progress, dtype=dtype)


def _different(
    encoder: TextEncoder, captions: Sequence[str], cache: Path | str | None
) -> tuple[list[str], np.ndarray, Path]:
    """The M different captions, which of them each is [N], and how the files are called."""
    if not encoder.frozen:
        raise ValueError(
            "only a frozen encoder's features can be kept: use TextEncoder(frozen=True)"
        )
    check_texts(captions)
    numbers: dict[str, int] = {}
    which = np.array([numbers.setdefault(caption, len(numbers)) for caption in captions])
    folder = Path(cache) if cache is not None else runtime.data_folder() / "cache" / "embeddings"
    key = hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16]
    return list(numbers), which, folder / f"{encoder.fingerprint}-{key}"


def _encode_by_length(
    encoder: TextEncoder, captions: Sequence[str], progress: bool
) -> Iterator[tuple[np.ndarray, TextFeatures]]:
    """Rows [B] of captions of like length, to save padding, and their features on the CPU."""
    order = np.argsort([len(caption) for caption in captions], kind="stable")
    with tqdm(total=len(order), desc="encoding captions", disable=not progress) as bar:
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            with torch.inference_mode():
                yield rows, encoder([captions[row] for row in rows.tolist()]).to("cpu")
            bar.update(len(rows))


def _as_dtype(features: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 features; ValueError if one is too large for half precision."""
    with np.errstate(over="ignore"):
        rounded = features.astype(dtype)
    if np.isfinite(features).all() and not np.isfinite(rounded).all():
        raise ValueError("the encoder gives features above 65,504: keep them as float32")
    return rounded
