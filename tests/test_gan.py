import signal
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from t2i_course import data
from t2i_course.gan import (
    Discriminator,
    Gan,
    GanConfig,
    Modulation,
    TextGenerator,
    read_config,
)
from t2i_course.processes import TrainingBatch
from t2i_course.training import TrainingConfig, train

SMALL = GanConfig(noise_dim=8, width=8, matching_aware=False, penalty_every=1)


@pytest.fixture(scope="module")
def part(small_scenes):
    """Pictures, and random features of their captions."""
    packed = {
        split: data.pack(small_scenes, split, 64, progress=False) for split in ("train", "val")
    }
    rng = np.random.default_rng(0)
    text = {
        split: rng.normal(size=(len(p.all_captions), 16)).astype(np.float32)
        for split, p in packed.items()
    }
    return packed["train"], packed["val"], text["train"], text["val"]


def run(part, config, steps=3, compiled=False, **options):
    torch.manual_seed(0)
    objective = Gan(config, 16, 64, **options)
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


def test_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    discriminator = Discriminator(16, width=8, spectral=True)
    for _ in range(30):  # each forward in training mode is a step of the power method
        discriminator(torch.randn(2, 3, 64, 64), torch.randn(2, 16))
    for layer in discriminator.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert norm.item() == pytest.approx(1, abs=0.05)


def test_both_networks_learn_and_every_loss_is_recorded(part):
    torch.manual_seed(0)
    fresh = Gan(SMALL, 16, 64)
    before = {k: v.clone() for k, v in fresh.modules["discriminator"].state_dict().items()}
    objective, history = run(part, SMALL)
    assert set(history.losses) == {"discriminator", "generator", "real", "generated", "mismatched"}
    after = objective.modules["discriminator"].state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert all(p.requires_grad for p in objective.modules["discriminator"].parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "relativistic", "penalty": "r1r2"},
        {"penalty": "r1"},
        {"penalty": "none", "spectral_norm": True},
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
    objective, moved = Gan(SMALL, 16, 64), {}

    def update(name, loss):
        for network in objective.modules.values():
            network.zero_grad()
        loss.backward()
        moved[name] = {
            other: any(p.grad is not None and p.grad.any() for p in network.parameters())
            for other, network in objective.modules.items()
        }

    from t2i_course.data import Batch
    from t2i_course.processes import TrainingBatch

    batch = Batch(torch.rand(4, 3, 64, 64), ["x"] * 4, torch.arange(4), torch.arange(4))
    text, noise = torch.randn(4, 16), torch.randn(4, 8)
    objective.step(TrainingBatch(**vars(batch), text=text, noise=noise, step=1), update)
    assert moved["discriminator"] == {"generator": False, "discriminator": True}
    assert moved["generator"] == {"generator": True, "discriminator": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "wasserstein"}, "unknown loss 'wasserstein': choose one of hinge, relativistic"),
        ({"penalty": "r3"}, "unknown penalty 'r3'"),
        ({"augment": ("flip",)}, "unknown augmentation 'flip'"),
        ({"noise_dim": 0}, "noise_dim must be 1 or more, not 0"),
        ({"false_captions": 0}, "false_captions must be 1 or more"),
        ({"redescription": -1.0}, "redescription must be 0 or more, not -1.0"),
        ({"energy": -1.0}, "energy must be 0 or more, not -1.0"),
        ({"mode_seeking": -0.1}, "mode_seeking must be 0 or more, not -0.1"),
        ({"pixel_steps": -1}, "pixel_steps must be 0 or more, not -1"),
        ({"pixel_draws": 0}, "pixel_draws must be 1 or more, not 0"),
        ({"redescription": float("nan")}, "redescription must be 0 or more, not nan"),
    ],
)
def test_unknown_ingredients_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        GanConfig(**change)


def test_matching_awareness_needs_false_captions():
    with pytest.raises(ValueError, match="draws false captions"):
        Gan(GanConfig(), 16)


def test_at_first_the_generator_alone_learns_from_coarse_pictures(part):
    config, told = replace(SMALL, pixel_steps=2), []

    def redescribe(images, captions):
        told.append(len(captions))
        return images.flatten(1).mean(dim=1)

    for steps, games in ((2, 0), (3, 1)):
        told.clear()
        options = {"redescribe": redescribe}
        objective, history = run(part, replace(config, redescription=1.0), steps, **options)
        torch.manual_seed(0)
        fresh = Gan(config, 16, 64)
        still = {
            name: all(map(torch.equal, network.parameters(), fresh.modules[name].parameters()))
            for name, network in objective.modules.items()
        }
        assert still == {"generator": False, "discriminator": not games} and len(told) == games
        assert all(value > 0 for value in history.losses["pixels"][:2])
        assert history.losses["pixels"][2:] == [0] * games
        for name in ("discriminator", "generator", "real", "redescription"):
            assert history.losses[name][:2] == [0, 0] and all(history.losses[name][2:])


def test_the_squared_error_sees_where_things_are_and_not_how_sharp(part):
    """Of a chessboard of pixels 8 x 8 means leave nothing; of a picture's half they leave all."""
    objective = Gan(replace(SMALL, pixel_steps=1), 16, 64)
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1  # [64, 64]
    half = torch.where(torch.arange(64) < 32, 1.0, -1.0).expand(64, 64)
    found = []
    for target in (board, half):
        objective.modules["generator"] = lambda text, noise: torch.zeros(2, 3, 64, 64)
        batch = TrainingBatch(
            target.expand(2, 3, 64, 64), ["", ""], None, None, text=torch.zeros(2, 16),
            noise=torch.zeros(2, 8), step=1, chance=None, rank=0, processes=1,
        )  # fmt: skip
        objective.step(batch, lambda name, loss: found.append((name, loss.item())))
    assert found == [("pixels", 0.0), ("pixels", 1.0)]


def test_of_several_noises_the_one_learns_whose_picture_is_nearest():
    """A picture is as bright as the first number of its noise; the real ones are at -1 and 1."""
    drawn, told = [], []

    def generator(text, noise):
        drawn.append(noise[:, 0])
        return noise[:, :1, None, None].expand(-1, 3, 64, 64) + torch.zeros(1, requires_grad=True)

    objective = Gan(replace(SMALL, pixel_steps=1, pixel_draws=9), 16, 64)
    objective.modules["generator"] = generator
    real = torch.tensor([-1.0, 1.0] * 50)  # [B]
    batch = TrainingBatch(
        real[:, None, None, None].expand(-1, 3, 64, 64), [""] * 100, None, None,
        text=torch.zeros(100, 16), noise=torch.full((100, 8), 5.0), step=1,
        chance=torch.Generator().manual_seed(0), rank=0, processes=1,
    )  # fmt: skip
    objective.step(batch, lambda name, loss: told.append((name, loss.item(), loss.requires_grad)))
    *tried, chosen = drawn
    tried = torch.stack(tried)  # [K, B]
    assert tried.shape == (9, 100) and (tried[0] == 5).all()
    others = tried[1:]  # from a standard normal distribution
    assert abs(others.mean()) < 0.12 and abs(others.std() - 1) < 0.1
    errors = (tried - real).square()  # [K, B]
    assert torch.equal((chosen - real).square(), errors.amin(dim=0))
    ((name, loss, learns),) = told
    assert name == "pixels" and learns and loss == pytest.approx(errors.amin(dim=0).mean().item())


def test_some_steps_of_the_game_learn_coarse_pixels_as_well(part):
    config = replace(SMALL, pixel_every=2, pixel_draws=2)
    _, history = run(part, config, steps=4)
    assert [value > 0 for value in history.losses["pixels"]] == [False, True, False, True]
    assert all(history.losses["discriminator"]) and all(history.losses["generator"])
    torch.manual_seed(0)
    rate = replace(config, pixel_rate=1e-4)
    assert Gan(rate, 16, 64).optimizers["pixels"].param_groups[0]["lr"] == 1e-4


def test_what_draws_finely_can_stand_still_while_coarse_pixels_are_learnt(part):
    config = replace(SMALL, pixel_steps=2, pixel_fine=False)
    objective, _ = run(part, config, steps=2)
    torch.manual_seed(0)
    fresh = Gan(config, 16, 64).modules["generator"].state_dict()
    moved = {
        name.rpartition(".")[0]
        for name, weight in objective.modules["generator"].state_dict().items()
        if not torch.equal(weight, fresh[name])
    }
    fine = {name for name in moved if name.startswith(("blocks.2", "blocks.3", "to_picture"))}
    assert not fine and {"start", "latent.0", "blocks.0.conv1", "blocks.1.conv2"} <= moved
    with pytest.raises(ValueError, match="pixel_fine=off is for the generator `gan`"):
        Gan(replace(config, text_blocks=False), 16, 64)


def test_with_several_noises_the_noise_chooses_what_the_caption_leaves_open():
    """One caption, black and white pictures: one noise each learns gray, the nearest of 4 both."""
    spread = []
    for draws in (1, 4):
        torch.manual_seed(0)
        config = replace(SMALL, pixel_steps=1, pixel_draws=draws)
        objective = Gan(config, 16, 64)
        chance = torch.Generator().manual_seed(0)
        optimizer = objective.optimizers["pixels"]

        def update(name, loss, optimizer=optimizer):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        real = torch.tensor([-0.9, 0.9]).repeat(8)[:, None, None, None].expand(-1, 3, 64, 64)
        for _ in range(60):
            batch = TrainingBatch(
                real, [""] * 16, None, None, text=torch.zeros(16, 16),
                noise=torch.randn(16, config.noise_dim, generator=chance), step=1,
                chance=chance, rank=0, processes=1,
            )  # fmt: skip
            objective.step(batch, update)
        noise = torch.randn(64, config.noise_dim, generator=chance)
        with torch.no_grad():
            pictures = objective.modules["generator"](torch.zeros(64, 16), noise)
        spread.append(pictures.mean(dim=(1, 2, 3)).std().item())
    assert spread[0] < 0.25 < 0.5 < spread[1]


def distance(objective, captions=64):
    """Mean absolute difference of two pictures of a caption."""
    chance = torch.Generator().manual_seed(1)
    text, *noise = (torch.randn(captions, n, generator=chance) for n in (16, 8, 8))
    with torch.no_grad():
        first, second = (objective.modules["generator"](text, z) for z in noise)
    return (first - second).abs().mean(dim=(1, 2, 3))


def test_mode_seeking_brings_pictures_of_one_caption_apart(part):
    apart, recorded = [], []
    for weight in (0.0, 3.0):
        objective, history = run(part, replace(SMALL, mode_seeking=weight), steps=30)
        apart.append(distance(objective).log().mean())
        recorded.append("likeness" in history.losses)
    assert recorded == [False, True] and apart[1] > apart[0] + 0.5


def test_mode_seeking_is_the_logarithm_of_how_far_two_pictures_are_apart():
    """A picture is as bright as the first number of its noise, a chessboard of its second on it."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1  # [64, 64]
    objective = Gan(replace(SMALL, mode_seeking=1), 16, 64)

    def generator(text, noise):
        flat, checked = noise[:, :1, None, None], noise[:, 1:2, None, None]
        return (flat + checked * board).expand(-1, 3, 64, 64)

    objective.modules["generator"] = generator
    batch = TrainingBatch(
        torch.zeros(9, 3, 64, 64), [""] * 9, None, None, text=torch.zeros(9, 16),
        noise=torch.zeros(9, 8), step=1, chance=torch.Generator().manual_seed(0), rank=0,
        processes=1,
    )  # fmt: skip
    found = objective._likeness(generator(batch.text, batch.noise)[::2],
                                objective._draw_again(batch))  # fmt: skip
    batch.chance.manual_seed(0)
    first = torch.special.ndtri(batch.draw(8)[::2, 0]).abs()  # [5]
    assert found.item() == pytest.approx(-(first + 1e-3).log().mean().item(), rel=1e-5)


def test_with_the_energy_score_pictures_of_one_caption_come_apart_as_real_ones_are(part):
    apart, recorded = [], []
    for weight in (0.0, 30.0):
        objective, history = run(part, replace(SMALL, energy=weight), steps=40)
        apart.append(distance(objective).mean())
        recorded.append("energy" in history.losses)
    assert recorded == [False, True] and apart[1] > 2 * apart[0]
    real = data.to_float(torch.tensor(part[0].images[:]))
    assert apart[1] < (real[::2] - real[1::2]).abs().mean()  # which have various captions
    found = history.losses["energy"]
    assert sum(found[-5:]) < sum(found[:5])


def test_a_run_resumed_among_its_first_steps_is_the_uninterrupted_one(part, tmp_path):
    config = replace(SMALL, pixel_steps=2)
    numbers = TrainingConfig(steps=4, batch_size=8, validation_images=8, precision="float32",
                             validate_every=1)  # fmt: skip
    weights = []
    for name, stop in (("whole", 0), ("parted", 1)):
        for resume in (False, True)[: 1 + stop]:
            torch.manual_seed(0)
            objective = Gan(config, 16, 64)

            def halt(step, values, stop=stop, resume=resume):
                if stop and not resume and step == 1:
                    signal.raise_signal(signal.SIGINT)

            options = {"device": "cpu", "progress": False, "run_folder": tmp_path / name}
            with pytest.raises(KeyboardInterrupt) if stop and not resume else nullcontext():
                train(objective, numbers, *part, resume=resume, log=halt, **options)
        weights.append(objective.modules["generator"].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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
        shape == (8, 3, 64, 64) and all(isinstance(word, str) for word in captions)
        for shape, captions in shown
    )
    told = history.losses["redescription"]
    assert told[-1] < told[0] - 0.1
    text, noise = torch.from_numpy(part[3][:8]), torch.randn(8, 8)
    with torch.no_grad():
        dark, light = (g.modules["generator"](text, noise).mean() for g in (taught, plain))
    assert dark < light - 0.1


def test_ingredients_are_read_from_the_command_line():
    texts = ["penalty=r1", "width=8", "text_blocks=off", "augment=translation,cutout", "gamma=0.5"]
    expected = GanConfig(
        penalty="r1", width=8, text_blocks=False, augment=("translation", "cutout"), gamma=0.5
    )
    assert read_config(texts) == expected
    assert read_config([]) == GanConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("penalty", "write NAME=VALUE"),
        ("depth=3", "sets no ingredient .* noise_dim, width"),
        ("text_blocks=maybe", "must be on or off"),
        ("width=wide", "of the kind int"),
        ("penalty=r3", "unknown penalty"),
    ],
)
def test_ingredients_that_are_none_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        read_config([text])


def test_a_compiled_gan_takes_its_penalty_and_learns_what_a_plain_one_does(part, monkeypatch):
    # Derivatives as torch.compile makes them, without the C++: that takes minutes.
    compile_module, compiled = nn.Module.compile, []

    def compile_quickly(network):
        compiled.append(network)
        compile_module(network, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    found = {on: run(part, SMALL, steps=2, compiled=on)[1].losses for on in (False, True)}
    assert len(compiled) == 2
    for name, values in found[False].items():
        assert found[True][name] == pytest.approx(values, rel=1e-2, abs=1e-3)
