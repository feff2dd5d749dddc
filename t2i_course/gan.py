"""A conditional generative adversarial network, each ingredient of which is one switch.

The generator is in the line of DF-GAN (tao2022dfgan): text and noise set scale and shift of every
channel in every block. The discriminator sees picture and text, and is shown, beside real and
generated pictures, real pictures with captions that are false of them (reed2016text). In coarse
maps of both, every place looks at the caption's words (xu2018attngan). `Gan` is an objective for
the loop of `t2i_course.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course import adversarial_losses as losses
from t2i_course.augmentation import AUGMENTATIONS, augment
from t2i_course.image_decoder import ResidualDecoder, Standardize, check_inputs
from t2i_course.processes import TrainingBatch, without_wrapping
from t2i_course.text_encoder import TextFeatures, reshape, sentence_of
from t2i_course.training import option

SLOPE = 0.2  # of the leaky ReLU below 0
SIDES = (8, 16)  # of the maps whose places look at words
HEADS, HEAD = 4, 16  # looks of a place, each in so many numbers


@dataclass(frozen=True)
class GanConfig:
    """The ingredients. The ablation ladder goes through them one by one."""

    noise_dim: int = option(64, "Z, numbers of the noise")
    width: int = option(16, "channels of the GAN's generator at S x S")
    text_blocks: bool = option(True, "text in every block; else it enters at 4 x 4 only")
    words: bool = option(True, "places of both networks look at words; needs text_blocks")
    matching_aware: bool = option(True, "show the discriminator false captions of real pictures")
    false_captions: int = option(4, "of each real picture, in a step")
    contradicting: float = option(
        0.75, "share of false captions that contradict in one fact, if known"
    )
    projection: bool = option(True, "inner product of picture and text in the discriminator")
    penalty: bool = option(True, "matching-aware gradient penalty")
    penalty_every: int = option(8, "steps; the penalty is scaled by as much (karras2020stylegan2)")
    augment: tuple[str, ...] = option(
        ("translation",), "DiffAugment, where captions stay true", AUGMENTATIONS
    )
    redescription: float = option(
        0.0, "weight of -log p(caption | generated picture), by a trained captioner"
    )
    generator_rate: float = option(5e-4, "learning rate of the generator")
    discriminator_rate: float = option(1e-3, "of the discriminator (heusel2017fid)")

    def __post_init__(self) -> None:
        """Raise ValueError for ingredients that are not known."""
        if unknown := [name for name in self.augment if name not in AUGMENTATIONS]:
            known = ", ".join(AUGMENTATIONS)
            raise ValueError(f"unknown augmentation {unknown[0]!r}: choose from {known}")
        checks = {
            "0 or more": (lambda value: value >= 0, ("redescription",)),
            "0 to 1": (lambda value: 0 <= value <= 1, ("contradicting",)),
            "1 or more": (lambda value: value >= 1,
                          ("noise_dim", "width", "penalty_every", "false_captions")),
            "above 0": (lambda value: value > 0, ("generator_rate", "discriminator_rate")),
        }  # fmt: skip
        for what, (right, names) in checks.items():
            for name in names:
                if not right(getattr(self, name)):
                    raise ValueError(f"{name} must be {what}, not {getattr(self, name)}")


class Modulation(nn.Module):
    """Scale and shift of every channel, from the latent vector: x <- (1 + a(w)) x + b(w).

    tao2022dfgan, section 3.4. With all weights 0 it is the identity.
    """

    def __init__(self, latent_dim: int, channels: int) -> None:
        """Build the layer that gives a and b."""
        super().__init__()
        self.affine = nn.Linear(latent_dim, 2 * channels)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Modulate [B, C, H, W] by latent [B, W]."""
        scale, shift = self.affine(latent)[:, :, None, None].chunk(2, dim=1)  # [B, C, 1, 1] each
        return x * (1 + scale) + shift


class TextBlock(nn.Module):
    """Double the side, with text and noise in both convolutions.

    y = W up(x) + conv(act(mod(conv(act(mod(up(x)))))))
    """

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int) -> None:
        """Build the layers."""
        super().__init__()
        self.modulation1 = Modulation(latent_dim, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation2 = Modulation(latent_dim, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', 2H, 2W]."""
        short = functional.interpolate(self.skip(x), scale_factor=2, mode="bilinear")
        long = functional.leaky_relu(self.modulation1(x, latent), SLOPE)
        long = self.conv1(functional.interpolate(long, scale_factor=2))  # [B, C', 2H, 2W]
        long = self.conv2(functional.leaky_relu(self.modulation2(long, latent), SLOPE))
        return short + long


class WordAttention(nn.Module):
    """Every place of a map looks at the words of the caption, and adds what it finds.

        a_pk = softmax_k(q(x_p)^T k(e_k) / sqrt(d)),    x_p <- x_p + W sum_k a_pk v(e_k)

    xu2018attngan, section 3.1; here with `HEADS` looks a place, queries that know their place, and
    BERT's words e_k.
    """

    def __init__(self, channels: int, word_dim: int, side: int) -> None:
        """Build the layers for maps [B, C, side, side]."""
        super().__init__()
        wide = HEADS * HEAD
        self.norm, self.query = nn.LayerNorm(channels), nn.Linear(channels, wide)
        self.place = nn.Parameter(0.3 * torch.randn(side * side, wide))
        self.key, self.value = nn.Linear(word_dim, wide), nn.Linear(word_dim, wide)
        self.out = nn.Linear(wide, channels)

    def weights(self, x: Tensor, text: TextFeatures) -> Tensor:
        """Share [B, heads, P, T] of its look that each of P places gives to each of T words."""
        places = x.flatten(2).mT  # [B, P, C]
        query = split_heads(self.query(self.norm(places)) + self.place)  # [B, heads, P, 16]
        scores = query @ split_heads(self.key(text.words)).mT / HEAD**0.5  # [B, heads, P, T]
        return scores.masked_fill(text.mask[:, None, None] == 0, -torch.inf).softmax(dim=-1)

    def forward(self, x: Tensor, text: TextFeatures) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        found = self.weights(x, text) @ split_heads(self.value(text.words))  # [B, heads, P, 16]
        found = self.out(found.transpose(1, 2).flatten(2))  # [B, P, C]
        return x + found.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def split_heads(features: Tensor) -> Tensor:
    """[B, N, heads x 16] to [B, heads, N, 16]."""
    return features.unflatten(-1, (HEADS, HEAD)).transpose(1, 2)


class TextGenerator(nn.Module):
    """From text and noise to a picture, by four blocks at S = 64.

    Attributes:
        config: the arguments that build it again.
        takes_words: does it look at words, or at the sentence alone?
    """

    name = "gan"
    takes_words = True

    def __init__(
        self,
        text_dim: int,
        noise_dim: int = 64,
        image_size: int = 64,
        width: int = 16,
        words: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            noise_dim: Z.
            image_size: S; 8, 16, 32, ...
            width: channels at S x S; towards 4 x 4 they grow to 8 times as many.
            words: let the places of the maps of `SIDES` look at the caption's words.
        """
        super().__init__()
        channels = block_channels(image_size, width)[::-1]  # [128, 96, 64, 32, 16] at 16
        latent_dim = 256
        self.text_dim, self.noise_dim, self.image_size = text_dim, noise_dim, image_size
        self.takes_words = words
        self.config = {
            "text_dim": text_dim, "noise_dim": noise_dim, "image_size": image_size, "width": width,
            "words": words,
        }  # fmt: skip
        self.standardize = Standardize(text_dim)
        self.latent = nn.Sequential(
            nn.Linear(text_dim + noise_dim, latent_dim), nn.LeakyReLU(SLOPE),
            nn.Linear(latent_dim, latent_dim), nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.start = nn.Linear(latent_dim + noise_dim, channels[0] * 4 * 4)
        self.blocks = nn.ModuleList(
            TextBlock(c, d, latent_dim) for c, d in zip(channels, channels[1:], strict=False)
        )
        self.to_picture = nn.Conv2d(channels[-1], 3, 3, padding=1)
        sides = {str(4 * 2**k): c for k, c in enumerate(channels[:-1]) if 4 * 2**k in SIDES}
        self.words = nn.ModuleDict(
            {side: WordAttention(c, text_dim, int(side)) for side, c in sides.items() if words}
        )

    def forward(self, text: TextFeatures | Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw B captions with noise [B, Z]: [B, 3, S, S] in [-1, 1]."""
        sentence = check_inputs(text, noise, self.text_dim, self.noise_dim)  # [B, D]
        if self.takes_words and isinstance(text, Tensor):
            raise ValueError("this generator looks at words: give it TextFeatures, not sentences")
        latent = self.latent(torch.cat([self.standardize(sentence), noise], dim=1))  # [B, 256]
        # The noise comes in once more, undiluted, or the pictures of a caption are all alike.
        x = self.start(torch.cat([latent, noise], dim=1))  # [B, 128 * 4 * 4]
        x = x.reshape(len(sentence), -1, 4, 4)  # [B, 128, 4, 4]
        for block in self.blocks:
            side = str(x.shape[-1])
            if side in self.words:
                x = self.words[side](x, text)
            x = block(x, latent)  # [B, C, 2H, 2W]
        return torch.tanh(self.to_picture(functional.leaky_relu(x, SLOPE)))  # [B, 3, S, S]


def block_channels(image_size: int, width: int) -> list[int]:
    """Channels at S x S, S/2 x S/2 and so on down to 4 x 4."""
    if image_size < 8 or image_size & (image_size - 1):
        raise ValueError(f"image_size {image_size}: doubling 4 gives 8, 16, 32, 64, 128, ...")
    factors = (1, 2, 4, 6, 8)
    return [width * factors[min(k, 4)] for k in range(image_size.bit_length() - 2)]


# Discriminator


class DownBlock(nn.Module):
    """Halve the side: a short way by averages, plus a long way of two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H / 2, W / 2]."""
        long = self.conv1(functional.leaky_relu(x, SLOPE))  # [B, C', H / 2, W / 2]
        long = self.conv2(functional.leaky_relu(long, SLOPE))
        return self.skip(functional.avg_pool2d(x, 2)) + long


class Discriminator(nn.Module):
    """How real a picture is, and how true its caption: one logit.

    The trunk sees the picture alone, so that it runs once for all captions of a picture. Two heads
    read its 4 x 4 map, and their logits are added: one convolves it together with the text, which
    stands at every place (tao2022dfgan), after the places have looked at the words; the other takes
    its inner product with the text,

        D(x, t) = h(f(x), t) + v^T f(x) + f(x)^T W t

    (miyato2018cgans, section 3), which learns to read in far fewer steps.

    Attributes:
        config: the arguments that build it again.
        takes_words: as a generator's.
    """

    name = "discriminator"

    def __init__(
        self,
        text_dim: int,
        image_size: int = 64,
        width: int = 16,
        projection: bool = True,
        words: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            image_size: S; 8, 16, 32, ...
            width: half of the channels at S/2 x S/2.
            projection: build the second head.
            words: let the places of the 4 x 4 map look at the caption's words.
        """
        super().__init__()
        channels = block_channels(image_size, width)[1:]  # [32, 64, 96, 128] at 16
        last = channels[-1]
        self.text_dim, self.image_size, self.takes_words = text_dim, image_size, words
        self.config = {
            "text_dim": text_dim, "image_size": image_size, "width": width,
            "projection": projection, "words": words,
        }  # fmt: skip
        self.standardize = Standardize(text_dim)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, channels[0], 4, stride=2, padding=1),
            *[DownBlock(c, d) for c, d in zip(channels, channels[1:], strict=False)],
            nn.LeakyReLU(SLOPE),
        )
        self.words = WordAttention(last, text_dim, 4) if words else None
        self.text = nn.Sequential(nn.Linear(text_dim, 256), nn.LeakyReLU(SLOPE))
        self.head = nn.Sequential(
            nn.Conv2d(last + 256, last, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(last, last, 4), nn.LeakyReLU(SLOPE),
            nn.Conv2d(last, 1, 1),
        )  # fmt: skip
        self.look = None
        if projection:
            self.look = nn.Sequential(
                nn.Conv2d(last, last, 3, padding=1), nn.LeakyReLU(SLOPE),
                nn.Conv2d(last, 256, 4),
            )  # fmt: skip
            self.real, self.project = nn.Linear(256, 1), nn.Linear(text_dim, 256)

    def read(self, features: Tensor, text: TextFeatures | Tensor) -> Tensor:
        """Turn maps [B, C, 4, 4] of pictures and captions [..., B] into logits [..., B]."""
        shape = sentence_of(text).shape[:-1]
        captions = self.standardize(sentence_of(text)).flatten(0, -2)  # [K B, D]
        times = len(captions) // len(features)
        seen, features = features, features.repeat(times, 1, 1, 1)  # [K B, C, 4, 4]
        if self.words is not None:
            features = self.words(features, reshape(text, len(captions)))
        told = self.text(captions)[:, :, None, None]  # [K B, 256, 1, 1]
        told = told.expand(-1, -1, *features.shape[2:])  # [K B, 256, 4, 4]
        logits = self.head(torch.cat([features, told], dim=1)).flatten()  # [K B]
        if self.look is not None:
            seen = self.look(seen).flatten(1)  # [B, 256]
            product = (seen.repeat(times, 1) * self.project(captions)).sum(dim=1)  # [K B]
            logits = logits + self.real(seen).flatten().repeat(times) + product / 16
        return logits.unflatten(0, shape)

    def forward(
        self,
        images: Tensor,
        text: TextFeatures | Tensor,
        mismatched: TextFeatures | Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Say how real pictures are, and how true their captions.

        Args:
            images: [B, 3, S, S].
            text: of B captions; sentences [B, D] will do where no words are looked at.
            mismatched: of other captions [K, M] of the first M pictures, or None.

        Returns:
            Logits [B], and, with `mismatched`, their logits [K, M] as well.
        """
        features = self.trunk(images)  # [B, C, 4, 4]
        logits = self.read(features, text)
        if mismatched is None:
            return logits
        return logits, self.read(features[: sentence_of(mismatched).shape[1]], mismatched)


class Gan:
    """Train a generator against a discriminator (goodfellow2014gan).

    The generator runs once a step: its pictures are shown to the discriminator, which learns from
    them, and then, with the same graph, to the discriminator that has learnt.
    """

    averaged = ("generator",)

    def __init__(
        self,
        config: GanConfig,
        text_dim: int,
        image_size: int = 64,
        mismatched: Callable[[TrainingBatch], Tensor | TextFeatures] | None = None,
        build: Callable[..., nn.Module] = TextGenerator,
        redescribe: Callable[[Tensor, Sequence[str]], Tensor] | None = None,
    ) -> None:
        """Build both networks and their optimizers.

        Args:
            config: the ingredients.
            text_dim: D, features of a caption.
            image_size: S.
            mismatched: gives a batch's false captions, features [K, B, D], or with words where
                the batch's text has them; needed where config.matching_aware is on.
            build: class of the generator, called as `TextGenerator` is; without
                config.text_blocks it is the residual decoder in any case.
            redescribe: gives -log p(t | x) of pictures [B, 3, S, S] and their B captions, [B];
                needed where config.redescription is above 0.

        Raises:
            ValueError: what an ingredient needs is not given.
        """
        if config.matching_aware and mismatched is None:
            raise ValueError("matching_aware needs `mismatched`, which draws false captions")
        if config.redescription and redescribe is None:
            raise ValueError("redescription needs `redescribe`, a captioner")
        self.config, self.mismatched, self.redescribe = config, mismatched, redescribe
        build = build if config.text_blocks else ResidualDecoder
        width = config.width if config.text_blocks else 16 * max(1, config.width // 12)
        words = config.words and build is TextGenerator
        more = {"words": words} if build is TextGenerator else {}
        self.modules = {
            "generator": build(text_dim, config.noise_dim, image_size, width, **more),
            "discriminator": Discriminator(
                text_dim, image_size, config.width, config.projection, words
            ),
        }
        rates = {"generator": config.generator_rate, "discriminator": config.discriminator_rate}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rates[name], betas=(0.0, 0.9))
            for name, network in self.modules.items()
        }
        named = {"objective": "gan", "generator": self.modules["generator"].name}
        self.identity: dict[str, Any] = named | {
            f"gan {name}": str(value) for name, value in asdict(config).items()
        }

    def step(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Let the discriminator learn, then the generator."""
        fake = self.modules["generator"](batch.text, batch.noise)  # [B, 3, S, S]
        loss, recorded = self.discriminator_loss(batch, fake.detach().float())
        update("discriminator", loss)
        discriminator = without_wrapping(self.modules["discriminator"]).requires_grad_(False)
        loss, more = self.generator_loss(batch, fake)
        update("generator", loss)
        discriminator.requires_grad_(True)
        return {name: value.detach() for name, value in (recorded | more).items()}

    def discriminator_loss(
        self, batch: TrainingBatch, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on a batch and generated pictures [B, 3, S, S], detached; and what is recorded."""
        false = self.mismatched(batch) if self.config.matching_aware else None  # [K, B, D]
        real = self.augment(batch.images, batch)
        shown = torch.cat([real, self.augment(fake, batch)])  # [2B, 3, S, S]
        twice = batch.text[torch.arange(len(real)).repeat(2)]  # of 2B captions
        found = self.modules["discriminator"](shown, twice, false)
        logits, mismatched = found if false is not None else (found, None)
        logits_real, logits_fake = logits.float().chunk(2)  # [B], [B]
        mismatched = None if mismatched is None else mismatched.float()  # [K, B]
        loss = losses.hinge_discriminator(logits_real, logits_fake, mismatched)
        recorded = {
            "discriminator": loss, "real": logits_real.mean(), "generated": logits_fake.mean(),
            "mismatched": loss.new_zeros(()) if mismatched is None else mismatched.mean(),
        }  # fmt: skip
        return loss + self.penalty(real, batch), recorded

    def generator_loss(
        self, batch: TrainingBatch, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss by what the discriminator says of pictures [B, 3, S, S]; and what is recorded."""
        discriminator = without_wrapping(self.modules["discriminator"])
        fake = self.augment(fake, batch)
        loss = losses.hinge_generator(discriminator(fake, batch.text).float())
        recorded = {"generator": loss}
        if self.config.redescription:  # qiao2019mirrorgan, section 3.3
            recorded["redescription"] = self.redescribe(fake, batch.captions).mean()
            loss = loss + self.config.redescription * recorded["redescription"]
        return loss, recorded

    def penalty(self, real: Tensor, batch: TrainingBatch) -> Tensor | float:
        """The gradient penalty of the steps that have one; 0 in the others."""
        if not self.config.penalty or batch.step % self.config.penalty_every:
            return 0.0
        # `forward` is never compiled: a compiled network has no second derivative.
        forward, text = without_wrapping(self.modules["discriminator"]).forward, batch.text

        def discriminate(images: Tensor, sentence: Tensor) -> Tensor:
            plain = isinstance(text, Tensor)
            return forward(images, sentence if plain else replace(text, sentence=sentence))

        penalty = losses.matching_aware_penalty(discriminate, real, sentence_of(text))
        return self.config.penalty_every * penalty

    def augment(self, images: Tensor, batch: TrainingBatch) -> Tensor:
        """Change pictures at random, as `DiffAugment` does, before the discriminator sees them."""
        return augment(images, self.config.augment, batch.draw)

    def validate(self, batch: TrainingBatch, networks: dict[str, nn.Module]) -> Tensor:
        """Return -D(G(t, z), t) of each held-out caption, [B]: what the generator minimizes."""
        images = networks["generator"](batch.text, batch.noise)
        return -networks["discriminator"](images, batch.text).float()
