"""A conditional generative adversarial network, each ingredient of which is one switch.

The generator is in the line of DF-GAN (tao2022dfgan): text and noise set scale and shift of every
channel in every block. The discriminator sees picture and text, and is shown, beside real and
generated pictures, real pictures with captions that are false of them (reed2016text). `Gan` is an
objective for the loop of `t2i_course.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from t2i_course import adversarial_losses as losses
from t2i_course.differentiable_augmentation import AUGMENTATIONS, augment
from t2i_course.energy_score import coarse_pixels, picture_score
from t2i_course.image_decoder import ResidualDecoder, Standardize, check_inputs
from t2i_course.processes import TrainingBatch, without_wrapping
from t2i_course.scenes.caption_parts import PARTS, WIDTH, CaptionReader, PartAttention, PartLayout
from t2i_course.scenes.part_judge import PartJudge

SLOPE = 0.2  # of the leaky ReLU below 0
PENALTIES = ("none", "matching-aware", "r1", "r1r2")
LOSSES = ("hinge", "relativistic")


@dataclass(frozen=True)
class GanConfig:
    """The ingredients. The ablation ladder goes through them one by one."""

    noise_dim: int = 64  # Z
    width: int = 16  # channels of the generator at S x S
    text_blocks: bool = True  # affine modulation in every block; else text enters at 4 x 4 only
    matching_aware: bool = True  # show the discriminator false captions of real pictures
    loss: str = "hinge"
    penalty: str = "matching-aware"
    penalty_every: int = 8  # steps; the penalty is scaled by as much (karras2020stylegan2)
    gamma: float = 1.0  # weight of r1 and r1r2
    augment: tuple[str, ...] = ("translation",)  # DiffAugment, where captions stay true
    false_captions: int = 3  # of each real picture, in a step
    contradicting: float = 0.5  # share of false captions that contradict in one fact, if known
    projection: bool = True  # the discriminator's logit has an inner product with the text
    parts: bool = False  # of the caption, that the generator's places attend to
    layout: bool = False  # the parts look at each other and at the noise first
    judge_parts: bool = False  # the discriminator has a head that each part goes to by itself
    redescription: float = 0.0  # weight of -log p(caption | generated), by a trained captioner
    mode_seeking: float = 0.0  # weight of what keeps pictures of one caption apart
    energy: float = 0.0  # weight of the energy score: as far apart as real ones
    pixel_steps: int = 0  # first ones, in which the generator learns the squared error alone
    pixel_draws: int = 1  # noises tried for each picture there; the nearest one learns
    pixel_fine: bool = True  # there, the blocks above 16 x 16 learn as well
    pixel_every: int = 0  # steps of the game between two more of that error; 0 for none
    pixel_rate: float = 1e-3  # at which it is learnt
    spectral_norm: bool = False  # of the discriminator (miyato2018spectral)
    generator_rate: float = 5e-4
    discriminator_rate: float = 1e-3  # two time scales: heusel2017fid

    def __post_init__(self) -> None:
        """Raise ValueError for ingredients that are not known."""
        for name, known in (("loss", LOSSES), ("penalty", PENALTIES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}"
                )
        unknown = [name for name in self.augment if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(
                f"unknown augmentation {unknown[0]!r}: choose from {', '.join(AUGMENTATIONS)}"
            )
        if self.layout and not self.parts:
            raise ValueError("layout=on is between the parts of a caption: add parts=on")
        if self.judge_parts and not self.parts:
            raise ValueError("judge_parts=on judges the parts of a caption: add parts=on")
        for name in ("redescription", "mode_seeking", "energy", "pixel_steps", "pixel_every"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("noise_dim", "penalty_every", "false_captions", "pixel_draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")


def read_config(settings: Sequence[str]) -> GanConfig:
    """Read ingredients from the command line.

    Args:
        settings: texts such as "penalty=r1", "text_blocks=off" or "augment=translation,cutout".

    Raises:
        ValueError: a text without "=", an unknown name, or a value of another kind.
    """
    kinds, values = {field.name: type(field.default) for field in fields(GanConfig)}, {}
    for text in settings:
        name, found, value = text.partition("=")
        if not found or name not in kinds:
            raise ValueError(
                f"{text!r} sets no ingredient of the GAN: write NAME=VALUE with one of the names "
                f"{', '.join(kinds)}"
            )
        try:
            if kinds[name] is bool:
                values[name] = {"on": True, "off": False}[value]
            elif kinds[name] is tuple:
                values[name] = tuple(part for part in value.split(",") if part)
            else:
                values[name] = kinds[name](value)
        except (ValueError, KeyError):
            wanted = "on or off" if kinds[name] is bool else f"of the kind {kinds[name].__name__}"
            raise ValueError(f"{text!r}: the value must be {wanted}") from None
    return GanConfig(**values)


# Generator


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


class TextGenerator(nn.Module):
    """From text and noise to a picture, by four blocks at S = 64.

    Attributes:
        config: the arguments that build it again.
    """

    name = "gan"

    def __init__(
        self,
        text_dim: int,
        noise_dim: int = 64,
        image_size: int = 64,
        width: int = 16,
        parts: bool = False,
        layout: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            noise_dim: Z.
            image_size: S; 8, 16, 32, ...
            width: channels at S x S; towards 4 x 4 they grow to 8 times as many.
            parts: read parts out of captions; maps of up to 16 x 16 attend to them.
            layout: let the parts look at each other and at the noise before.

        Raises:
            ValueError: a side that cannot be built.
        """
        super().__init__()
        channels = block_channels(image_size, width)[::-1]  # [128, 96, 64, 32, 16] at 16
        latent_dim = 256
        self.text_dim, self.noise_dim, self.image_size = text_dim, noise_dim, image_size
        self.config = {
            "text_dim": text_dim, "noise_dim": noise_dim, "image_size": image_size, "width": width,
            "parts": parts, "layout": layout,
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
        self.reader, self.layout, self.attention = None, None, nn.ModuleList()
        if parts:
            self.reader = CaptionReader(text_dim)
            self.layout = PartLayout(noise_dim) if layout else None
            self.hear = nn.Linear(PARTS * WIDTH, latent_dim)
            nn.init.zeros_(self.hear.weight)
            nn.init.zeros_(self.hear.bias)
            sides = enumerate(channels[:-1][:3])  # 4 x 4, 8 x 8, 16 x 16
            self.attention.extend(PartAttention(c, 4 * 2**k) for k, c in sides)

    def coarse_parameters(self) -> Iterator[nn.Parameter]:
        """What decides the maps of up to 16 x 16: all weights but those of what comes after."""
        fine = {*self.blocks[2:].parameters(), *self.to_picture.parameters()}
        return (weight for weight in self.parameters() if weight not in fine)

    def forward(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw captions [B, D] with noise [B, Z]: [B, 3, S, S] in [-1, 1]."""
        text = check_inputs(text, noise, self.text_dim, self.noise_dim)
        first, *others = self.latent
        latent = first(torch.cat([self.standardize(text), noise], dim=1))  # [B, 256]
        parts = None
        if self.reader is not None:
            parts = self.reader(text)  # [B, 4, 64]
            if self.layout is not None:
                parts = self.layout(parts, noise)
            latent = latent + self.hear(parts.flatten(1))
        for layer in others:
            latent = layer(latent)
        # The noise comes in once more, undiluted, or the pictures of a caption are all alike.
        x = self.start(torch.cat([latent, noise], dim=1))  # [B, 128 * 4 * 4]
        x = x.reshape(len(text), -1, 4, 4)  # [B, 128, 4, 4]
        for number, block in enumerate(self.blocks):
            if number < len(self.attention):
                x = self.attention[number](x, parts)
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
    stands at every place (tao2022dfgan); the other takes its inner product with the text,

        D(x, t) = h(f(x), t) + v^T f(x) + f(x)^T W t

    (miyato2018cgans, section 3), which learns to read in far fewer steps. A third head may read the
    8 x 8 map part by part of the caption (`t2i_course.scenes.part_judge`).

    Attributes:
        config: the arguments that build it again.
    """

    name = "discriminator"

    def __init__(
        self,
        text_dim: int,
        image_size: int = 64,
        width: int = 16,
        spectral: bool = False,
        projection: bool = True,
        parts: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            image_size: S; 8, 16, 32, ...; with parts 16 at least.
            width: half of the channels at S/2 x S/2.
            spectral: give every layer of trunk and heads spectral norm, but for the third head's.
            projection: build the second head.
            parts: build the third head, and room for what reads parts out of captions.

        Raises:
            ValueError: a side that cannot be built.
        """
        super().__init__()
        channels = block_channels(image_size, width)[1:]  # [32, 64, 96, 128] at 16
        last = channels[-1]
        self.text_dim, self.image_size = text_dim, image_size
        self.config = {
            "text_dim": text_dim, "image_size": image_size, "width": width, "spectral": spectral,
            "projection": projection, "parts": parts,
        }  # fmt: skip
        self.standardize = Standardize(text_dim)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, channels[0], 4, stride=2, padding=1),
            *[DownBlock(c, d) for c, d in zip(channels, channels[1:], strict=False)],
            nn.LeakyReLU(SLOPE),
        )
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
        if spectral:
            for layer in self.modules():
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    spectral_norm(layer)
        self.reader, self.part_judge = None, None
        if parts:
            if image_size < 16:
                raise ValueError(f"image_size {image_size}: the parts look at 8 x 8, so 16 or more")
            self.reader, self.part_judge = CaptionReader(text_dim), PartJudge(channels[-2], 8)

    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn pictures [B, 3, S, S] into maps [B, C, 4, 4] and, not yet active, [B, C', 8, 8]."""
        *before, last, activation = self.trunk
        for layer in before:
            images = layer(images)
        return activation(last(images)), images

    def judge(self, maps: tuple[Tensor, Tensor], text: Tensor, parts: bool = True) -> Tensor:
        """Turn what `see` returns and captions [..., B, D] into logits [..., B].

        Without `parts`, those of the first two heads alone.
        """
        features, fine = maps
        captions = self.standardize(text).flatten(0, -2)  # [K B, D]
        times = len(captions) // len(features)
        told = self.text(captions)[:, :, None, None]  # [K B, 256, 1, 1]
        told = told.expand(-1, -1, *features.shape[2:])  # [K B, 256, 4, 4]
        both = torch.cat([features.repeat(times, 1, 1, 1), told], dim=1)  # [K B, C + 256, 4, 4]
        logits = self.head(both).flatten()  # [K B]
        if self.look is not None:
            seen = self.look(features).flatten(1)  # [B, 256]
            product = (seen.repeat(times, 1) * self.project(captions)).sum(dim=1)  # [K B]
            logits = logits + self.real(seen).flatten().repeat(times) + product / 16
        if parts and self.part_judge is not None:
            logits = logits + self.part_judge(fine, self.reader(text.flatten(0, -2)))
        return logits.unflatten(0, text.shape[:-1])

    def forward(
        self, images: Tensor, text: Tensor, mismatched: Tensor | None = None, parts: bool = True
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Judge pictures with their captions.

        Args:
            images: [B, 3, S, S].
            text: [B, D].
            mismatched: [K, M, D], other captions of the first M pictures, or None.
            parts: with the third head, if there is one.

        Returns:
            Logits [B], and, with `mismatched`, their logits [K, M] as well.
        """
        maps = self.see(images)
        logits = self.judge(maps, text, parts)
        if mismatched is None:
            return logits
        first = tuple(part[: mismatched.shape[1]] for part in maps)
        return logits, self.judge(first, mismatched, parts)


# Objective


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
        mismatched: Callable[[TrainingBatch], Tensor] | None = None,
        build: Callable[..., nn.Module] = TextGenerator,
        redescribe: Callable[[Tensor, Sequence[str]], Tensor] | None = None,
    ) -> None:
        """Build both networks and their optimizers.

        Args:
            config: the ingredients.
            text_dim: D, features of a caption.
            image_size: S.
            mismatched: gives a batch's false captions, features [K, B, D]; needed where
                config.matching_aware is on.
            build: class of the generator, called as `TextGenerator` is; without
                config.text_blocks it is the residual decoder in any case.
            redescribe: gives -log p(t | x) of pictures [B, 3, S, S] and their B captions, [B];
                needed where config.redescription is above 0.

        Raises:
            ValueError: false captions are wanted, and there is nothing to draw them with; or
                pictures are to be described again, and nothing describes them.
        """
        if config.matching_aware and mismatched is None:
            raise ValueError("matching_aware needs `mismatched`, which draws false captions")
        if config.redescription and redescribe is None:
            raise ValueError("redescription needs `redescribe`, a captioner")
        self.config, self.mismatched, self.redescribe = config, mismatched, redescribe
        build = build if config.text_blocks else ResidualDecoder
        width = config.width if config.text_blocks else 16 * max(1, config.width // 12)
        if config.parts and build is not TextGenerator:
            raise ValueError("parts=on is for the generator `gan`, with text_blocks=on")
        more = {"parts": True, "layout": config.layout} if config.parts else {}
        generator = build(text_dim, config.noise_dim, image_size, width, **more)
        discriminator = Discriminator(
            text_dim, image_size, config.width, config.spectral_norm, config.projection,
            config.judge_parts,
        )  # fmt: skip
        self.modules = {"generator": generator, "discriminator": discriminator}
        rates = {"generator": config.generator_rate, "discriminator": config.discriminator_rate}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rates[name], betas=(0.0, 0.9))
            for name, network in self.modules.items()
        }
        if not config.pixel_fine and not isinstance(generator, TextGenerator):
            raise ValueError("pixel_fine=off is for the generator `gan`, with text_blocks=on")
        if config.pixel_steps or config.pixel_every:
            learn = generator.parameters() if config.pixel_fine else generator.coarse_parameters()
            self.optimizers["pixels"] = torch.optim.Adam(
                learn, lr=config.pixel_rate, betas=(0.9, 0.99)
            )
        self.identity: dict[str, Any] = {"objective": "gan", "generator": generator.name} | {
            f"gan {name}": str(value) for name, value in asdict(config).items()
        }

    def step(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Go through `_learn_pixels` in the first steps that config names, then through `_play`.

        With `pixel_every`, some steps of the game go through both.
        """
        if "pixels" not in self.optimizers:
            return self._play(batch, update)
        names = ("pixels", "discriminator", "real", "generated", "mismatched", "generator")
        names += ("redescription",) if self.config.redescription else ()
        names += ("likeness",) if self.config.mode_seeking else ()
        names += ("energy",) if self.config.energy else ()
        found = dict.fromkeys(names, batch.text.new_zeros(()))
        begins, every = batch.step <= self.config.pixel_steps, self.config.pixel_every
        if begins or (every and batch.step % every == 0):
            found |= self._learn_pixels(batch, update)
        return found if begins else found | self._play(batch, update)

    def _learn_pixels(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Let the generator alone learn from the squared error, of pictures reduced to 8 x 8.

        As ledig2017srgan begins (section 3.2), to keep a game away from poor local optima: a place
        that the players have agreed on is hard to leave by small steps, for a picture with a thing
        half here and half there is worse than both. What blurs has no such ridge to climb.

        The squared error alone asks for the mean of all that fits the caption, whatever the noise.
        With several draws, only the noise whose picture is nearest to the real one learns from it
        (li2019imle): then the noise comes to choose what the caption leaves open.
        """
        generator = self.modules["generator"]
        wanted = coarse_pixels(batch.images)  # [B, 3 * 8 * 8]

        def error(noise: Tensor) -> Tensor:  # of each picture, [B]
            drawn = generator(batch.text, noise).float()  # [B, 3, S, S]
            return (coarse_pixels(drawn) - wanted).square().mean(dim=1)

        noise = batch.noise
        if (more := self.config.pixel_draws - 1) > 0:
            others = batch.draw_noise(more, noise.shape[1])  # [B, K-1, Z]
            tried = torch.cat([noise[:, None], others], dim=1)  # [B, K, Z]
            with torch.no_grad():
                nearest = torch.stack([error(z) for z in tried.unbind(1)]).argmin(dim=0)  # [B]
            noise = tried[torch.arange(len(tried), device=tried.device), nearest]
        found = error(noise).mean()
        update("pixels", found)
        return {"pixels": found.detach()}

    def _play(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Let the discriminator learn, then the generator."""
        generator, discriminator = self.modules["generator"], self.modules["discriminator"]
        changed = lambda images: augment(images, self.config.augment, batch.draw)  # noqa: E731
        text = batch.text
        drawn = fake = generator(text, batch.noise)  # [B, 3, S, S]
        false = self.mismatched(batch) if self.config.matching_aware else None  # [K, B, D]
        shown = torch.cat([changed(batch.images), changed(fake.detach().float())])  # [2B, 3, S, S]
        judged = discriminator(shown, torch.cat([text, text]), false)
        logits, logits_mismatched = judged if false is not None else (judged, None)
        real, generated = logits.float().chunk(2)  # [B], [B]
        wrong = None if logits_mismatched is None else logits_mismatched.float()
        hinge = self.config.loss == "hinge"
        discriminate = losses.hinge_discriminator if hinge else losses.relativistic_discriminator
        loss = discriminate(real, generated, wrong)
        recorded = {"discriminator": loss.detach(), "real": real.detach().mean(),
                    "generated": generated.detach().mean()}  # fmt: skip
        recorded["mismatched"] = torch.zeros_like(loss) if wrong is None else wrong.detach().mean()
        if self.config.penalty != "none" and batch.step % self.config.penalty_every == 0:
            loss = loss + self.config.penalty_every * self._penalty(shown, text)
        update("discriminator", loss)

        discriminator = without_wrapping(discriminator).requires_grad_(False)
        fake = changed(fake)
        generated = discriminator(fake, text).float()  # [B]
        if hinge:
            loss = losses.hinge_generator(generated)
        else:
            with torch.no_grad():
                real = discriminator(changed(batch.images), text).float()
            loss = losses.relativistic_generator(real, generated)
        if self.config.redescription:  # qiao2019mirrorgan, section 3.3
            surprise = self.redescribe(fake, batch.captions).mean()
            recorded["redescription"] = surprise.detach()
            loss = loss + self.config.redescription * surprise
        if self.config.mode_seeking or self.config.energy:  # two pictures of every second caption
            one, other = drawn[::2].float(), self._draw_again(batch)
        if self.config.mode_seeking:
            likeness = self._likeness(one, other)
            recorded["likeness"] = likeness.detach()
            loss = loss + self.config.mode_seeking * likeness
        if self.config.energy:
            energy = picture_score(one, other, batch.images[::2])
            recorded["energy"] = energy.detach()
            loss = loss + self.config.energy * energy
        update("generator", loss)
        discriminator.requires_grad_(True)
        return recorded | {"generator": loss.detach()}

    def _draw_again(self, batch: TrainingBatch) -> Tensor:
        """Draw every second caption with other noise, [B/2, 3, S, S]."""
        noise = batch.draw_noise(batch.noise.shape[1])  # [B, Z]
        return self.modules["generator"](batch.text[::2], noise[::2]).float()

    @staticmethod
    def _likeness(one: Tensor, other: Tensor) -> Tensor:
        """How alike two pictures of one caption are: the mean of -log |G(t, z) - G(t, z')|.

        In the line of mao2019modeseeking, section 3.2, who maximize that distance over that of the
        noises. The logarithm asks every caption to come as much apart in proportion, be the thing
        small or large; without it, what is largest would count most. Of pictures reduced to
        S/2 x S/2, where noise of single pixels counts for little.
        """
        difference = functional.avg_pool2d(other - one, 2)
        return -(difference.abs().mean(dim=(1, 2, 3)) + 1e-3).log().mean()

    def _penalty(self, shown: Tensor, text: Tensor) -> Tensor:
        """The gradient penalty, at the pictures that the discriminator was shown."""
        # `forward` is never compiled: a compiled network has no second derivative. The third head
        # is not charged: flat around what is real, it could not tell like captions apart.
        whole = without_wrapping(self.modules["discriminator"])
        discriminator = partial(whole.forward, parts=False)
        real, generated = shown.chunk(2)  # [B, 3, S, S] each
        if self.config.penalty == "matching-aware":
            return losses.matching_aware_penalty(discriminator, real, text)
        penalty = losses.gradient_penalty(discriminator, real, text, self.config.gamma)
        if self.config.penalty == "r1r2":
            penalty = penalty + losses.gradient_penalty(
                discriminator, generated, text, self.config.gamma
            )
        return penalty

    def validate(self, batch: TrainingBatch, networks: dict[str, nn.Module]) -> Tensor:
        """Return -D(G(t, z), t) of each held-out caption, [B]: what the generator minimizes."""
        images = networks["generator"](batch.text, batch.noise)
        return -networks["discriminator"](images, batch.text).float()
