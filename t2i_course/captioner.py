"""A network that says how probable a caption is of a picture, word by word.

p(t | x) = prod_i p(t_i | t_1 ... t_{i-1}, x): convolutions turn the picture into a map of 8 x 8
places, and a transformer that reads the words so far attends to them (vinyals2015show,
xu2015showattend). Every word of a caption has a loss of its own, and "heart" after "a small red
star above a large blue" can only be read in the picture: so it learns what belongs to what in far
fewer steps than a discriminator, which gets one number for picture and sentence.

Trained on real pictures and then left as it is, it tells a generator word by word what its picture
does not show (qiao2019mirrorgan, section 3.3): -log p(t | G(t, z)). No evaluation uses it: whoever
was trained against it would be measured by its own teacher.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.augmentation import augment
from t2i_course.data import Batch, to_float
from t2i_course.metrics.networks import Setting, Task, load_network
from t2i_course.text_encoder import TextEncoder

NAME = "captioner"
GRID = 8  # places to a side of the map
CHANNELS = (32, 64, 96, 128)  # of maps of a half of the side, a quarter, and so on
WIDTH, LAYERS, ATTENTION_HEADS = 128, 2, 4
IGNORED = -100  # cross_entropy's own number for what has no target


class HalvingBlock(nn.Module):
    """Halve the side, with a short way (he2016resnet) and batch normalization."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build the layers."""
        super().__init__()
        self.long = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels), nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )  # fmt: skip
        self.short = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H / 2, W / 2]."""
        return functional.relu(self.short(functional.avg_pool2d(x, 2)) + self.long(x))


class Captioner(nn.Module):
    """Pictures and the words so far to the next word.

    Attributes:
        name: of the checkpoint's kind.
        config: arguments of the constructor.
        fingerprint: the first 16 hex digits of the SHA-256 of the weights' file.
    """

    name = NAME

    def __init__(self, vocabulary: int, longest: int, image_size: int = 64) -> None:
        """Build it, with random weights.

        Args:
            vocabulary: V, how many tokens there are.
            longest: tokens of a caption, at most.
            image_size: S, side of the pictures, pixels: 16, 32, 64, ...

        Raises:
            ValueError: another side.
        """
        super().__init__()
        halvings = (image_size // GRID).bit_length() - 1
        if halvings < 1 or image_size != GRID * 2**halvings:
            raise ValueError(f"image_size {image_size}: choose one of 16, 32, 64, 128, ...")
        self.config = {"vocabulary": vocabulary, "longest": longest, "image_size": image_size}
        self.image_size, self.fingerprint = image_size, ""
        channels = [CHANNELS[min(k, len(CHANNELS) - 1)] for k in range(halvings)]
        self.picture = nn.Sequential(
            nn.Conv2d(3, channels[0], 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels[0]), nn.ReLU(),
            *[HalvingBlock(c, d) for c, d in zip(channels, channels[1:], strict=False)],
            nn.Conv2d(channels[-1], WIDTH, 1), nn.Flatten(2),
        )  # fmt: skip
        self.place = nn.Parameter(0.3 * torch.randn(GRID**2, WIDTH))
        self.normalize = nn.LayerNorm(WIDTH)
        self.word = nn.Embedding(vocabulary, WIDTH)
        nn.init.normal_(self.word.weight, std=0.3)
        self.position = nn.Parameter(0.1 * torch.randn(longest, WIDTH))
        layer = nn.TransformerDecoderLayer(
            WIDTH, ATTENTION_HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.decoder = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(WIDTH))
        self.next = nn.Linear(WIDTH, vocabulary)

    def see(self, images: Tensor) -> Tensor:
        """Turn pictures [B, 3, S, S] in [-1, 1] into what words attend to: [B, 64, 128]."""
        return self.normalize(self.picture(images).mT + self.place)

    def forward(self, seen: Tensor, words: Tensor) -> Tensor:
        """Guess each next word.

        Args:
            seen: [B, 64, 128], what `see` returns.
            words: [B, T], token numbers, from the beginning of each caption.

        Returns:
            Logits [B, T, V] of the words that come next.
        """
        length = words.shape[1]
        x = self.word(words) + self.position[:length]  # [B, T, 128]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        return self.next(self.decoder(x, seen, tgt_mask=mask, tgt_is_causal=True))

    def surprise(self, images: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """How improbable captions are of pictures: -log p(t | x), in nats.

        Args:
            images: [B, 3, S, S] in [-1, 1].
            words: [B, T], token numbers.
            real: [B, T], 1 where there is a token, 0 behind the end.

        Returns:
            [B, T - 1], float32: of each word after the first; 0 behind the end.
        """
        logits = self(self.see(images), words[:, :-1]).float()  # [B, T - 1, V]
        wanted = words[:, 1:].masked_fill(real[:, 1:] == 0, IGNORED)
        return functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        ).unflatten(0, wanted.shape)

    @torch.inference_mode()
    def describe(self, images: Tensor, encoder: TextEncoder) -> list[str]:
        """Word what pictures show, always by the most probable next token.

        Args:
            images: uint8 [B, 3, S, S].
            encoder: whose tokens it was trained on.
        """
        tokenizer = encoder.tokenizer
        seen = self.see(to_float(images).to(self.place.device))
        words = torch.full((len(images), 1), tokenizer.cls_token_id, device=seen.device)
        for _ in range(self.config["longest"] - 1):
            word = self(seen, words)[:, -1].argmax(dim=1, keepdim=True)  # [B, 1]
            words = torch.cat([words, word], dim=1)
            if (words == tokenizer.sep_token_id).any(dim=1).all():
                break
        ended = (words == tokenizer.sep_token_id).cumsum(dim=1) > 0
        words = words.masked_fill(ended, tokenizer.pad_token_id)
        return tokenizer.batch_decode(words, skip_special_tokens=True)


def prepare(setting: Setting) -> Task:
    """A new captioner and its training, for `metrics.networks.train_network`."""
    encoder, device = setting.encoder, setting.device
    network = Captioner(len(encoder.tokenizer), encoder.max_tokens, setting.train.size)
    network.to(device, memory_format=torch.channels_last)

    def loss(batch: Batch) -> Tensor:
        words, real = encoder.tokenize(batch.captions).values()  # [B, T] each
        images = augment(batch.images.to(device), ("translation",))  # [B, 3, S, S]
        images = images.to(memory_format=torch.channels_last)
        return network.surprise(images, words, real).sum() / real[:, 1:].sum()

    def measure() -> dict[str, float]:
        held = setting.val
        captions = [held.all_captions[row] for row in held.caption_starts[:-1]]
        others = captions[1:] + captions[:1]
        return {
            f"nats a caption{of}, val": surprises(network, encoder, held.images, texts).mean()
            for of, texts in (("", captions), (" of another picture", others))
        }

    return Task(network, loss, measure, batch_size=64, learning_rate=1.5e-3)


def surprises(
    network: Captioner, encoder: TextEncoder, images: np.ndarray, captions: Sequence[str]
) -> np.ndarray:
    """Measure how improbable each caption is of its picture.

    Args:
        network: in eval mode.
        encoder: whose tokens it was trained on.
        images: uint8 [N, 3, S, S].
        captions: N of them.

    Returns:
        [N], nats: -log p(t | x), float32.
    """
    found, measure = [], redescription(network, encoder)
    for start in range(0, len(images), 250):
        part = to_float(torch.from_numpy(np.array(images[start : start + 250])))  # [B, 3, S, S]
        with torch.inference_mode():
            found.append(
                measure(part.to(network.place.device), captions[start : start + 250]).cpu()
            )
    return torch.cat(found).numpy()


def redescription(
    network: Captioner, encoder: TextEncoder
) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """What a generator is taught by: -log p(t | x) of pictures and captions, with a gradient.

    Args:
        network: in eval mode, its weights frozen.
        encoder: whose tokens it was trained on.

    Returns:
        A function of pictures [B, 3, S, S] in [-1, 1] and their B captions; it gives [B], nats.
    """

    def redescribe(images: Tensor, captions: Sequence[str]) -> Tensor:
        words, real = (value.to(images.device) for value in encoder.tokenize(captions).values())
        return network.surprise(images, words, real).sum(dim=1)  # [B]

    return redescribe


def load_captioner(
    encoder: TextEncoder,
    name: str | os.PathLike[str] = NAME,
    device: torch.device | str | None = None,
) -> Captioner:
    """Load a trained captioner, in eval mode, with weights that no optimizer moves.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: as `checkpoints.load_generator`, or it was trained on another encoder's tokens.
    """
    network, card = load_network(name, {NAME: Captioner}, device)
    if card["encoder"]["fingerprint"] != encoder.fingerprint:
        raise ValueError(
            f"{os.fspath(name)} reads the tokens of {card['encoder']['name']}, not those of "
            f"{encoder.name}: train one with `python -m t2i_course metric-network captioner "
            f"--encoder {encoder.name}`"
        )
    return network.requires_grad_(False)
