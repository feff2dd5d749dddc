"""Parts of a caption, for the shipped GAN: its generator looks up place by place what they say.

A reader sorts the feature of a caption into four parts: the scene, and up to three kinds of things,
each with its colour, shape, size, number and place in one part. Every place of the generator's map
asks which part concerns it (vaswani2017attention, eq. 1; between places and words in
xu2018attngan); a layout lets the parts look at each other and at the noise before. Weights with
these parts are drawn with here; what trained them is at commit 9e7c377.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.image_decoder import Standardize

SLOPE = 0.2  # of the leaky ReLU below 0
PARTS, WIDTH = 4, 64  # the scene and three kinds of things
HIDDEN = 512
QUERY = 32  # width in which places and parts are compared
HEADS = 4  # of the self-attention between parts


class CaptionReader(nn.Module):
    """Features of captions [B, D] to parts [B, 4, 64]; its weights are buffers, and stand still."""

    def __init__(self, text_dim: int) -> None:
        """Make room for the weights."""
        super().__init__()
        sizes = (text_dim, HIDDEN, HIDDEN, PARTS * WIDTH)
        self.standardize = Standardize(text_dim)
        for k, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
            self.register_buffer(f"weight{k}", torch.zeros(after, before))
            self.register_buffer(f"bias{k}", torch.zeros(after))
        self.loudness = Standardize(PARTS * WIDTH)
        self.register_buffer("taught", torch.tensor(False))

    def forward(self, text: Tensor) -> Tensor:
        """Map [B, D] to [B, 4, 64]: mean 0 and standard deviation 1 over captions."""
        x = self.standardize(text)
        x = functional.leaky_relu(functional.linear(x, self.weight0, self.bias0), SLOPE)
        x = functional.leaky_relu(functional.linear(x, self.weight1, self.bias1), SLOPE)
        x = self.loudness(functional.linear(x, self.weight2, self.bias2))
        return x.unflatten(-1, (PARTS, WIDTH))


class PartLayout(nn.Module):
    """Parts [B, 4, 64] and noise [B, Z] to parts that know of each other, and of the noise.

    p_k <- p_k + W t_k, where t is what two layers of self-attention (vaswani2017attention, section
    3.1) make of the parts, to each of which a projection of the noise of its own is added.
    """

    def __init__(self, noise_dim: int) -> None:
        """Build the layers."""
        super().__init__()
        self.name = nn.Parameter(0.3 * torch.randn(PARTS, WIDTH))  # which part it is
        self.noise = nn.Linear(noise_dim, PARTS * WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, parts: Tensor, noise: Tensor) -> Tensor:
        """Map [B, 4, 64] to the same shape."""
        tokens = parts + self.name + self.noise(noise).unflatten(1, (PARTS, WIDTH))
        for layer in self.layers:
            tokens = layer(tokens)  # [B, 4, 64]
        return parts + self.out(tokens)


class PartAttention(nn.Module):
    """Every place of a map adds what it takes from the parts of the caption.

    x_p <- x_p + sum_k a_pk v_k, a_p = softmax_k(q(x_p)^T k_k / sqrt(32))
    """

    def __init__(self, channels: int, side: int) -> None:
        """Build it for maps [B, C, side, side]."""
        super().__init__()
        self.query = nn.Linear(channels, QUERY)
        self.place = nn.Parameter(0.3 * torch.randn(side * side, QUERY))
        self.key, self.value = nn.Linear(WIDTH, QUERY), nn.Linear(WIDTH, channels)

    def weights(self, x: Tensor, parts: Tensor) -> Tensor:
        """How much each place of [B, C, H, W] takes from each of [B, K, 64]: [B, H W, K]."""
        places = x.permute(0, 2, 3, 1).flatten(1, 2)  # [B, H W, C]
        query = self.query(functional.leaky_relu(places, SLOPE)) + self.place  # [B, H W, 32]
        return torch.softmax(query @ self.key(parts).mT / QUERY**0.5, dim=-1)

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        taken = self.weights(x, parts) @ self.value(parts)  # [B, H W, C]
        return x + taken.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
