"""Tests of t2i_course.caption_parts: attention to parts of a caption, and parts as filters."""

import pytest
import torch
from torch import nn

from t2i_course.caption_parts import CaptionParts, PartAttention, PartFilters
from t2i_course.gan import Discriminator, GanConfig, TextGenerator, read_config


def test_attention_is_the_formula_at_every_place():
    torch.manual_seed(0)
    attention, parts = PartAttention(6, 4, width=8), torch.randn(2, 5, 8)
    nn.init.normal_(attention.value.weight)
    x = torch.randn(2, 6, 4, 4)
    found, weights = attention(x, parts), attention.weights(x, parts)
    assert weights.shape == (2, 16, 5)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 16))
    place = nn.functional.leaky_relu(x[1, :, 2, 3], 0.2)  # row 2, column 3: place 11
    query = attention.query(place) + attention.place[11]
    scores = torch.stack([query @ attention.key(part) for part in parts[1]]) / 32**0.5
    taken = sum(
        w * attention.value(part) for w, part in zip(scores.softmax(0), parts[1], strict=True)
    )
    assert torch.allclose(found[1, :, 2, 3], x[1, :, 2, 3] + taken, atol=1e-5)


def test_places_can_take_different_parts_of_one_caption():
    """A scale and a shift a channel give all places of an even map the same; attention does not."""
    torch.manual_seed(0)
    attention = PartAttention(6, 4, width=8)
    nn.init.normal_(attention.value.weight)
    with torch.no_grad():
        attention.place.mul_(20)  # as if learnt: each place asks for its own part
    even = torch.ones(1, 6, 4, 4)
    drawn = attention(even, torch.randn(1, 5, 8)).flatten(2)[0]  # [6, 16]
    assert drawn.std(dim=1).min() > 0.05


@pytest.mark.parametrize("side", [16, 32, 64])
def test_new_parts_add_nothing_until_they_have_learnt(side):
    torch.manual_seed(0)
    images, text, noise = torch.rand(2, 3, side, side), torch.randn(2, 16), torch.randn(2, 8)
    false = torch.randn(3, 2, 16)
    plain, grown = TextGenerator(16, 8, side, 8), TextGenerator(16, 8, side, 8, parts=4)
    missing = grown.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and missing.missing_keys
    assert torch.equal(grown(text, noise), plain(text, noise))
    judge, more = Discriminator(16, side, 8), Discriminator(16, side, 8, filters=4)
    assert not more.load_state_dict(judge.state_dict(), strict=False).unexpected_keys
    for found, expected in zip(more(images, text, false), judge(images, text, false), strict=True):
        assert torch.equal(found, expected)
    (grown(text, noise).square().mean() + more(images, text).mean()).backward()
    layers = [grown.attention[0].value, grown.attention[1].value, more.lay.logit[-1]]
    assert all(layer.weight.grad.abs().max() > 0 for layer in layers)


def test_filters_judge_each_caption_of_a_picture_by_itself():
    torch.manual_seed(0)
    filters = PartFilters(16, 6, 8, number=4, width=5)
    nn.init.normal_(filters.logit[-1].weight)
    features, text = torch.randn(2, 6, 8, 8), torch.randn(3, 2, 16)
    found = filters(features, text.flatten(0, 1)).unflatten(0, (3, 2))
    for k in range(3):
        for b in range(2):
            alone = filters(features[b : b + 1], text[k, b : b + 1])
            assert torch.allclose(found[k, b], alone[0], atol=1e-5)


def test_filters_know_where_they_answer():
    torch.manual_seed(0)
    filters = PartFilters(16, 6, 8, number=4, width=5)
    nn.init.normal_(filters.logit[-1].weight)
    features, text = torch.randn(1, 6, 8, 8), torch.randn(1, 16)
    assert not torch.allclose(filters(features, text), filters(features.flip(3), text), atol=1e-3)


def test_parts_differ_within_a_caption():
    torch.manual_seed(0)
    parts = CaptionParts(16, 5, 8)(torch.randn(3, 16))
    assert parts.shape == (3, 5, 8)
    assert parts.std(dim=1).min() > 0


def test_bad_numbers_are_refused():
    for name in ("parts", "filters"):
        with pytest.raises(ValueError, match=f"{name} must be 0 or more, not -1"):
            GanConfig(**{name: -1})
    assert read_config(["parts=8", "filters=16"]) == GanConfig(parts=8, filters=16)
    with pytest.raises(ValueError, match="laid over 8 x 8"):
        Discriminator(16, 8, 8, filters=4)
