"""Tests of t2i_course.scenes.caption_parts: what is read out of a caption, and who asks for it."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

from t2i_course.gan import GanConfig, TextGenerator, read_config
from t2i_course.scenes import drawing, probe, wording
from t2i_course.scenes.caption_parts import (
    NOTHING,
    PARTS,
    ROLES,
    SCENE,
    THING,
    WIDTH,
    CaptionReader,
    PartAttention,
    PartHeads,
    PartLayout,
    draw_captions,
    labels_of,
    teach,
)
from t2i_course.text_encoder import TextEncoder

STAR = {"shape": "star", "color": "red", "size": "small"}
HEART = {"shape": "heart", "color": "blue"}
CROSS = {"shape": "cross"}


def told(facts: dict) -> tuple[dict, list[dict]]:
    """The labels of a caption, in words: of the scene, and of each thing that is there."""
    numbers = labels_of(facts)
    scene = {name: SCENE[name][k] for name, k in zip(SCENE, numbers[:3], strict=True)}
    rows = [numbers[3 + 6 * k : 9 + 6 * k] for k in range(3)]
    things = [{n: THING[n][k] for n, k in zip(THING, row, strict=True)}
              for row in rows if row[0] != NOTHING]  # fmt: skip
    return scene, things


def test_labels_put_everything_that_is_said_of_a_thing_into_its_part():
    aside = {"background": "sky", "objects": [CROSS, HEART, STAR],
             "relations": [[2, "left of", 1], [0, "above", 1], [0, "above", 2]]}  # fmt: skip
    scene, things = told(aside)
    assert scene == {"background": "sky", "kinds": 3, "objects": 3}
    assert [thing["role"] for thing in things] == ["left", "right", "aside above"]
    assert [thing["shape"] for thing in things] == ["star", "heart", "cross"]
    assert things[0]["size"] == "small" and things[1]["size"] is None
    below = {**aside, "relations": [[2, "left of", 1], [1, "above", 0], [2, "above", 0]]}
    assert told(below)[1][2]["role"] == "aside below"
    row = {"background": None, "objects": [HEART, STAR, CROSS],
           "relations": [[1, "above", 0], [0, "above", 2]]}  # fmt: skip
    assert [(t["role"], t["shape"]) for t in told(row)[1]] == [
        ("upper", "star"), ("middle", "heart"), ("lower", "cross")]  # fmt: skip
    alike = {"background": None, "objects": [STAR, STAR, HEART], "relations": []}
    scene, things = told(alike)
    assert scene == {"background": None, "kinds": 2, "objects": 3}
    assert [(t["shape"], t["number"], t["role"]) for t in things] == [
        ("star", 2, "listed"), ("heart", 1, "listed")]  # fmt: skip


def test_labels_of_a_list_do_not_depend_on_its_order():
    for seed in range(50):
        facts = drawing.sample_facts(random.Random(seed))
        if not facts["relations"]:
            turned = {**facts, "objects": facts["objects"][::-1]}
            assert labels_of(turned) == labels_of(facts)


def test_labels_name_a_role_for_every_thing_of_every_arrangement():
    seen = set()
    for seed in range(1500):
        facts = drawing.sample_facts(random.Random(f"roles {seed}"))
        _, things = told(facts)
        assert len(things) == len(wording.groups_of(facts))
        assert sum(thing["number"] for thing in things) == len(facts["objects"])
        seen |= {thing["role"] for thing in things}
    assert seen == set(ROLES)


@functools.cache
def taught() -> tuple[CaptionReader, float]:
    facts = probe.probe_captions(6_000, seed=1)
    reader = CaptionReader(256)
    share = teach(reader, encode(facts[0]), facts[1], steps=400, batch_size=256)
    return reader, share


def encode(words: list[str]) -> np.ndarray:
    encoder = TextEncoder("caption-bert")
    with torch.inference_mode():
        return torch.cat(
            [encoder(words[k : k + 250]).sentence for k in range(0, len(words), 250)]
        ).numpy()


def test_each_thing_that_is_said_moves_its_own_part():
    """A change of background moves the feature of a crowded caption little, its part much."""
    reader, share = taught()
    assert share > 0.4  # of everything at once; after the full 3,000 steps about 0.9
    pairs = []
    for seed in range(900):
        facts = drawing.sample_facts(random.Random(f"parts {seed}"))
        if facts["background"] == "white" and len(wording.groups_of(facts)) == 3:
            other = {**facts, "background": "black"}
            pairs.append([wording.word_facts(f, random.Random(seed)) for f in (facts, other)])
    one, two = (torch.from_numpy(encode([pair[k] for pair in pairs])) for k in range(2))
    moved = (reader(one) - reader(two)).norm(dim=-1).mean(dim=0)  # [4]
    assert moved[0] > 2 * moved[1:].max()
    feature = (reader.standardize(one) - reader.standardize(two)).norm(dim=1).mean()
    assert moved[0] / WIDTH**0.5 > 2 * feature / one.shape[1] ** 0.5  # against their usual lengths


def test_a_taught_reader_is_no_optimizers_business_and_travels_with_the_weights():
    reader, _ = taught()
    assert not list(reader.parameters())
    generator, other = (
        TextGenerator(256, 8, width=8, parts=True),
        TextGenerator(256, 8, width=8, parts=True),
    )
    assert not generator.reader.taught
    generator.reader.load_state_dict(reader.state_dict())
    other.load_state_dict(generator.state_dict())
    text = torch.randn(2, 256)
    assert other.reader.taught and torch.equal(other.reader(text), reader(text))
    assert reader(text).shape == (2, PARTS, WIDTH)


def test_teaching_repeats():
    words, facts = probe.probe_captions(300, seed=2)
    text, found = encode(words), []
    for _ in range(2):
        reader = CaptionReader(256)
        teach(reader, text, facts, steps=5)
        found.append(reader(torch.from_numpy(text)))
    assert torch.equal(*found)


def test_drawn_captions_are_of_several_kinds_and_two_of_three_are_lists():
    words, facts = draw_captions(300, seed=1)
    assert all(len(wording.groups_of(stated)) > 1 for stated in facts)
    assert [not stated["relations"] for stated in facts] == [k % 3 > 0 for k in range(300)]
    pairs = {(t.get("shape"), t.get("color")) for stated in facts for t in stated["objects"]}
    assert pairs & set(drawing.UNSEEN_PAIRS)  # text alone knows them all
    for told, stated in zip(words, facts, strict=True):
        assert all(t["color"] in told for t in stated["objects"] if "color" in t)
    assert draw_captions(300, seed=1) == (words, facts) != draw_captions(300, seed=2)


def test_a_taught_reader_learns_lists_and_goes_on_to_write_as_it_wrote():
    """A generator that listens to it must understand it still."""
    reader, _ = taught()
    more, other = CaptionReader(256), CaptionReader(256)
    more.load_state_dict(reader.state_dict())
    words, facts = draw_captions(6_000, seed=1)
    asked, stated = draw_captions(600, seed=2)
    teach(more, encode(words), facts, steps=200, batch_size=256)
    teach(other, encode(words), facts, steps=200, batch_size=256)  # from nothing
    text, labels = torch.from_numpy(encode(words)), torch.tensor([labels_of(f) for f in facts])
    held = torch.from_numpy(encode(asked)), torch.tensor([labels_of(f) for f in stated])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        heads, source = PartHeads(), torch.Generator().manual_seed(0)
        heads.learn(lambda rows: reader(text[rows]), labels, heads, 400, 1e-2, source=source)
    with torch.no_grad():
        wrong = {
            kind: float(heads.loss(network(held[0]), held[1]))
            for kind, network in (("before", reader), ("after", more), ("anew", other))
        }
    assert wrong["after"] < wrong["before"] - 0.2  # read by what has learnt to read the old one
    assert wrong["anew"] > 2 * wrong["before"]  # nothing else writes so
    moved, apart = ((reader(held[0]) - r(held[0])).square().mean() for r in (more, other))
    assert moved < 0.4 * apart


def test_attention_is_the_formula_at_every_place():
    torch.manual_seed(0)
    attention, parts = PartAttention(6, 4), torch.randn(2, PARTS, WIDTH)
    nn.init.normal_(attention.value.weight)
    x = torch.randn(2, 6, 4, 4)
    found, weights = attention(x, parts), attention.weights(x, parts)
    assert weights.shape == (2, 16, PARTS)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 16))
    place = nn.functional.leaky_relu(x[1, :, 2, 3], 0.2)  # row 2, column 3: place 11
    query = attention.query(place) + attention.place[11]
    share = torch.stack([query @ attention.key(part) for part in parts[1]]).div(32**0.5).softmax(0)
    taken = sum(w * attention.value(part) for w, part in zip(share, parts[1], strict=True))
    assert torch.allclose(found[1, :, 2, 3], x[1, :, 2, 3] + taken, atol=1e-4)


def test_places_can_take_different_parts_of_one_caption():
    """A scale and a shift a channel give all places of an even map the same; attention does not."""
    torch.manual_seed(0)
    attention = PartAttention(6, 4)
    nn.init.normal_(attention.value.weight)
    with torch.no_grad():
        attention.place.mul_(20)  # as if learnt: each place asks for its own part
    drawn = attention(torch.ones(1, 6, 4, 4), torch.randn(1, PARTS, WIDTH)).flatten(2)[0]  # [6, 16]
    assert drawn.std(dim=1).min() > 0.05


def test_a_layout_lets_noise_and_the_other_parts_into_every_part():
    torch.manual_seed(0)
    layout = PartLayout(8)
    parts, noise = torch.randn(3, PARTS, WIDTH), torch.randn(3, 8)
    assert torch.equal(layout(parts, noise), parts)  # until it has learnt
    nn.init.normal_(layout.out.weight)
    placed = layout(parts, noise)
    assert placed.shape == parts.shape
    assert torch.allclose(layout(parts[1:2], noise[1:2]), placed[1:2], atol=1e-4)  # row by row
    moved = (layout(parts, noise + 1) - placed).abs().amax(dim=2)  # [3, 4]
    assert moved.min() > 0.1
    other = parts.clone()
    other[:, 3] = torch.randn(WIDTH)
    assert (layout(other, noise) - placed).abs().amax(dim=2).min() > 0.01


def test_a_layout_can_tell_equal_parts_from_each_other():
    """Three red circles must not be asked for at one place, by all the places that ask."""
    torch.manual_seed(0)
    layout = PartLayout(8)
    nn.init.normal_(layout.out.weight)
    parts = torch.randn(1, 1, WIDTH).expand(2, PARTS, -1)
    placed = layout(parts, torch.randn(2, 8))
    assert (placed[:, 1] - placed[:, 2]).abs().amax(dim=1).min() > 0.1


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_layout_adds_nothing_to_weights_without_until_it_has_learnt(side):
    torch.manual_seed(0)
    reader, _ = taught()
    text, noise = torch.randn(2, 256), torch.randn(2, 8)
    parts = TextGenerator(256, 8, side, 8, parts=True)
    parts.reader.load_state_dict(reader.state_dict())
    nn.init.normal_(parts.attention[0].value.weight)
    grown = TextGenerator(256, 8, side, 8, parts=True, layout=True)
    missing = grown.load_state_dict(parts.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert missing.missing_keys and all("layout" in key for key in missing.missing_keys)
    assert torch.equal(grown(text, noise), parts(text, noise))
    grown(text, noise).square().mean().backward()
    assert grown.layout.out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("side", [16, 32, 64])
def test_what_is_new_adds_nothing_until_it_has_learnt(side):
    torch.manual_seed(0)
    reader, _ = taught()
    text, noise = torch.randn(2, 256), torch.randn(2, 8)
    plain, grown = TextGenerator(256, 8, side, 8), TextGenerator(256, 8, side, 8, parts=True)
    missing = grown.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and missing.missing_keys
    grown.reader.load_state_dict(reader.state_dict())
    assert torch.equal(grown(text, noise), plain(text, noise))
    grown(text, noise).square().mean().backward()
    layers = [grown.attention[0].value, grown.attention[1].value, grown.hear]
    assert all(layer.weight.grad.abs().max() > 0 for layer in layers)


def test_parts_are_a_switch():
    assert read_config(["parts=on"]) == GanConfig(parts=True)
    assert not GanConfig().parts
    assert read_config(["parts=on", "layout=on"]) == GanConfig(parts=True, layout=True)
    with pytest.raises(ValueError, match="layout=on is between the parts of a caption: add parts"):
        read_config(["layout=on"])
