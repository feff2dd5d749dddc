"""From captions to features: a frozen BERT, and a mean over real tokens.

BERT: Devlin et al., NAACL 2019. Two sources: the course's own small BERT in
`data/encoders/caption-bert` (the default; see `t2i_course.scenes.pretraining`), or any other BERT
by its name on the hub or its folder, `bert-base-uncased` for one.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase

from t2i_course import runtime

DEFAULT_ENCODER = "caption-bert"
POOLINGS = ("mean", "cls")


@dataclass(frozen=True)
class TextFeatures:
    """What an encoder makes of a batch of captions, and what a generator takes.

    sentence [B, D]: one vector a caption; words [B, T, D]: the last layer, one vector a token;
    mask [B, T]: 1 for a token, 0 for padding.
    """

    sentence: Tensor
    words: Tensor
    mask: Tensor

    def __len__(self) -> int:
        """B, the number of captions."""
        return len(self.sentence)

    def __getitem__(self, rows: slice | Tensor) -> TextFeatures:
        """Some of the captions."""
        return TextFeatures(self.sentence[rows], self.words[rows], self.mask[rows])

    def to(self, device: torch.device | str) -> TextFeatures:
        """The same on a device, features as float32."""
        return TextFeatures(
            self.sentence.to(device, torch.float32),
            self.words.to(device, torch.float32),
            self.mask.to(device),
        )


def choose(take: Tensor, chosen: TextFeatures, other: TextFeatures) -> TextFeatures:
    """The chosen captions where `take` [B] is True, elsewhere the other ones."""
    longest = max(chosen.words.shape[1], other.words.shape[1])

    def pad(part: Tensor) -> Tensor:  # [B, T, ...]
        return functional.pad(part, [0, 0] * (part.ndim - 2) + [0, longest - part.shape[1]])

    return TextFeatures(
        torch.where(take[:, None], chosen.sentence, other.sentence),
        torch.where(take[:, None, None], pad(chosen.words), pad(other.words)),
        torch.where(take[:, None], pad(chosen.mask), pad(other.mask)),
    )


def reshape(text: TextFeatures, *shape: int) -> TextFeatures:
    """The same captions in an array of another shape, such as [K, B] of [K B]."""
    return TextFeatures(*(
        part.reshape(*shape, *part.shape[text.sentence.ndim - 1 :])
        for part in (text.sentence, text.words, text.mask)
    ))  # fmt: skip


def sentence_of(text: TextFeatures | Tensor) -> Tensor:
    """Sentences [B, D] of what a generator takes: features of captions, or sentences alone."""
    return text if isinstance(text, Tensor) else text.sentence


def masked_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Average token features over the real tokens only.

    Args:
        hidden: [B, T, D] features from the encoder's last layer.
        attention_mask: [B, T], 1 for a token, 0 for padding.

    Returns:
        [B, D]. A caption gets the same vector in every batch.

    Raises:
        ValueError: a row of the mask has no token.
    """
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # [B, T, 1]
    lengths = mask.sum(dim=1)  # [B, 1]
    if not bool((lengths > 0).all()):
        raise ValueError("a row of the attention mask has no token: leave empty captions out")
    return (hidden * mask).sum(dim=1) / lengths  # [B, D]


def encoder_folder(pretrained: str | os.PathLike[str] | None) -> str:
    """Return what `from_pretrained` takes: a local folder if there is one, else a hub name.

    Raises:
        FileNotFoundError: the embedded encoder, or a path, does not exist.
    """
    name = os.fspath(pretrained) if pretrained is not None else DEFAULT_ENCODER
    path = Path(name).expanduser()
    embedded = runtime.data_folder() / "encoders" / name
    if len(path.parts) == 1 and embedded.is_dir():
        return str(embedded)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"{path} holds no config.json: name the folder that save_pretrained wrote"
            )
        return str(path)
    if name == DEFAULT_ENCODER:
        raise FileNotFoundError(
            f"the embedded encoder is missing: {embedded}. Restore it from the repository, or make "
            "it again with `python -m t2i_course encoder --help`."
        )
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise FileNotFoundError(f"no encoder folder at {path}: check the path")
    return name


def load_bert(source: str) -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Read vocabulary and weights; OSError where folder or hub do not give them."""
    try:
        return AutoTokenizer.from_pretrained(source), BertModel.from_pretrained(
            source, add_pooling_layer=False, dtype=torch.float32, attn_implementation="eager"
        )
    except (OSError, safetensors.SafetensorError) as error:
        if Path(source).is_dir():
            raise OSError(f"the encoder in {source} cannot be read: {error}") from error
        raise OSError(
            f"no encoder {source!r}: not a folder, and the hub gave none ({error}). "
            "Download it once where there is a network, and name its folder."
        ) from error


class TextEncoder(nn.Module):
    """BERT with one vector a caption.

    Args:
        pretrained: name or folder of a BERT; None for the embedded caption-bert.
        pooling: "mean" over the real tokens, or "cls", the first token's vector.
        frozen: no gradients, and eval mode that `train()` does not leave.
        device: where the weights go.

    Raises:
        FileNotFoundError: no such folder.
        OSError: the hub cannot be reached or has no such model.
        ValueError: unknown pooling.
    """

    def __init__(
        self,
        pretrained: str | os.PathLike[str] | None = None,
        pooling: str = "mean",
        frozen: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        """Load the weights and the vocabulary."""
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
        self.tokenizer, self.bert = load_bert(encoder_folder(pretrained))
        self.name = os.fspath(pretrained) if pretrained is not None else DEFAULT_ENCODER
        self.pooling, self.frozen = pooling, frozen
        if frozen:
            self.requires_grad_(False).eval()
        if device is not None:
            self.to(device)

    @property
    def width(self) -> int:
        """D, the number of features of a caption."""
        return self.bert.config.hidden_size

    @property
    def max_tokens(self) -> int:
        """The longest sequence the encoder takes, [CLS] and [SEP] included."""
        return self.bert.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.bert.parameters()).device

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of weights, vocabulary and pooling: the key of cached features."""
        digest = hashlib.sha256(self.pooling.encode())
        digest.update(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, value in sorted(self.bert.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(self, mode: bool = True) -> TextEncoder:
        """Switch dropout on, unless the encoder is frozen."""
        return super().train(mode and not self.frozen)

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token numbers and mask, [B, T] each, cut at the model's limit, on the model's device.

        Raises:
            ValueError: no caption, or an empty one.
            TypeError: what stands in the place of a caption is no text.
        """
        captions = list(captions)
        if not captions:
            raise ValueError("no captions to encode: give at least one")
        check_texts(captions)
        tokens = self.tokenizer(
            captions,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        return {name: value.to(self.device) for name, value in tokens.items()}

    def forward(self, captions: Sequence[str]) -> TextFeatures:
        """Encode a batch of captions.

        Args:
            captions: B strings, none empty; longer ones than `max_tokens` are cut.

        Returns:
            Sentence features [B, D], token features [B, T, D] and their mask [B, T].
        """
        tokens = self.tokenize(captions)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            hidden = self.bert(**tokens).last_hidden_state  # [B, T, D]
        mask = tokens["attention_mask"]
        sentence = masked_mean(hidden, mask) if self.pooling == "mean" else hidden[:, 0]  # [B, D]
        return TextFeatures(sentence, hidden, mask)


def count_tokens(encoder: TextEncoder, caption: str) -> int:
    """Number of tokens of a caption before any cut, [CLS] and [SEP] included."""
    return token_counts(encoder, [caption])[0]


def token_counts(encoder: TextEncoder, captions: list[str]) -> list[int]:
    """The same of each of many captions; callers say themselves that one is too long."""
    return [len(tokens) for tokens in encoder.tokenizer(captions, verbose=False)["input_ids"]]


def unknown_words(encoder: TextEncoder, caption: str) -> list[str]:
    """Words of a caption that the encoder's vocabulary cannot spell, in order."""
    pieces = {word: encoder.tokenizer.tokenize(word) for word in caption.split()}
    unknown = encoder.tokenizer.unk_token
    return [word for word in caption.split() if not pieces[word] or unknown in pieces[word]]


def check_texts(captions: Sequence[str]) -> None:
    """Check captions before they are encoded.

    Raises:
        TypeError: one is no text, such as a picture.
        ValueError: one is empty.
    """
    for row, caption in enumerate(captions):
        if not isinstance(caption, str):
            kind = type(caption).__name__
            raise TypeError(f"caption {row} is a {kind}, no text: are images and captions swapped?")
        if not caption.strip():
            raise ValueError(f"caption {row} is empty ({caption!r}): leave it out or word it")


def write_encoder(folder: Path, bert: BertModel, card: Mapping[str, object]) -> None:
    """Write weights, in half precision, and card.json with their sha256 into a folder."""
    copy.deepcopy(bert).half().save_pretrained(folder)
    digest = runtime.file_hash(folder / "model.safetensors")
    text = json.dumps({**card, "sha256": digest}, indent=2) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8", newline="\n")


def card_entry(encoder: TextEncoder) -> dict[str, str]:
    """Name, fingerprint and pooling, as model cards have them for `load_trained_encoder`."""
    return {
        "name": encoder.name, "fingerprint": encoder.fingerprint, "pooling": encoder.pooling,
    }  # fmt: skip


def load_trained_encoder(
    named: Mapping[str, str], network: str, device: torch.device | str | None = None
) -> TextEncoder:
    """Load the text encoder that a network reads by, `named` by the `card_entry` in its card.

    Raises:
        OSError: there is no such encoder.
        ValueError: the encoder of that name is another one now.
    """
    encoder = TextEncoder(named["name"], pooling=named["pooling"], device=device)
    if encoder.fingerprint != named["fingerprint"]:
        raise ValueError(
            f"{network} reads by another encoder {named['name']!r} (fingerprint "
            f"{named['fingerprint']}, here {encoder.fingerprint}): restore that encoder, or train "
            "anew"
        )
    return encoder


def warn_if_cut(encoder: TextEncoder, captions: Sequence[str]) -> int:
    """Count different captions that are longer than the encoder takes; warn if there are any."""
    limit = encoder.max_tokens
    cut = sum(count > limit for count in token_counts(encoder, list(set(captions))))
    if cut:
        warnings.warn(f"{cut} captions are longer than {limit} tokens and are cut there",
                      stacklevel=2)  # fmt: skip
    return cut
