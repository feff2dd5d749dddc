"""Tests of t2i_course.scenes.caption_parts: how the shipped GAN looks up what a caption says."""

import pytest
import torch
from torch import nn

from t2i_course.gan import TextGenerator
from t2i_course.scenes.caption_parts import PARTS, WIDTH, PartAttention, PartLayout


def test_attention_is_the_formula_at_every_place():
    torch.manual_seed(0)
    attention, parts = PartAttention(6, 4), torch.randn(2, PARTS, WIDTH)
    x = torch.randn(2, 6, 4, 4)
    found, weights = attention(x, parts), attention.weights(x, parts)
    assert weights.shape == (2, 16, PARTS)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 16))
    place = nn.functional.leaky_relu(x[1, :, 2, 3], 0.2)  # row 2, column 3: place 11
    query = attention.query(place) + attention.place[11]
    share = torch.stack([query @ attention.key(part) for part in parts[1]]).div(32**0.5).softmax(0)
    taken = sum(w * attention.value(part) for w, part in zip(share, parts[1], strict=True))
    assert torch.allclose(found[1, :, 2, 3], x[1, :, 2, 3] + taken, atol=1e-4)


def test_a_layout_lets_noise_and_the_other_parts_into_every_part():
    torch.manual_seed(0)
    layout = PartLayout(8)
    parts, noise = torch.randn(3, PARTS, WIDTH), torch.randn(3, 8)
    placed = layout(parts, noise)
    assert placed.shape == parts.shape
    assert torch.allclose(layout(parts[1:2], noise[1:2]), placed[1:2], atol=1e-4)  # row by row
    moved = (layout(parts, noise + 1) - placed).abs().amax(dim=2)  # [3, 4]
    assert moved.min() > 0.05
    other = parts.clone()
    other[:, 3] = torch.randn(WIDTH)
    assert (layout(other, noise) - placed).abs().amax(dim=2).min() > 0.005


@pytest.mark.parametrize("side", [16, 64])
def test_a_generator_with_parts_draws_and_is_built_again_from_its_config(side):
    torch.manual_seed(0)
    generator = TextGenerator(16, 8, side, 8, parts=True)
    nn.init.normal_(generator.reader.weight2)
    again = TextGenerator(**generator.config)
    again.load_state_dict(generator.state_dict())
    text, noise = torch.randn(2, 16), torch.randn(2, 8)
    images = again(text, noise)
    assert images.shape == (2, 3, side, side)
    assert torch.equal(images, generator(text, noise))
