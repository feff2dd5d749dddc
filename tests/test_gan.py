import re
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from t2i_course import data
from t2i_course.checkpoints import load_generator, save_weights
from t2i_course.gan import (
    Discriminator,
    Gan,
    GanConfig,
    Modulation,
    TextGenerator,
    WordAttention,
)
from t2i_course.processes import TrainingBatch
from t2i_course.scenes.mismatched_captions import MismatchedCaptions, scenes_truth
from t2i_course.text_cache import embed_words
from t2i_course.text_encoder import TextEncoder, TextFeatures, reshape
from t2i_course.training import TrainingConfig, train

SMALL = GanConfig(noise_dim=8, width=8, words=False, matching_aware=False, penalty_every=1)


def random_text(number, tokens=5, width=16):
    """Features of captions, the last of which is one word short."""
    mask = torch.ones(number, tokens, dtype=torch.long)
    mask[-1, -1] = 0
    return TextFeatures(torch.randn(number, width), torch.randn(number, tokens, width), mask)


@pytest.fixture(scope="module")
def part(small_scenes):
    """Pictures, and random features of their captions."""
    packed = {
        split: data.pack(small_scenes, split, 32, progress=False) for split in ("train", "val")
    }
    rng = np.random.default_rng(0)
    text = {
        split: rng.normal(size=(len(p.all_captions), 16)).astype(np.float32)
        for split, p in packed.items()
    }
    return packed["train"], packed["val"], text["train"], text["val"]


def run(part, config, steps=3, compiled=False, **options):
    torch.manual_seed(0)
    objective = Gan(config, 16, 32, **options)
    numbers = TrainingConfig(
        steps=steps, batch_size=8, validation_images=8, precision="float32", schedule="constant",
        compile=compiled,
    )  # fmt: skip
    history = train(objective, numbers, *part, device="cpu", progress=False)
    return objective, history


def test_generator_draws_in_range_and_other_noise_gives_another_picture():
    torch.manual_seed(0)
    generator = TextGenerator(16, noise_dim=8, width=8)
    text, noise = torch.randn(1, 16).expand(2, -1), torch.randn(2, 8)
    images = generator(text, noise)
    assert images.shape == (2, 3, 64, 64) and images.abs().max() <= 1
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    same = generator(text, noise[:1].expand(2, -1))
    assert torch.allclose(same[0], same[1], atol=1e-6)


@pytest.mark.parametrize("side", [32, 128])
def test_other_sides_are_built(side):
    generator = TextGenerator(16, 8, side, width=8)
    images = generator(torch.randn(2, 16), torch.randn(2, 8))
    assert images.shape == (2, 3, side, side)
    assert Discriminator(16, side, width=8)(images, torch.randn(2, 16)).shape == (2,)


def test_modulation_is_scale_and_shift_of_each_channel():
    modulation = Modulation(4, 3)
    x, latent = torch.randn(2, 3, 5, 5), torch.randn(2, 4)
    scale, shift = modulation.affine(latent).chunk(2, dim=1)
    expected = x[1, 2] * (1 + scale[1, 2]) + shift[1, 2]
    assert torch.allclose(modulation(x, latent)[1, 2], expected)
    torch.nn.init.zeros_(modulation.affine.weight), torch.nn.init.zeros_(modulation.affine.bias)
    assert torch.equal(modulation(x, latent), x)


def test_word_attention_is_the_formula_at_every_place():
    torch.manual_seed(0)
    attention, x, text = WordAttention(6, 16, side=4), torch.randn(2, 6, 4, 4), random_text(2)
    weights, found = attention.weights(x, text), attention(x, text)
    assert weights.shape == (2, 4, 16, 5) and weights[1, :, :, 4].max() == 0  # padding
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 4, 16))
    row, column, head = 2, 3, slice(16, 32)  # place 11, the second of four looks
    query = attention.query(attention.norm(x[1, :, row, column])) + attention.place[11]
    keys, values = attention.key(text.words[1, :4]), attention.value(text.words[1, :4])
    share = (keys[:, head] @ query[head] / 4).softmax(dim=0)
    assert torch.allclose(weights[1, 1, 11, :4], share, atol=1e-5)
    looks = [w @ values[:, 16 * k : 16 * k + 16] for k, w in enumerate(weights[1, :, 11, :4])]
    expected = x[1, :, row, column] + attention.out(torch.cat(looks))
    assert torch.allclose(found[1, :, row, column], expected, atol=1e-5)


def test_a_generator_with_words_reads_them_and_refuses_sentences_alone(tmp_path):
    torch.manual_seed(0)
    generator, text, noise = (
        TextGenerator(16, 8, 32, 8, words=True),
        random_text(2),
        torch.randn(2, 8),
    )
    images = generator(text, noise)
    assert images.shape == (2, 3, 32, 32) and list(generator.words) == ["8", "16"]
    other = TextFeatures(text.sentence, text.words.clone(), text.mask)
    other.words[1, 4] += 1  # padding
    assert torch.equal(generator(other, noise), images)
    other.words[:, 0] += 1
    assert not torch.allclose(generator(other, noise), images, atol=1e-4)
    with pytest.raises(ValueError, match="give it TextFeatures"):
        generator(text.sentence, noise)
    card = dict.fromkeys(("data", "command", "hardware", "license"), "x") | {
        "encoder": {"name": "x", "fingerprint": "x", "pooling": "mean"}, "steps": 0, "seconds": 0,
        "metrics": {},
    }  # fmt: skip
    save_weights(tmp_path / "words", generator, card)
    again, _ = load_generator(tmp_path / "words", None, {"gan": TextGenerator})
    assert again.takes_words and torch.equal(again(text, noise), images)
    assert not TextGenerator(16).takes_words


def test_a_discriminator_with_words_reads_those_of_each_caption_of_a_picture():
    torch.manual_seed(0)
    discriminator = Discriminator(16, 32, width=8, words=True)
    images, text, false = torch.randn(4, 3, 32, 32), random_text(4), random_text(6, tokens=7)
    logits, mismatched = discriminator(images, text, reshape(false, 3, 2))
    assert torch.allclose(logits, discriminator(images, text), atol=1e-5)
    for k in range(3):  # captions [K, M] of the first two pictures
        alone = discriminator(images[:2], false[torch.arange(2 * k, 2 * k + 2)])
        assert torch.allclose(mismatched[k], alone, atol=1e-5)
    turned = TextFeatures(text.sentence, text.words.roll(1, 0), text.mask.roll(1, 0))
    assert not torch.allclose(discriminator(images, turned), logits)
    plain = Discriminator(16, 32, width=8)
    assert torch.equal(plain(images, turned), plain(images, text.sentence))


def test_a_gan_of_words_trains_with_false_captions(part, small_scenes, tiny_bert, tmp_path):
    """From captions on disk, sentence and words, as the command trains it."""
    encoder = TextEncoder(tiny_bert, device="cpu")
    text = [embed_words(encoder, p.all_captions, tmp_path, progress=False) for p in part[:2]]
    false = MismatchedCaptions(
        part[0], text[0], scenes_truth(small_scenes, "train", part[0]), text[0], number=2
    )  # a caption of a picture stands for one that contradicts it
    torch.manual_seed(0)
    config = replace(SMALL, words=True, matching_aware=True)
    objective = Gan(config, encoder.width, 32, false)
    generator = objective.modules["generator"]
    generator.standardize.fit(text[0])
    rows = np.arange(0, len(text[0]), 1 + len(text[0]) // 20_000)
    assert np.allclose(generator.standardize.mean, text[0][rows].sentence.mean(dim=0), atol=1e-5)
    moving = [generator.words["8"], objective.modules["discriminator"].words]
    before = [layer.value.weight.clone() for layer in moving]
    numbers = TrainingConfig(steps=3, batch_size=8, validation_images=8, precision="float32")
    history = train(objective, numbers, *part[:2], *text, device="cpu", progress=False)
    assert history.losses["mismatched"][0] != 0
    assert not any(
        torch.equal(old, layer.value.weight) for old, layer in zip(before, moving, strict=True)
    )


def test_mismatched_captions_share_the_trunk_and_get_their_own_logits():
    torch.manual_seed(0)
    discriminator = Discriminator(16, width=8)
    images, text, false = torch.randn(4, 3, 64, 64), torch.randn(4, 16), torch.randn(3, 2, 16)
    logits, mismatched = discriminator(images, text, false)
    assert torch.allclose(logits, discriminator(images, text), atol=1e-5)
    assert mismatched.shape == (3, 2)
    for found, captions in zip(mismatched, false, strict=True):
        assert torch.allclose(found, discriminator(images[:2], captions), atol=1e-5)
        assert not torch.allclose(found, logits[:2], atol=1e-4)


def test_the_projection_is_an_inner_product_of_picture_and_text():
    """D(x, t) - D(x, t') of the projection alone is linear in t - t'."""
    torch.manual_seed(0)
    discriminator = Discriminator(16, width=8)
    torch.nn.init.zeros_(discriminator.head[-1].weight)  # the other head is silent
    images, text, step = torch.randn(4, 3, 64, 64), torch.randn(4, 16), torch.randn(4, 16)
    logits = [discriminator(images, text + k * step) for k in range(3)]
    assert torch.allclose(logits[2] - logits[1], logits[1] - logits[0], atol=1e-5)
    assert not torch.allclose(logits[1], logits[0], atol=1e-4)
    without = Discriminator(16, width=8, projection=False)
    torch.nn.init.zeros_(without.head[-1].weight)
    assert torch.equal(without(images, text), without(images, text + step))


def test_both_networks_learn_and_every_loss_is_recorded(part):
    torch.manual_seed(0)
    fresh = Gan(SMALL, 16, 32)
    before = {k: v.clone() for k, v in fresh.modules["discriminator"].state_dict().items()}
    objective, history = run(part, SMALL)
    assert set(history.losses) == {"discriminator", "generator", "real", "generated", "mismatched"}
    after = objective.modules["discriminator"].state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert all(p.requires_grad for p in objective.modules["discriminator"].parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"penalty": False},
        {"text_blocks": False},
        {"projection": False},
        {"augment": ("translation",)},
    ],
    ids=str,
)
def test_every_switch_trains(part, change):
    _, history = run(part, replace(SMALL, **change))
    assert len(history.losses["generator"]) == 3


def test_the_same_seed_gives_the_same_weights(part):
    config = replace(SMALL, augment=("translation",))
    first, second = run(part, config)[0], run(part, config)[0]
    for name in first.modules:
        pairs = zip(
            first.modules[name].parameters(), second.modules[name].parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_generator_learns_nothing_from_the_discriminators_update(part):
    """Its pictures are detached: only its own update moves it."""
    torch.manual_seed(0)
    objective, moved = Gan(SMALL, 16, 32), {}

    def update(name, loss):
        for network in objective.modules.values():
            network.zero_grad()
        loss.backward()
        moved[name] = {
            other: any(p.grad is not None and p.grad.any() for p in network.parameters())
            for other, network in objective.modules.items()
        }

    from t2i_course.data import Batch

    batch = Batch(torch.rand(4, 3, 32, 32), ["x"] * 4, torch.arange(4), torch.arange(4))
    text, noise = torch.randn(4, 16), torch.randn(4, 8)
    objective.step(TrainingBatch(**vars(batch), text=text, noise=noise, step=1), update)
    assert moved["discriminator"] == {"generator": False, "discriminator": True}
    assert moved["generator"] == {"generator": True, "discriminator": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contradicting": 1.5}, "contradicting must be 0 to 1, not 1.5"),
        ({"generator_rate": 0.0}, "generator_rate must be above 0"),
        ({"augment": ("flip",)}, "unknown augmentation 'flip'"),
        ({"noise_dim": 0}, "noise_dim must be 1 or more, not 0"),
        ({"false_captions": 0}, "false_captions must be 1 or more"),
        ({"redescription": -1.0}, "redescription must be 0 or more, not -1.0"),
        ({"redescription": float("nan")}, "redescription must be 0 or more, not nan"),
    ],
)
def test_unknown_ingredients_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        GanConfig(**change)


def test_matching_awareness_needs_false_captions():
    with pytest.raises(ValueError, match="draws false captions"):
        Gan(GanConfig(), 16)


def test_redescription_needs_a_captioner():
    with pytest.raises(ValueError, match="needs `redescribe`, a captioner"):
        Gan(GanConfig(matching_aware=False, redescription=1.0), 16)


def test_redescription_teaches_the_generator_alone(part):
    """With the pictures' mean for a surprise, its pictures darken; the record says how much."""
    config = replace(SMALL, redescription=100.0)
    shown = []

    def brightness(images, captions):
        shown.append((images.shape, list(captions)))
        return images.float().mean(dim=(1, 2, 3))

    plain, _ = run(part, SMALL, steps=20)
    taught, history = run(part, config, steps=20, redescribe=brightness)
    assert len(shown) == 20 and all(
        shape == (8, 3, 32, 32) and all(isinstance(word, str) for word in captions)
        for shape, captions in shown
    )
    told = history.losses["redescription"]
    assert told[-1] < told[0] - 0.1
    text, noise = torch.from_numpy(part[3][:8]), torch.randn(8, 8)
    with torch.no_grad():
        dark, light = (g.modules["generator"](text, noise).mean() for g in (taught, plain))
    assert dark < light - 0.1


def test_a_compiled_gan_takes_its_penalty_and_learns_what_a_plain_one_does(part, monkeypatch):
    # Derivatives as torch.compile makes them, without the C++: that takes minutes.
    compile_module, compiled = nn.Module.compile, []

    def compile_quickly(network):
        compiled.append(network)
        compile_module(network, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    found = {on: run(part, SMALL, steps=1, compiled=on)[1].losses for on in (False, True)}
    assert len(compiled) == 2
    for name, values in found[False].items():
        assert found[True][name] == pytest.approx(values, rel=1e-2, abs=1e-3)


def test_the_cells_of_notebook_06_train_without_this_module():
    """Copied into an empty notebook, without imports from `t2i_course.gan`, the networks learn."""
    path = Path(__file__).resolve().parents[1] / "notebooks" / "06_gan.ipynb"
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells
             if cell.cell_type == "code"]  # fmt: skip
    (last,) = [k for k, source in enumerate(cells) if "\nlive = train(" in source]
    space = {"__name__": "copied"}
    for source in cells[: last + 1]:
        source = re.sub(r"\bgan, ", "", source).replace("fast=300", "fast=16")
        if "gan." in source.replace("t2i_course.gan", ""):
            continue  # the comparison with this module
        exec(compile(source, "cell", "exec"), space)
    assert not any(getattr(value, "__module__", "") == "t2i_course.gan" for value in space.values())
    run = space["live"]
    assert len(run.curves) == 16 and run.drawn[16].shape == (6, 3, 32, 32)
    assert all(np.isfinite(list(losses.values())).all() for losses in run.curves)
    assert not torch.equal(run.drawn[16], run.drawn[1])
