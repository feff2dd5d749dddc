"""From a picture to its caption, and both directions in one network.

p(t | x) = prod_i p(t_i | t_1 ... t_{i-1}, x): convolutions turn the picture into a map of 8 x 8
places, and a decoder that reads the words so far attends to them (vinyals2015show,
xu2015showattend): a transformer, or an LSTM. Every word of a caption has a loss of its own, and
"heart" after "a small red star above a large blue" can only be read in the picture.

    captions = captioner.describe(images, encoder, width=4)  # uint8 [B, 3, 64, 64] to B sentences

A trained captioner is also a generator's second teacher (qiao2019mirrorgan, section 3.3): it tells
word by word what a generated picture does not show, -log p(t | G(t, z)), far more than a
discriminator, which gives one number for picture and sentence. No evaluation uses it: whoever was
trained against it would be measured by its own teacher.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.augmentation import augment
from t2i_course.data import Batch, to_float
from t2i_course.metrics.networks import Setting, Task, load_network
from t2i_course.text_encoder import TextEncoder, load_trained_encoder

NAME = "captioner"
GRID = 8  # places to a side of the map
CHANNELS = (32, 64, 96, 128)  # of maps of a half of the side, a quarter, and so on
WIDTH, LAYERS, ATTENTION_HEADS = 128, 2, 4
DECODERS = ("transformer", "lstm")
TASKS = ("caption", "picture")
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


class LSTMDecoder(nn.Module):
    """Words so far, read one after the other by an LSTM, and a look at the picture for each.

    An LSTM (hochreiter1997lstm) reads a caption in its order, so it needs no mask. Its state asks
    the picture by one attention, as the decoder of xu2015showattend does.
    """

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=LAYERS, batch_first=True)
        self.look = nn.MultiheadAttention(WIDTH, ATTENTION_HEADS, batch_first=True)
        self.normalize = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, seen: Tensor, **unused: object) -> Tensor:
        """Map words [B, T, 128] and places [B, P, 128] to what is known then: [B, T, 128]."""
        state, _ = self.lstm(x)  # [B, T, 128]
        looked, _ = self.look(state, seen, seen, need_weights=False)  # [B, T, 128]
        return self.normalize(state + looked)


class Captioner(nn.Module):
    """Pictures and the words so far to the next word.

    Attributes:
        name: of the checkpoint's kind.
        config: arguments of the constructor.
        fingerprint: the first 16 hex digits of the SHA-256 of the weights' file.
    """

    name = NAME

    def __init__(
        self, vocabulary: int, longest: int, image_size: int = 64, decoder: str = "transformer"
    ) -> None:
        """Build it, with random weights.

        Args:
            vocabulary: V, how many tokens there are.
            longest: tokens of a caption, at most.
            image_size: S, side of the pictures, pixels: 16, 32, 64, ...
            decoder: what reads the words so far, one of `DECODERS`.

        Raises:
            ValueError: another side or decoder.
        """
        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(f"decoder {decoder!r}: choose one of {', '.join(DECODERS)}")
        halvings = (image_size // GRID).bit_length() - 1
        if halvings < 1 or image_size != GRID * 2**halvings:
            raise ValueError(f"image_size {image_size}: choose one of 16, 32, 64, 128, ...")
        self.config = {
            "vocabulary": vocabulary, "longest": longest, "image_size": image_size,
            "decoder": decoder,
        }  # fmt: skip
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
        if decoder == "lstm":
            self.decoder = LSTMDecoder()
        else:
            layer = nn.TransformerDecoderLayer(
                WIDTH, ATTENTION_HEADS, 2 * WIDTH, dropout=0.0, activation="gelu",
                batch_first=True, norm_first=True,
            )  # fmt: skip
            self.decoder = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(WIDTH))
        self.next = nn.Linear(WIDTH, vocabulary)

    def see(self, images: Tensor) -> Tensor:
        """Turn pictures [B, 3, S, S] in [-1, 1] into what words attend to: [B, 64, 128]."""
        return self.normalize(self.picture(images).mT + self.place)

    def read(self, seen: Tensor, words: Tensor) -> Tensor:
        """Read words [B, T] while looking at `seen` [B, P, 128]: what is known after each word.

        Returns:
            [B, T, 128]. No word changes what was known before it.
        """
        length = words.shape[1]
        x = self.word(words) + self.position[:length]  # [B, T, 128]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        return self.decoder(x, seen, tgt_mask=mask, tgt_is_causal=True)

    def forward(self, seen: Tensor, words: Tensor) -> Tensor:
        """Guess each next word.

        Args:
            seen: [B, 64, 128], what `see` returns.
            words: [B, T], token numbers, from the beginning of each caption.

        Returns:
            Logits [B, T, V] of the words that come next.
        """
        return self.next(self.read(seen, words))

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
    def attention(self, images: Tensor, words: Tensor) -> Tensor:
        """Where the network looks before it says each next word.

        Args:
            images: [B, 3, S, S] in [-1, 1].
            words: [B, T], token numbers, from the beginning of each caption.

        Returns:
            [B, T, 8, 8]: the shares of the places, which sum to 1; mean of all layers and heads.
        """
        found: list[Tensor] = []

        def keep(module: nn.MultiheadAttention, inputs: tuple[Tensor, ...], *_: object) -> None:
            found.append(module.forward(*inputs[:3], need_weights=True)[1])  # [B, T, 64]

        looks = [m for name, m in self.decoder.named_modules()
                 if name.endswith(("multihead_attn", "look"))]  # fmt: skip
        hooks = [module.register_forward_hook(keep) for module in looks]
        try:
            self(self.see(images), words)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found).mean(dim=0).unflatten(2, (GRID, GRID))

    @torch.inference_mode()
    def search(self, images: Tensor, encoder: TextEncoder, width: int) -> tuple[Tensor, Tensor]:
        """Look for the most probable captions by `beam_search`.

        Args:
            images: uint8 [B, 3, S, S].
            encoder: whose tokens it was trained on.
            width: K, of the beam; 1 is the greedy search.

        Returns:
            Token numbers [B, K, T], the most probable caption first, and log p(t | x), [B, K].
        """
        seen = self.see(to_float(images).to(self.place.device))  # [B, 64, 128]

        def following(words: Tensor) -> Tensor:
            each = seen.repeat_interleave(len(words) // len(seen), dim=0)  # [B * K, 64, 128]
            return self(each, words)[:, -1].float().log_softmax(dim=1)  # [B * K, V]

        tokens = encoder.tokenizer
        start = torch.full((len(images), 1), tokens.cls_token_id, device=seen.device)
        return beam_search(following, start, tokens.sep_token_id, self.config["longest"], width)

    def describe(self, images: Tensor, encoder: TextEncoder, width: int = 1) -> list[str]:
        """Word what pictures, uint8 [B, 3, S, S], show: the best caption that `search` finds."""
        words, _ = self.search(images, encoder, width)
        return to_text(words[:, 0], encoder)


def beam_search(
    following: Callable[[Tensor], Tensor], start: Tensor, end: int, longest: int, width: int
) -> tuple[Tensor, Tensor]:
    """Keep the `width` most probable beginnings, and add a word to each, until all have ended.

    Width 1 takes the most probable next word, again and again: the greedy search. Only a width as
    large as the number of sequences is sure to find the most probable one.

    Args:
        following: of words [N, T] so far, log-probabilities [N, V] of the next one.
        start: [B, 1], first words.
        end: the word after which a sequence goes on with nothing but itself.
        longest: words of a sequence, at most.
        width: K, sequences that are kept of each of B.

    Returns:
        Words [B, K, T] and their log-probabilities [B, K], the best first; fewer than K where there
        are no more sequences.

    Raises:
        ValueError: a width below 1.
    """
    if width < 1:
        raise ValueError(f"a beam of width {width}: choose 1 (greedy) or more")
    words, scores = start[:, None], torch.zeros(len(start), 1, device=start.device)
    for _ in range(longest - 1):
        steps = following(words.flatten(0, 1)).unflatten(0, scores.shape)  # [B, K, V]
        stay = torch.full_like(steps[0, 0], -torch.inf)
        stay[end] = 0.0  # what has ended stays as it is, and costs nothing
        ended = (words[..., 1:] == end).any(dim=-1)  # [B, K]
        totals = (scores[..., None] + torch.where(ended[..., None], stay, steps)).flatten(1)
        scores, best = totals.topk(min(width, totals.shape[1]))  # [B, K]
        origin, word = best // len(stay), best % len(stay)
        words = words.take_along_dim(origin[..., None], dim=1)  # [B, K, T]
        words = torch.cat([words, word[..., None]], dim=2)  # [B, K, T + 1]
        if (word == end).all():
            break
    return words, scores


def to_text(words: Tensor, encoder: TextEncoder) -> list[str]:
    """Token numbers [N, T] to N sentences; what stands behind the end is left out."""
    tokens = encoder.tokenizer
    ended = (words == tokens.sep_token_id).cumsum(dim=1) > 0
    words = words.masked_fill(ended, tokens.pad_token_id)
    return tokens.batch_decode(words, skip_special_tokens=True)


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], longest: int = 4) -> float:
    """Likeness of N captions to N lists of reference captions, 0 to 1 (papineni2002bleu).

    Runs of one to `longest` words that they share. How true a caption is does not count.
    """
    from torchmetrics.functional.text import bleu_score  # slow to import, and loads transformers

    return float(bleu_score(candidates, references, n_gram=longest))


def prepare(setting: Setting, decoder: str = "transformer") -> Task:
    """A new captioner and its training, for `metrics.networks.train_network`."""
    encoder, device = setting.encoder, setting.device
    size = setting.train.size
    network = Captioner(len(encoder.tokenizer), encoder.max_tokens, size, decoder)
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

    return Task(network, loss, measure, batch_size=64, learning_rate=1.5e-3, steps=8000)


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
    name: str | os.PathLike[str] = NAME, device: torch.device | str | None = None
) -> tuple[Captioner, TextEncoder]:
    """Load a trained captioner, in eval mode, with the encoder whose tokens it writes.

    No optimizer moves its weights.

    Raises:
        OSError: no such weights, or no such encoder.
        ValueError: as `checkpoints.load_generator` and `text_encoder.load_trained_encoder`.
    """
    network, card = load_network(name, {NAME: Captioner}, device)
    encoder = load_trained_encoder(card["encoder"], os.fspath(name), device)
    return network.requires_grad_(False), encoder


# Both directions at once


class BothWays(nn.Module):
    """Captions for pictures and pictures for captions, with one decoder that reads the words.

    The captioner's decoder reads a caption with a picture to look at. With a blank instead, what it
    knows after the last word are the features from which a small decoder draws.

    Attributes:
        captioner: from picture to caption.
        blank: [1, 1, 128], what is looked at where there is no picture.
        draw: from [B, 128, 1, 1] to [B, 3, S, S].
    """

    def __init__(self, captioner: Captioner) -> None:
        """Build what a captioner lacks for the other direction."""
        super().__init__()
        self.captioner = captioner
        self.blank = nn.Parameter(0.3 * torch.randn(1, 1, WIDTH))
        layers: list[nn.Module] = [nn.ConvTranspose2d(WIDTH, 96, 4), nn.BatchNorm2d(96), nn.ReLU()]
        for _ in range((captioner.image_size // 4).bit_length() - 2):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(96, 96, 3, padding=1, bias=False),
                       nn.BatchNorm2d(96), nn.ReLU()]  # fmt: skip
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(96, 3, 3, padding=1), nn.Tanh()]
        self.draw = nn.Sequential(*layers)

    def understand(self, words: Tensor, real: Tensor) -> Tensor:
        """Turn token numbers [B, T], with 1 in `real` for each token, into features [B, 128]."""
        hidden = self.captioner.read(self.blank.expand(len(words), -1, -1), words)  # [B, T, 128]
        return hidden[torch.arange(len(words)), real.sum(dim=1) - 1]

    def losses(
        self, images: Tensor, words: Tensor, real: Tensor, tasks: Sequence[str] = TASKS
    ) -> dict[str, Tensor]:
        """Cross-entropy of a word, squared error of a pixel: of pictures with their captions.

        Args:
            images: [B, 3, S, S] in [-1, 1].
            words: [B, T], token numbers.
            real: [B, T], 1 where there is a token.
            tasks: of which of `TASKS`; the others cost nothing.
        """
        found = {}
        if "caption" in tasks:
            surprise = self.captioner.surprise(images, words, real)  # [B, T - 1]
            found["caption"] = surprise.sum() / real[:, 1:].sum()
        if "picture" in tasks:
            drawn = self.draw(self.understand(words, real)[:, :, None, None])  # [B, 3, S, S]
            found["picture"] = functional.mse_loss(drawn, images)
        return found


class UncertaintyWeighting(nn.Module):
    """Weigh losses by what is learned to be their noise (kendall2018multitask, section 3.2).

    With s = log sigma^2 of each task, a cross-entropy L counts exp(-s) L + s / 2, and a squared
    error exp(-s) L / 2 + s / 2: a noisy task counts little, and s / 2 keeps sigma from growing.
    """

    FACTORS = {"caption": 1.0, "picture": 0.5}

    def __init__(self) -> None:
        """Begin with the same noise, 1, for both tasks."""
        super().__init__()
        start = {name: nn.Parameter(torch.zeros(())) for name in self.FACTORS}
        self.log_variance = nn.ParameterDict(start)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add up the losses of the tasks, by name, as their noise says."""
        parts = [
            self.FACTORS[name] * (-s).exp() * losses[name] + s / 2
            for name, s in self.log_variance.items()
        ]
        return torch.stack(parts).sum()
