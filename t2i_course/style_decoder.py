"""A text-to-image decoder of the StyleGAN2 kind.

Mapping networks turn text and noise into a style; from a learned constant, convolutions whose
weights the style scales draw the picture. The parts are those of karras2019stylegan and
karras2020stylegan2. As in sauer2023stylegant the noise is mapped by itself, stands beside the text
in the style, and moves the constant (by a sum here, by turns and shifts there); the text is mapped,
too, which that paper leaves out. There is no kernel of its own: everything is plain PyTorch.

The call is that of every generator of the course, `images = generator(text, noise)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.gan import SLOPE, block_channels
from t2i_course.image_decoder import Standardize, check_inputs

TEXT, FREE = 256, 128  # numbers of a style that come from the text, and from the noise
LATENT = TEXT + FREE  # W
GAIN = math.sqrt(2)  # of the leaky ReLU: keeps the variance


def modulate(weight: Tensor, style: Tensor, demodulate: bool = True) -> Tensor:
    """Scale a convolution's weights for each picture.

        w'_oik = s_i w_oik,    w''_oik = w'_oik / sqrt(sum_ik w'_oik^2 + eps)

    karras2020stylegan2, equations 1 and 3. Demodulated, the output has the input's variance,
    whatever the style; without it a few large features can break through (the droplets of
    StyleGAN).

    Args:
        weight: [O, I, k, k].
        style: [B, I].
        demodulate: do the second step.

    Returns:
        [B, O, I, k, k].
    """
    scaled = weight * style[:, None, :, None, None]  # [B, O, I, k, k]
    if not demodulate:
        return scaled
    return scaled * (scaled.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, grouped: bool = True
) -> Tensor:
    """Convolve each picture with weights of its own.

    Grouped, the batch becomes the groups of one convolution. Otherwise the style scales the input
    and the demodulation the output of a convolution that all share: the same, faster on a CPU.

    Args:
        x: [B, I, H, W].
        weight: [O, I, k, k], k odd.
        style: [B, I].
        demodulate: as `modulate` takes it.
        grouped: which of the two forms.

    Returns:
        [B, O, H, W].
    """
    padding = weight.shape[-1] // 2
    if grouped:
        weights = modulate(weight, style, demodulate).flatten(0, 1)  # [B O, I, k, k]
        x = x.flatten(0, 1)[None]  # [1, B I, H, W]
        x = functional.conv2d(x, weights, padding=padding, groups=len(style))  # [1, B O, H, W]
        return x[0].unflatten(0, (len(style), -1))
    x = functional.conv2d(x * style[:, :, None, None], weight, padding=padding)
    if not demodulate:
        return x
    energy = style.square() @ weight.square().sum(dim=(2, 3)).T  # [B, O]
    return x * (energy + 1e-8).rsqrt()[:, :, None, None]


class MappingNetwork(nn.Module):
    """From text or from noise to its part of the style, by layers without a picture in between.

    The weights begin such that every layer keeps the variance: a part that came out small would go
    unheard beside the other.
    """

    def __init__(self, in_features: int, out_features: int, layers: int = 2) -> None:
        """Build the layers."""
        super().__init__()
        widths = [in_features] + [out_features] * layers
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] of unit variance to [B, out_features]."""
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE) * GAIN
        return x


class StyleLayer(nn.Module):
    """Modulated convolution, noise with a learned strength, bias, activation."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        """Build the layer; the strength of the noise starts at 0."""
        super().__init__()
        self.affine = nn.Linear(LATENT, in_channels)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(
            torch.randn(out_channels, in_channels, 3, 3) / math.sqrt(9 * in_channels)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, side, side))  # of eval mode

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map [B, C, H, W] with styles [B, W] to [B, C', H, W]."""
        x = modulated_conv2d(x, self.weight, self.affine(style), grouped=x.is_cuda)
        noise = self.noise
        if self.training:
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device)  # [B, 1, H, W]
        x = x + self.strength * noise.to(x.dtype) + self.bias[:, None, None]
        return functional.leaky_relu(x, SLOPE) * GAIN


class ToPicture(nn.Module):
    """A modulated 1 x 1 convolution to red, green and blue, without demodulation."""

    def __init__(self, in_channels: int) -> None:
        """Build the layer."""
        super().__init__()
        self.affine = nn.Linear(LATENT, in_channels)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1) / math.sqrt(in_channels))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map [B, C, H, W] with styles [B, W] to [B, 3, H, W]."""
        x = modulated_conv2d(
            x, self.weight, self.affine(style), demodulate=False, grouped=x.is_cuda
        )
        return x + self.bias[:, None, None]


def upsample(x: Tensor) -> Tensor:
    """Double the side without aliasing: the filter (1, 3, 3, 1) / 4 both ways.

    At factor 2 this is bilinear interpolation; the border is continued.
    """
    return functional.interpolate(x, scale_factor=2, mode="bilinear")


class StyleGenerator(nn.Module):
    """From text and noise to a picture, by styles.

    Attributes:
        config: the arguments that build it again.
        layers: L, styles of a picture: two at each side, from 4 x 4 up.
        truncation: psi, how far the noise's part of a style may be from its mean; 1 for as far as
            it is.
        latent_mean: [FREE], running mean of that part in training.
    """

    name = "style"

    def __init__(
        self, text_dim: int, noise_dim: int = 64, image_size: int = 64, width: int = 16
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            noise_dim: Z.
            image_size: S; 8, 16, 32, ...
            width: channels at S x S; towards 4 x 4 they grow to 8 times as many.
        """
        super().__init__()
        channels = block_channels(image_size, width)[::-1]  # [128, 96, 64, 32, 16] at 16
        self.text_dim, self.noise_dim, self.image_size = text_dim, noise_dim, image_size
        self.config = {
            "text_dim": text_dim, "noise_dim": noise_dim, "image_size": image_size, "width": width,
        }  # fmt: skip
        self.truncation = 1.0
        self.standardize = Standardize(text_dim)
        self.map_text = MappingNetwork(text_dim, TEXT)
        self.map_noise = MappingNetwork(noise_dim, FREE)
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.move = nn.Linear(FREE, channels[0] * 4 * 4, bias=False)  # the constant, by the noise
        nn.init.normal_(self.move.weight, std=FREE**-0.5)
        before = [channels[0], *channels[:-1]]
        sides = [4 * 2**k for k in range(len(channels))]
        self.first = nn.ModuleList(
            StyleLayer(a, b, s) for a, b, s in zip(before, channels, sides, strict=True)
        )
        self.second = nn.ModuleList(
            StyleLayer(c, c, s) for c, s in zip(channels, sides, strict=True)
        )
        self.to_picture = nn.ModuleList(ToPicture(c) for c in channels)
        self.layers = 2 * len(channels)
        self.register_buffer("latent_mean", torch.zeros(FREE))

    def forward(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw captions [B, D] with noise [B, Z]: [B, 3, S, S] in [-1, 1]."""
        text = check_inputs(text, noise, self.text_dim, self.noise_dim)
        styles = self.style(text, noise)  # [B, W]
        return self.synthesize(styles[:, None].expand(-1, self.layers, -1))

    def style(self, text: Tensor, noise: Tensor) -> Tensor:
        """Map text [B, D] and noise [B, Z] to styles [B, W]: first the text's part.

        The noise is brought to length sqrt(Z) first (karras2019stylegan), so that no sample starts
        from an unusually short or long one. Truncation moves its part towards the mean,
        w <- w_mean + psi (w - w_mean); the text's part stays, and so does what the caption says
        (sauer2023stylegant).
        """
        noise = noise * (noise.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        free = self.map_noise(noise)  # [B, FREE]
        if self.training:
            with torch.no_grad():
                self.latent_mean.lerp_(free.float().mean(dim=0), 0.005)
        elif self.truncation != 1:
            free = self.latent_mean.lerp(free, self.truncation)
        return torch.cat([self.map_text(self.standardize(text)), free], dim=1)

    def synthesize(self, styles: Tensor) -> Tensor:
        """Draw styles [B, L, W], one for each layer: [B, 3, S, S] in [-1, 1]."""
        moved = self.move(styles[:, 0, TEXT:]).unflatten(1, self.constant.shape[1:])
        x = self.constant + moved  # [B, C, 4, 4]
        picture: Tensor | None = None
        for k, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            x = x if k == 0 else upsample(x)
            x = first(x, styles[:, 2 * k])  # [B, C, H, W]
            x = second(x, styles[:, 2 * k + 1])
            drawn = self.to_picture[k](x, styles[:, 2 * k + 1])  # [B, 3, H, W]
            picture = drawn if picture is None else upsample(picture) + drawn
        return torch.tanh(picture)

    def mix(self, coarse: Tensor, fine: Tensor, layer: int) -> Tensor:
        """Draw with the styles of two sources.

        Args:
            coarse: [B, W], styles of the layers before `layer`.
            fine: [B, W], of those from it on.
            layer: 0 to L.

        Returns:
            [B, 3, S, S].
        """
        if not 0 <= layer <= self.layers:
            raise ValueError(f"layer {layer}: this generator has {self.layers} layers")
        before = torch.arange(self.layers, device=coarse.device) < layer  # [L]
        return self.synthesize(torch.where(before[:, None], coarse[:, None], fine[:, None]))


def path_length(generator: StyleGenerator, styles: Tensor, seed: int = 0) -> Tensor:
    """How far a picture moves when its style does: |J^T y| for random pictures y.

        E_w,y ||J_w^T y||,    J_w = dG(w) / dw,  y ~ N(0, I) / S

    karras2020stylegan2, equation 4 and appendix B. A smooth generator has about the same length
    everywhere.

    Args:
        generator: in eval mode.
        styles: [B, W].
        seed: of y.

    Returns:
        [B].
    """
    draw = torch.Generator().manual_seed(seed)
    styles = styles.detach()[:, None].repeat(1, generator.layers, 1).requires_grad_()  # [B, L, W]
    images = generator.synthesize(styles)  # [B, 3, S, S]
    direction = torch.randn(images.shape, generator=draw).to(images) / images.shape[-1]
    (gradient,) = torch.autograd.grad((images * direction).sum(), styles)  # [B, L, W]
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
