"""A text-to-image decoder of the StyleGAN2 kind.

Mapping networks turn text and noise into a style; from a learned constant, convolutions whose
weights the style scales draw the picture. The parts are those of karras2019stylegan and
karras2020stylegan2. As in sauer2023stylegant the noise is mapped by itself, stands beside the text
in the style, and moves the constant (by a sum here, by turns and shifts there); the text is mapped,
too, which that paper leaves out. There is no kernel of its own: everything is plain PyTorch.

Learning rates are equalised (`EqualLinear`). The mapping networks learn at the full rate, not at a
hundredth: they have two layers here, not eight, and one of them has to learn to read. The path
penalty is left out: it makes a generator smooth and easy to invert, which no caption asks for, at
the price of a second derivative of the whole generator; `path_length` measures how smooth it is.

The call is that of every generator of the course, `images = generator(text, noise)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.gan import SLOPE, block_channels
from t2i_course.image_decoder import Standardize, check_inputs
from t2i_course.text_encoder import TextFeatures

TEXT, FREE = 256, 128  # numbers of a style that come from the text, and from the noise
LATENT = TEXT + FREE  # W
GAIN = math.sqrt(2)  # of the leaky ReLU: keeps the variance
RATE = 6e-3  # of equalised layers; StyleGAN2 takes 2e-3, for far longer trainings


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


class EqualLinear(nn.Module):
    """A linear layer whose weights are scaled as they are used, not as they begin.

        y = W x / sqrt(n) + b,    W ~ N(0, 1) at first, n inputs

    karras2018progan, section 4.1. Adam moves every weight by about the learning rate, however large
    the weight is; where all weights are about 1, all layers learn at one relative rate.
    """

    def __init__(self, in_features: int, out_features: int, bias: float = 0.0) -> None:
        """Build it, with the value at which all biases begin."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.full((out_features,), bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_features] to [B, out_features]; of unit variance if x is."""
        return functional.linear(x, self.weight / math.sqrt(x.shape[1]), self.bias)


class MappingNetwork(nn.Module):
    """From text or from noise to its part of the style, by layers without a picture in between.

    Every layer keeps the variance: a part that came out small would be lost beside the other.
    """

    def __init__(self, in_features: int, out_features: int, layers: int = 2) -> None:
        """Build the layers."""
        super().__init__()
        widths = [in_features] + [out_features] * layers
        self.layers = nn.ModuleList(
            EqualLinear(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] of unit variance to [B, out_features]."""
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE) * GAIN
        return x


class StyleLayer(nn.Module):
    """Modulated convolution, noise with a learned strength, bias, activation.

    Demodulation takes the scale of the weights away, so they may begin at N(0, 1) as they are.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        """Build the layer; the strength of the noise starts at 0."""
        super().__init__()
        self.affine = EqualLinear(LATENT, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
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
        self.affine = EqualLinear(LATENT, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map [B, C, H, W] with styles [B, W] to [B, 3, H, W]."""
        style = self.affine(style) / math.sqrt(x.shape[1])  # [B, C]; the scale of `EqualLinear`
        x = modulated_conv2d(x, self.weight, style, demodulate=False, grouped=x.is_cuda)
        return x + self.bias[:, None, None]


class StyleBlock(nn.Module):
    """Two style layers at one side, and the picture that this side draws."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        """Build the layers."""
        super().__init__()
        self.first = StyleLayer(in_channels, out_channels, side)
        self.second = StyleLayer(out_channels, out_channels, side)
        self.to_picture = ToPicture(out_channels)

    def forward(self, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, H, W] with styles [B, 2, W] to features [B, C', H, W] and [B, 3, H, W]."""
        x = self.second(self.first(x, styles[:, 0]), styles[:, 1])  # [B, C', H, W]
        return x, self.to_picture(x, styles[:, 1])


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
        self.truncation, self.layers = 1.0, 2 * len(channels)
        self.standardize = Standardize(text_dim)
        self.map_text = MappingNetwork(text_dim, TEXT)
        self.map_noise = MappingNetwork(noise_dim, FREE)
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.move = nn.Parameter(torch.randn(channels[0] * 4 * 4, FREE))  # the constant, by noise
        self.blocks = nn.ModuleList(
            StyleBlock(a, b, 4 * 2**k)
            for k, (a, b) in enumerate(zip([channels[0], *channels], channels, strict=False))
        )
        self.register_buffer("latent_mean", torch.zeros(FREE))

    def forward(self, text: TextFeatures | Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw captions (features, or sentences [B, D]) with noise [B, Z]: [B, 3, S, S]."""
        text = check_inputs(text, noise, self.text_dim, self.noise_dim)  # [B, D]
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
            self.latent_mean.lerp_(free.detach().float().mean(dim=0), 0.005)
        elif self.truncation != 1:
            free = self.latent_mean.lerp(free, self.truncation)
        return torch.cat([self.map_text(self.standardize(text)), free], dim=1)

    def synthesize(self, styles: Tensor) -> Tensor:
        """Draw styles [B, L, W], one for each layer: [B, 3, S, S] in [-1, 1]."""
        moved = functional.linear(styles[:, 0, TEXT:], self.move / math.sqrt(FREE))  # [B, C 4 4]
        x = self.constant + moved.unflatten(1, self.constant.shape[1:])  # [B, C, 4, 4]
        picture = x.new_zeros(len(x), 3, 2, 2)
        for k, block in enumerate(self.blocks):
            x = upsample(x) if k else x
            x, drawn = block(x, styles[:, 2 * k : 2 * k + 2])  # [B, C, H, W], [B, 3, H, W]
            picture = upsample(picture) + drawn
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
