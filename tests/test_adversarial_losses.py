import math

import pytest
import torch
from torch import nn

from t2i_course.adversarial_losses import (
    hinge_discriminator,
    hinge_generator,
    matching_aware_penalty,
    relativistic_discriminator,
)


def test_hinge_loss_by_hand():
    real, fake, wrong = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0]), torch.tensor([1.0, -1])
    # real: (0.5 + 0) / 2; fake: (0 + 1) / 2; wrong: (2 + 0) / 2
    assert hinge_discriminator(real, fake).item() == pytest.approx(0.25 + 0.5)
    assert hinge_discriminator(real, fake, wrong).item() == pytest.approx(0.25 + 0.25 + 0.5)
    assert hinge_generator(fake).item() == pytest.approx(1.5)


def test_hinge_loss_is_satisfied_beyond_its_margins():
    far = torch.full((4,), 1.5)
    assert hinge_discriminator(far, -far, -far) == 0


def test_relativistic_loss_by_hand():
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert relativistic_discriminator(real, fake).item() == pytest.approx(expected)


def test_relativistic_loss_ignores_what_all_logits_share():
    real, fake, wrong = torch.randn(3, 8)
    moved = relativistic_discriminator(real + 5, fake + 5, wrong + 5)
    assert moved.item() == pytest.approx(relativistic_discriminator(real, fake, wrong).item(), 1e-4)


class Linear(nn.Module):
    """D(x, t) = a . x + b . t, whose gradients are a and b everywhere."""

    def __init__(self, pixels, width):
        super().__init__()
        self.a = nn.Parameter(torch.full((pixels,), 0.1))
        self.b = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, images, text):
        return images.flatten(1) @ self.a + text @ self.b


def test_the_penalty_of_a_linear_discriminator_has_a_closed_form():
    network = Linear(3 * 4 * 4, 9)
    images, text = torch.randn(5, 3, 4, 4), torch.randn(5, 9)
    by_image, by_text = 0.1 * math.sqrt(48), 0.2 * 3
    penalty = matching_aware_penalty(network, images, text)
    assert penalty.item() == pytest.approx(2 * (by_image + by_text) ** 6, rel=1e-5)


def test_descending_a_penalty_flattens_the_discriminator():
    network = Linear(48, 9)
    images, text = torch.randn(5, 3, 4, 4), torch.randn(5, 9)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    before = matching_aware_penalty(network, images, text).item()
    for _ in range(20):
        optimizer.zero_grad()
        matching_aware_penalty(network, images, text).backward()
        optimizer.step()
    assert matching_aware_penalty(network, images, text).item() < 0.5 * before
    assert images.grad is None and text.grad is None
