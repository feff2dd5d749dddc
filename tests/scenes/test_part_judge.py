"""Tests of t2i_course.scenes.part_judge: what a discriminator makes of the parts of a caption."""

import dataclasses

import pytest
import torch
from torch import nn

from t2i_course import gan
from t2i_course.scenes.caption_parts import PARTS, WIDTH
from t2i_course.scenes.part_judge import PartJudge


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return PartJudge(12, 4)


def discriminator(**changes):
    torch.manual_seed(1)
    network = gan.Discriminator(32, **{"image_size": 32, "width": 8, "parts": True, **changes})
    torch.manual_seed(2)
    for k in range(3):  # a reader that nobody has taught writes zeros
        nn.init.normal_(network.reader.get_buffer(f"weight{k}"), std=0.1)
    return network


def test_every_caption_is_judged_with_its_own_picture(judge):
    maps, parts = torch.randn(3, 12, 4, 4), torch.randn(2 * 3, PARTS, WIDTH)
    logits = judge(maps, parts)
    assert logits.shape == (6,)
    for number in range(6):
        alone = judge(maps[number % 3][None], parts[number][None])
        assert torch.allclose(alone, logits[number], atol=1e-4)


def test_what_a_part_says_and_where_it_is_seen_both_matter(judge):
    maps, parts = torch.randn(5, 12, 4, 4), torch.randn(5, PARTS, WIDTH)
    logits = judge(maps, parts)
    assert (judge(maps.flip(3), parts) - logits).abs().min() > 1e-3  # mirrored
    for k in range(PARTS):
        other = parts.clone()
        other[:, k] = torch.randn(5, WIDTH)
        assert (judge(maps, other) - logits).abs().min() > 1e-4
    swapped = parts[:, [0, 2, 1, 3]]
    assert (judge(maps, swapped) - logits).abs().min() > 1e-4


def test_the_third_head_is_added_and_false_captions_go_through_it():
    network = discriminator()
    images, text = torch.rand(4, 3, 32, 32), torch.randn(4, 32)
    false = torch.randn(3, 2, 32)
    logits, wrong = network(images, text, false)
    assert logits.shape == (4,) and wrong.shape == (3, 2)
    for k in range(3):
        assert torch.allclose(network(images[:2], false[k]), wrong[k], atol=1e-4)
    nn.init.zeros_(network.part_judge.verdict.weight)
    nn.init.zeros_(network.part_judge.verdict.bias)
    without = gan.Discriminator(32, image_size=32, width=8)
    missing = without.load_state_dict(network.state_dict(), strict=False)
    assert not missing.missing_keys and missing.unexpected_keys
    two_heads = without(images, text)
    assert torch.allclose(network(images, text), two_heads, atol=1e-5)
    assert not torch.allclose(logits, two_heads, atol=1e-3)


def test_the_gradient_penalty_leaves_the_third_head_alone():
    config = gan.GanConfig(parts=True, judge_parts=True, width=8, matching_aware=False)
    for penalty in ("matching-aware", "r1r2"):
        objective = gan.Gan(dataclasses.replace(config, penalty=penalty), 32, 32)
        network = objective.modules["discriminator"]
        for k in range(3):
            nn.init.normal_(network.reader.get_buffer(f"weight{k}"), std=0.1)
        shown, text = torch.rand(6, 3, 32, 32), torch.randn(3, 32)
        charged = objective._penalty(shown, text)
        charged.backward()
        assert all(weight.grad is None for weight in network.part_judge.parameters())
        assert network.head[0].weight.grad.abs().max() > 0
        # It is what the same trunk and heads would be charged without a third one.
        without = gan.Discriminator(32, image_size=32, width=8)
        without.load_state_dict(network.state_dict(), strict=False)
        objective.modules["discriminator"] = without
        assert torch.allclose(objective._penalty(shown, text), charged, rtol=1e-4)


def test_a_judge_of_parts_learns_the_side_of_the_third_thing():
    """Two things at two of 16 places; the caption's third part says on which side the second is."""
    torch.manual_seed(0)
    network = PartJudge(8, 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.0, 0.9))

    def draw(count):
        maps, parts = torch.zeros(count, 8, 4, 4), torch.zeros(count, PARTS, WIDTH)
        every, rows = torch.arange(count), torch.randint(4, (2, count))
        first = torch.randint(4, (count,))
        second = (first + torch.randint(1, 4, (count,))) % 4  # in another column
        maps[every, 0, rows[0], first] = 3.0
        maps[every, 1, rows[1], second] = 3.0
        said = torch.randint(2, (count,)) * 2.0 - 1.0
        parts[:, 3, :8] = said[:, None]
        return maps, parts, torch.sign((second - first) * said)

    for _ in range(400):
        maps, parts, true = draw(64)
        optimizer.zero_grad()
        torch.relu(1 - true * network(maps, parts)).mean().backward()
        optimizer.step()
    maps, parts, true = draw(400)
    with torch.no_grad():
        right = (network(maps, parts) * true > 0).float().mean()
    assert right > 0.8  # by chance a half


def test_the_switch_needs_parts_and_pictures_that_have_an_8_x_8_map():
    assert gan.read_config(["parts=on", "judge_parts=on"]).judge_parts
    with pytest.raises(ValueError, match="judge_parts=on judges the parts of a caption: add parts"):
        gan.read_config(["judge_parts=on"])
    with pytest.raises(ValueError, match="image_size 8: the parts look at 8 x 8, so 16 or more"):
        gan.Discriminator(32, image_size=8, parts=True)
    assert gan.Discriminator(32, image_size=16, parts=True)(
        torch.rand(2, 3, 16, 16), torch.randn(2, 32)
    ).shape == (2,)
    network = gan.Gan(
        gan.GanConfig(parts=True, judge_parts=True, matching_aware=False), 32, 32
    ).modules["discriminator"]
    assert network.config["parts"] and network.part_judge is not None
    assert all("reader" not in name for name, _ in network.named_parameters())
