"""Changes of pictures through which a gradient flows (zhao2020diffaugment).

Real and generated pictures go through them before the discriminator sees them, in its own update
and in the generator's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

AUGMENTATIONS = ("brightness", "saturation", "contrast", "translation", "cutout")


def augment(
    images: Tensor,
    operations: Sequence[str],
    draw: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Change pictures at random, each in its own way, with a gradient (zhao2020diffaugment).

    Colour operations make "a red circle" false, and so does a cut-out that hides it; a translation
    by up to a sixteenth of the side makes little false. What a data set bears is its own matter:
    scenes bear none but the translation.

    Args:
        images: [B, 3, S, S] in [-1, 1].
        operations: names from `AUGMENTATIONS`, done in this order.
        draw: called with a number n, returns [B, n] in [0, 1); torch's global generator if None.

    Returns:
        [B, 3, S, S].
    """
    for name in operations:
        drawn = torch.rand(len(images), 2) if draw is None else draw(2)  # [B, 2]
        images = _OPERATIONS[name](images, drawn.to(images.device, torch.float32))
    return images


def _per_picture(drawn: Tensor, low: float, high: float) -> Tensor:
    return (low + (high - low) * drawn[:, 0])[:, None, None, None]  # [B, 1, 1, 1]


def _brightness(images: Tensor, drawn: Tensor) -> Tensor:
    return images + _per_picture(drawn, -0.5, 0.5)


def _saturation(images: Tensor, drawn: Tensor) -> Tensor:
    gray = images.mean(dim=1, keepdim=True)
    return gray + (images - gray) * _per_picture(drawn, 0, 2)


def _contrast(images: Tensor, drawn: Tensor) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * _per_picture(drawn, 0.5, 1.5)


def _translation(images: Tensor, drawn: Tensor) -> Tensor:
    """Move by whole pixels, up to a sixteenth of the side; the border is continued."""
    side, device = images.shape[-1], images.device
    reach = side // 16  # zhao2020diffaugment: an eighth, which takes shapes out of their corners
    moves = (drawn.T[:, :, None] * (2 * reach + 1)).long() - reach  # [2, B, 1]
    rows, columns = (torch.arange(side, device=device) + moves).clamp(0, side - 1)  # [B, S] each
    picture = torch.arange(len(images), device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)  # [B, 3, S, S]


def _cutout(images: Tensor, drawn: Tensor) -> Tensor:
    """Blank a square of half the side."""
    side, device = images.shape[-1], images.device
    centre = (drawn.T[:, :, None] * (side + 1)).long()  # [2, B, 1]
    rows, columns = (torch.arange(side, device=device) - centre).abs() <= side // 4  # [B, S] each
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness, "saturation": _saturation, "contrast": _contrast,
    "translation": _translation, "cutout": _cutout,
}  # fmt: skip
