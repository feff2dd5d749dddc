"""Two image decoders, and three ways to look inside one.

`ArticleDecoder` is the article's, mended: a linear layer to 128 x 16 x 16 and two transposed
convolutions (as in DCGAN, Radford et al., ICLR 2016). `ResidualDecoder` starts at 4 x 4 and doubles
the side with residual blocks (He et al., CVPR 2016) that enlarge by copying pixels and convolve
afterwards, which leaves no checkerboard (Odena et al., "Deconvolution and checkerboard artifacts",
Distill 2016).

Every generator of the course is called as `images = generator(text, noise)`: text is `TextFeatures`
of B captions, of which a generator takes what it needs (a tensor [B, D] stands for the sentences
alone); noise [B, Z] or None -> images [B, 3, S, S] in [-1, 1]. A decoder does it in two halves:
`seed(text, noise)` gives a small map of features, `draw(features)` makes the picture from a map of
any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from t2i_course.text_cache import EmbeddedCaptions, sentence_rows
from t2i_course.text_encoder import TextFeatures, sentence_of


def check_inputs(
    text: TextFeatures | Tensor, noise: Tensor | None, text_dim: int, noise_dim: int
) -> Tensor:
    """Refuse text and noise that a generator was not built for; return its sentences [B, D].

    Args:
        text: features of captions, or their sentences alone; these must be [B, text_dim].
        noise: must be [B, noise_dim]; a generator with noise_dim 0 ignores it.
        text_dim: D, features of a caption.
        noise_dim: Z.

    Raises:
        ValueError: a wrong shape, or the noise is missing.
    """
    text = sentence_of(text)
    if text.ndim != 2 or text.shape[1] != text_dim:
        raise ValueError(
            f"text features have shape {list(text.shape)}, this generator takes [B, {text_dim}]: "
            "use the text encoder that it was trained with, or build it with text_dim= that width"
        )
    if noise_dim == 0:
        return text
    if noise is None:
        raise ValueError(
            f"this generator draws from noise: pass torch.randn({len(text)}, {noise_dim}) with "
            "the text"
        )
    if noise.shape != (len(text), noise_dim):
        raise ValueError(
            f"noise has shape {list(noise.shape)}, needed is [{len(text)}, {noise_dim}]: one "
            "vector for each caption"
        )
    return text


class Standardize(nn.Module):
    """Give every text feature mean 0 and deviation 1 over the training captions.

    Averaged BERT features share a large common part; without this a decoder spends its first
    hundreds of steps on removing it. The numbers are saved with the weights.
    """

    def __init__(self, width: int) -> None:
        """Start as the identity on [B, width]."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def fit(self, features: np.ndarray | Tensor | EmbeddedCaptions) -> None:
        """Measure features [N, width] of the training captions, 20,000 at most, before training."""
        every = slice(None, None, 1 + len(features) // 20_000)
        values = torch.tensor(np.asarray(sentence_rows(features, every))).double()
        deviation = values.std(dim=0, correction=0)
        # A feature that hardly moves must not be blown up to the size of the others. Of captions
        # that are all alike there is no scale to measure; then the features' own size serves.
        floor, size = 0.01 * deviation.mean(), values.square().mean().sqrt()
        if deviation.mean() < 0.01 * size:
            floor = size
        self.mean.copy_(values.mean(dim=0))
        self.deviation.copy_(deviation.clamp(min=float(floor)))

    def forward(self, text: Tensor) -> Tensor:
        """Standardize [B, width]."""
        return (text - self.mean) / self.deviation


class ArticleDecoder(nn.Module):
    """The article's decoder: projection, linear layer, two transposed convolutions, Tanh.

    Mended are a projection from the encoder's width to the latent's (the article fed 768 features
    to a layer built for 512), and the image size, kept on the module (its `forward` read a name
    that did not exist).

    Attributes:
        config: the arguments that build it again.
    """

    name = "article"

    def __init__(self, text_dim: int, image_size: int = 64, latent_dim: int = 512) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            image_size: S, a multiple of 4.
            latent_dim: width of the latent vector, 512 in the article.

        Raises:
            ValueError: a width below 1, or a side that is no multiple of 4.
        """
        super().__init__()
        _check_widths(text_dim=text_dim, latent_dim=latent_dim)
        if image_size < 4 or image_size % 4:
            raise ValueError(f"image_size {image_size}: two doublings need a multiple of 4")
        self.text_dim, self.noise_dim, self.image_size = text_dim, 0, image_size
        self.config = {"text_dim": text_dim, "image_size": image_size, "latent_dim": latent_dim}
        self.project = nn.Linear(text_dim, latent_dim)
        self.linear = nn.Linear(latent_dim, 128 * (image_size // 4) ** 2)
        self.draw = nn.Sequential(
            nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 3, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )

    def seed(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the map of features that the picture grows from, [B, 128, S/4, S/4]."""
        text = check_inputs(text, noise, self.text_dim, self.noise_dim)
        side = self.image_size // 4
        latent = self.project(text)  # [B, 512]
        return functional.relu(self.linear(latent)).reshape(-1, 128, side, side)  # [B, 128, 16, 16]

    def forward(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw captions; the noise is ignored. See the module's docstring for the shapes."""
        return self.draw(self.seed(text, noise))  # [B, 3, S, S]


class UpsamplingBlock(nn.Module):
    """Double the side: a short way of copied pixels, plus a long way of two convolutions.

    y = up(W x) + conv(act(norm(conv(up(act(norm(x)))))))
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build the layers; channels must be multiples of 8, for the norm's groups."""
        super().__init__()
        self.norm1 = nn.GroupNorm(8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', 2H, 2W]."""
        long = functional.leaky_relu(self.norm1(x), 0.2)
        long = self.conv1(functional.interpolate(long, scale_factor=2))  # [B, C', 2H, 2W]
        long = self.conv2(functional.leaky_relu(self.norm2(long), 0.2))  # [B, C', 2H, 2W]
        # The 1 x 1 convolution comes before the copying: a quarter of the work, the same result.
        return functional.interpolate(self.skip(x), scale_factor=2) + long


class ResidualDecoder(nn.Module):
    """From 4 x 4 to S x S by upsampling residual blocks, four of them at S = 64.

    Attributes:
        config: the arguments that build it again.
    """

    name = "residual"

    def __init__(
        self, text_dim: int, noise_dim: int = 0, image_size: int = 64, width: int = 32
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            noise_dim: Z, numbers of noise beside the text; 0 for none.
            image_size: S; 8, 16, 32, ...
            width: channels at S x S, a multiple of 16; towards 4 x 4 they grow to 4 times as many.

        Raises:
            ValueError: a width or a side that cannot be built.
        """
        super().__init__()
        _check_widths(text_dim=text_dim, noise_dim=noise_dim + 1)
        if width < 16 or width % 16:
            raise ValueError(f"width {width}: choose a multiple of 16 (the norm has 8 groups)")
        if image_size < 8 or image_size & (image_size - 1):
            raise ValueError(f"image_size {image_size}: doubling 4 gives 8, 16, 32, 64, 128, ...")
        self.text_dim, self.noise_dim, self.image_size = text_dim, noise_dim, image_size
        self.config = {
            "text_dim": text_dim, "noise_dim": noise_dim,
            "image_size": image_size, "width": width,
        }  # fmt: skip
        doublings = image_size.bit_length() - 3  # 4 for 64
        halves = (2, 3, 4, 6, 8)  # channels in halves of the width, from S x S down to 4 x 4
        channels = [width // 2 * halves[min(k, 4)] for k in reversed(range(doublings + 1))]
        # channels is [128, 96, 64, 48, 32] for 64 x 64 at width 32
        self.standardize = Standardize(text_dim)
        self.start = nn.Linear(text_dim + noise_dim, channels[0] * 4 * 4)
        self.draw = nn.Sequential(
            *[UpsamplingBlock(c, d) for c, d in zip(channels, channels[1:], strict=False)],
            nn.GroupNorm(8, channels[-1]),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels[-1], 3, 3, padding=1),
            nn.Tanh(),
        )

    def seed(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the map of features that the picture grows from, [B, C, 4, 4]."""
        text = check_inputs(text, noise, self.text_dim, self.noise_dim)
        latent = self.standardize(text)  # [B, D]
        if self.noise_dim:
            latent = torch.cat([latent, noise], dim=1)  # [B, D + Z]
        return self.start(latent).reshape(len(text), -1, 4, 4)  # [B, 128, 4, 4]

    def forward(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw captions. See the module's docstring for the shapes."""
        return self.draw(self.seed(text, noise))  # [B, 3, S, S]


def _check_widths(**widths: int) -> None:
    """Refuse a width below 1, by its name."""
    for name, width in widths.items():
        if width < 1:
            raise ValueError(f"{name} {width} is too small")


DECODERS: dict[str, Callable[..., nn.Module]] = {
    ArticleDecoder.name: ArticleDecoder,
    ResidualDecoder.name: ResidualDecoder,
}


def build_decoder(name: str, **config: Any) -> nn.Module:
    """Build a decoder from its name in `DECODERS` and the arguments of its class.

    Raises:
        ValueError: an unknown name, or arguments that the class does not take.
    """
    if name not in DECODERS:
        raise ValueError(f"unknown decoder {name!r}: choose one of {', '.join(DECODERS)}")
    try:
        return DECODERS[name](**config)
    except TypeError as error:
        raise ValueError(f"decoder {name!r} cannot be built from {config}: {error}") from error


# Looking inside


@dataclass(frozen=True)
class LayerCost:
    """What one call of one layer costs.

    Attributes:
        name: the layer's place in the module, and its class.
        output_shape: of the call.
        parameters: trained numbers of the layer; 0 from its second call on.
        multiply_adds: multiplications, each with an addition, for the whole batch.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def _multiply_adds(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> int:
    """Count a layer's multiply-adds; what falls outside the border counts too."""
    if isinstance(layer, nn.Linear):
        return outputs.numel() * layer.in_features
    kernel = layer.kernel_size[0] * layer.kernel_size[1]
    if isinstance(layer, nn.ConvTranspose2d):  # each input number is spread over a window
        return inputs.numel() * kernel * layer.out_channels // layer.groups
    return outputs.numel() * kernel * layer.in_channels // layer.groups


def count_operations(module: nn.Module, *inputs: Any) -> list[LayerCost]:
    """Run a module once and count what its convolutions and linear layers do.

    Norms, activations and copying are left out: they touch each number once.

    Args:
        module: such as a generator.
        inputs: what it is called with; give a batch of one to count the work for one picture.

    Returns:
        A row for each call, in the order of the calls.
    """
    rows: list[LayerCost] = []
    hooks: list[RemovableHandle] = []
    seen: set[nn.Module] = set()

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(layer: nn.Module, arguments: tuple[Tensor, ...], outputs: Tensor) -> None:
            parameters = 0 if layer in seen else sum(p.numel() for p in layer.parameters())
            seen.add(layer)
            label = f"{name} {type(layer).__name__}".strip()
            work = _multiply_adds(layer, arguments[0], outputs)
            rows.append(LayerCost(label, tuple(outputs.shape), parameters, work))

        return record

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(layer.register_forward_hook(watch(name)))
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def checkerboard(images: Tensor, period: int) -> float:
    """Measure a pattern that repeats every `period` pixels in both directions.

    The pixels are averaged by their place in the period; the pattern is how far these
    period x period averages stand from their mean. By Parseval's theorem its square is the
    energy at the frequencies that are multiples of 1 / period, the mean left out.

    Args:
        images: [B, C, H, W]; a rest of the sides beyond a multiple of the period is cut off.
        period: pixels, 2 or more.

    Returns:
        Root mean square of the pattern, in the images' units; 0 for a flat picture.
    """
    height, width = images.shape[-2:]
    if not 2 <= period <= min(height, width):
        raise ValueError(f"a period of {period} does not fit images of {list(images.shape)}")
    height, width = height - height % period, width - width % period
    cut = images[..., :height, :width].double()
    cells = cut.unflatten(-1, (-1, period)).unflatten(-3, (-1, period))  # [B, C, h, p, w, p]
    pattern = cells.mean(dim=(-4, -2))  # [B, C, p, p]
    pattern = pattern - pattern.mean(dim=(-2, -1), keepdim=True)
    return pattern.square().mean().sqrt().item()


def draw_constant(generator: nn.Module, text: Tensor, cells: int = 16) -> Tensor:
    """Let a decoder draw from a map that is the same everywhere.

    What is not flat in the result comes from the layers alone: the borders, and the pattern of
    transposed convolutions.

    Args:
        generator: with `seed` and `draw`, as both decoders have them.
        text: [B, D]; each caption's map is replaced by its mean over the places.
        cells: side of the map.

    Returns:
        [B, 3, H, W], the middle half of the picture, away from the borders.
    """
    with torch.no_grad():
        seed = generator.seed(text).mean(dim=(-2, -1), keepdim=True)  # [B, C, 1, 1]
        images = generator.draw(seed.expand(-1, -1, cells, cells))  # [B, 3, H, W]
    quarter = images.shape[-1] // 4
    return images[..., quarter:-quarter, quarter:-quarter]


def reach(layers: nn.Module, seed: Tensor, row: int, column: int, tries: int = 8) -> Tensor:
    """Find which pixels one cell of the input map can change, by the gradient.

    Args:
        layers: from a map [1, C, h, w] to images [1, 3, H, W], such as a decoder's `draw`.
        seed: [1, C, h, w], the map around which the gradient is taken.
        row: of the cell.
        column: of the cell.
        tries: random directions; with ReLU, one alone may miss a pixel.

    Returns:
        [H, W], the mean size of the pixels' change: 0 where the cell has no say.
    """
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for _ in range(tries):
        point = seed.detach() + torch.randn(seed.shape, generator=generator).to(seed)
        direction = torch.zeros_like(point)
        values = torch.randn(seed.shape[1], generator=generator)  # [C]
        direction[0, :, row, column] = values.to(seed)
        point.requires_grad_(True)
        images = layers(point)  # [1, 3, H, W]
        # Backwards twice is forwards once: with g(u) = J^T u, the gradient of <g(u), d> is J d.
        weights = torch.zeros_like(images, requires_grad=True)
        (pulled,) = torch.autograd.grad(images, point, weights, create_graph=True)
        (change,) = torch.autograd.grad(pulled, weights, direction)  # [1, 3, H, W]
        total = total + change[0].abs().mean(dim=0).cpu() / tries  # [H, W]
    return total
