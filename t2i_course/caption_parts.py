"""Parts of a caption, for networks that look up place by place what it says.

A sentence feature sets one scale and one shift for a whole map: all places hear the same. Three
things of three colours need more: here the feature is turned into K parts, learnt, not words, and
every place of the generator's map asks which of them concerns it (vaswani2017attention, eq. 1;
between places and words in xu2018attngan). In the discriminator, each part is a filter that is laid
over the map of the picture: where is something like this?

Both begin as additions of 0, so that weights which were trained without them can go on with them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of the leaky ReLU below 0
HIDDEN = 512
QUERY = 32  # width in which places and parts are compared


class CaptionParts(nn.Module):
    """Turn features of captions, standardized, [B, D] into K parts [B, K, P]."""

    def __init__(self, text_dim: int, number: int, width: int = 64) -> None:
        """Build two layers; `number` is K, `width` P."""
        super().__init__()
        self.number = number
        self.layers = nn.Sequential(
            nn.Linear(text_dim, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, number * width)
        )

    def forward(self, text: Tensor) -> Tensor:
        """Map [B, D] to [B, K, P]."""
        return self.layers(text).unflatten(1, (self.number, -1))


class PartAttention(nn.Module):
    """Every place of a map adds what it takes from the parts of the caption.

    x_p <- x_p + sum_k a_pk v_k, a_p = softmax_k(q(x_p)^T k_k / sqrt(32))
    """

    def __init__(self, channels: int, side: int, width: int = 64) -> None:
        """Build it for maps [B, C, side, side] and parts [B, K, width]."""
        super().__init__()
        self.query = nn.Linear(channels, QUERY)
        self.place = nn.Parameter(0.3 * torch.randn(side * side, QUERY))
        self.key, self.value = nn.Linear(width, QUERY), nn.Linear(width, channels)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def weights(self, x: Tensor, parts: Tensor) -> Tensor:
        """How much each place of [B, C, H, W] takes from each part [B, K, P]: [B, H W, K]."""
        places = x.permute(0, 2, 3, 1).flatten(1, 2)  # [B, H W, C]
        query = self.query(functional.leaky_relu(places, SLOPE)) + self.place  # [B, H W, 32]
        return torch.softmax(query @ self.key(parts).mT / QUERY**0.5, dim=-1)

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        taken = self.weights(x, parts) @ self.value(parts)  # [B, H W, C]
        return x + taken.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class PartFilters(nn.Module):
    """Lay each part of a caption over the map of a picture, and judge where they answer."""

    def __init__(
        self, text_dim: int, channels: int, side: int, number: int, width: int = 48
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, features of a caption.
            channels: C of the picture's map.
            side: of the map.
            number: K, filters.
            width: channels in which the map and the filters are compared.
        """
        super().__init__()
        hidden = 64
        self.number = number
        self.see = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, width, 1),
        )  # fmt: skip
        self.place = nn.Parameter(0.1 * torch.randn(width, side, side))
        self.filters, self.bias = nn.Linear(text_dim, number * width), nn.Linear(text_dim, number)
        self.answers = nn.Sequential(
            nn.Conv2d(number, hidden, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(hidden, hidden, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.modulation = nn.Linear(text_dim, 2 * hidden)
        self.logit = nn.Sequential(
            nn.LeakyReLU(SLOPE), nn.Conv2d(hidden, hidden, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Flatten(), nn.Linear(hidden * (side // 2) ** 2, 128), nn.LeakyReLU(SLOPE),
            nn.Linear(128, 1),
        )  # fmt: skip
        nn.init.zeros_(self.logit[-1].weight)
        nn.init.zeros_(self.logit[-1].bias)

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Turn maps [B, C, H, W] and captions [K B, D], picture by picture, into logits [K B]."""
        seen = (self.see(functional.leaky_relu(features, SLOPE)) + self.place).flatten(2)
        filters = self.filters(text).view(-1, len(features), self.number, seen.shape[1])
        found = filters @ seen * (2 / seen.shape[1] ** 0.5)  # [K, B, number, H W]
        found = found.flatten(0, 1) + self.bias(text)[:, :, None]
        answers = self.answers(found.unflatten(2, features.shape[2:]))  # [K B, 64, H / 2, W / 2]
        scale, shift = self.modulation(text)[:, :, None, None].chunk(2, dim=1)
        return self.logit(answers * (1 + scale) + shift).flatten()
