"""The energy score: a loss that is least when what is drawn varies as what is real does.

The squared error asks for the mean of all that fits a caption (notebook 04). The energy score of
two draws X, X' and one real y of the same caption,

    ES = 1/2 (|X - y| + |X' - y|) - 1/2 |X - X'|,

has its least expectation, over y as well, where X is distributed as y is, and only there
(gneiting2007scoring, section 4.3; as the loss of a generator in bouchacourt2016disconets). One real
picture of a caption is enough. It says nothing of sharpness, so it is taken of what matters of a
picture, here of coarse pixels and of colours, beside a discriminator.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

COARSE = 8  # pixels to a side, of what is compared place by place


def energy_score(first: Tensor, second: Tensor, real: Tensor) -> Tensor:
    """Score two draws by one real value; lower is better.

    gneiting2007scoring, equation 22, of a sample of two. Of a single number (D = 1) it is the
    continuous ranked probability score (equation 21).

    Args:
        first: [..., D], drawn.
        second: [..., D], drawn for the same caption with other noise.
        real: [..., D], of a real picture of the caption.

    Returns:
        [...], of root mean squares over D; for a fixed `real` possibly below 0.
    """

    def apart(one: Tensor, other: Tensor) -> Tensor:
        # The slope of a root at 0 is infinite; two draws that are alike would be torn apart.
        return ((one - other).square().mean(dim=-1) + 1e-8).sqrt()

    return (apart(first, real) + apart(second, real) - apart(first, second)) / 2


def coarse_pixels(images: Tensor) -> Tensor:
    """Reduce pictures [B, C, S, S] to 8 x 8 pixels, in a row: [B, 64 C]. What is where?"""
    return functional.adaptive_avg_pool2d(images, COARSE).flatten(1)


def sorted_colors(images: Tensor) -> Tensor:
    """Summarize how much there is of which colour, wherever it is.

    The values of each channel of pictures reduced to S/2 x S/2 are sorted and averaged over the
    least one, the next, the next two, four, eight and so on up to the median, and from the greatest
    one in the same way: few pixels of a small thing weigh as much as many of a background.

    Args:
        images: [B, C, S, S].

    Returns:
        [B, C, 2 K], in the range of the pictures; K is 10 at S = 64.
    """
    values = functional.avg_pool2d(images, 2).flatten(2).sort(dim=2).values  # [B, C, S^2 / 4]
    half = values.shape[2] // 2
    bounds = [0, 1]
    while bounds[-1] < half:
        bounds.append(min(2 * bounds[-1], half))
    sides = values[..., :half], values[..., -half:].flip(2)  # [B, C, S^2 / 8] each
    octaves = list(zip(bounds, bounds[1:], strict=False))
    return torch.stack([side[..., a:b].mean(dim=2) for side in sides for a, b in octaves], dim=2)


def picture_score(first: Tensor, second: Tensor, real: Tensor) -> Tensor:
    """Energy score of coarse pixels, plus the mean of those of each sorted colour.

    Args:
        first: [B, C, S, S] in [-1, 1], drawn.
        second: [B, C, S, S], drawn for the same captions with other noise.
        real: [B, C, S, S], of the same captions.

    Returns:
        A scalar.
    """
    places = energy_score(*(coarse_pixels(images) for images in (first, second, real)))  # [B]
    colors = energy_score(
        *(sorted_colors(images)[..., None] for images in (first, second, real))
    )  # [B, C, 2 K]
    return places.mean() + colors.mean()
