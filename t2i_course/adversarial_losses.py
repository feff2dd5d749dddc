"""Losses of generative adversarial networks, as functions of logits, and their penalties.

A discriminator's logit is high where it takes a picture to be real and to fit its caption. Three
kinds come in: of real pictures with their captions (`logits_real`), of generated ones with the
captions they were drawn for (`logits_fake`), and of real pictures with captions that are false of
them (`logits_mismatched`). All losses are means over the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def hinge_discriminator(
    logits_real: Tensor, logits_fake: Tensor, logits_mismatched: Tensor | None = None
) -> Tensor:
    """Hinge loss of the discriminator, matching-aware if there are mismatched captions.

        L_D = E[max(0, 1 - D(x, t))] + 1/2 E[max(0, 1 + D(G(t, z), t))]
              + 1/2 E[max(0, 1 + D(x, t'))]

    lim2017hinge; with mismatched captions t' (reed2016text) as in tao2022dfgan, equation 3.

    Args:
        logits_real: [B].
        logits_fake: [B].
        logits_mismatched: [M], one or several to a picture; None leaves the third term out, and
            the second then has the weight 1.

    Returns:
        A scalar, at least 0.
    """
    real = functional.relu(1 - logits_real).mean()
    fake = functional.relu(1 + logits_fake).mean()
    if logits_mismatched is None:
        return real + fake
    return real + (fake + functional.relu(1 + logits_mismatched).mean()) / 2


def hinge_generator(logits_fake: Tensor) -> Tensor:
    """Hinge loss of the generator, -E[D(G(t, z), t)] (lim2017hinge)."""
    return -logits_fake.mean()


def relativistic_discriminator(
    logits_real: Tensor, logits_fake: Tensor, logits_mismatched: Tensor | None = None
) -> Tensor:
    """Relativistic pairing loss: real pictures are to be more real than generated ones.

        L_D = E[softplus(-(D(x, t) - D(G(t, z), t)))]

    jolicoeur2019relativistic, and huang2024r3gan, equation 2. A mismatched caption is paired with
    the right caption of the same picture, with the weight of the first term.

    Args:
        logits_real: [B].
        logits_fake: [B].
        logits_mismatched: [B], or None.
    """
    loss = functional.softplus(logits_fake - logits_real).mean()
    if logits_mismatched is None:
        return loss
    return (loss + functional.softplus(logits_mismatched - logits_real).mean()) / 2


def matching_aware_penalty(
    discriminate: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    text: Tensor,
    weight: float = 2.0,
    power: float = 6.0,
) -> Tensor:
    """Matching-aware gradient penalty at real pictures with their captions.

        k E[(||grad_x D(x, t)|| + ||grad_t D(x, t)||)^p],   k = 2, p = 6

    tao2022dfgan, equation 2. It keeps the discriminator flat around what the generator aims at.

    Args:
        discriminate: (images, text) -> logits [B].
        images: [B, 3, S, S], real.
        text: [B, D], of their captions.
        weight: k.
        power: p.

    Returns:
        A scalar, in float32, with a graph for the discriminator's weights.
    """
    images, text = images.detach().requires_grad_(), text.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        logits = discriminate(images.float(), text.float())
        by_image, by_text = torch.autograd.grad(logits.sum(), (images, text), create_graph=True)
        norm = by_image.flatten(1).norm(dim=1) + by_text.norm(dim=1)  # [B]
        return weight * norm.pow(power).mean()
