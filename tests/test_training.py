"""The training loop: what it learns, what it measures, and that a stopped run loses nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import SHORT, WIDTH, interrupt_at, new_generator, same_weights
from torch import Tensor, nn

from t2i_course import monitoring, training
from t2i_course.data import to_float
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.processes import TrainingBatch, find_place
from t2i_course.training import STATE_FILE, MeanSquaredError, TrainingConfig, train

# What it learns and measures


def test_the_loss_falls_and_the_history_has_a_value_for_each_step(small_run):
    generator = new_generator()
    config = replace(SHORT, steps=105, batch_size=16, validate_every=40)
    history = small_run.train(generator, config)
    losses = history.losses["mse"]
    assert np.mean(losses[-20:]) < 0.85 * np.mean(losses[:10])
    assert history.steps == list(range(1, 106))
    assert len(losses) == len(history.learning_rates) == len(history.images_per_second) == 105
    assert history.validation_steps == [40, 80, 105]
    assert len(history.validation_losses) == 3
    assert min(history.images_per_second) > 0 and history.seconds > 0
    assert not generator.training


def test_the_baselines_step_gives_the_mean_squared_error_to_its_one_optimizer():
    images, text, asked = torch.rand(3, 3, 16, 16) * 2 - 1, torch.randn(3, WIDTH), {}
    batch = TrainingBatch(images, ["a"] * 3, None, None, text=text, noise=None, step=1)
    generator = new_generator(0)
    objective = MeanSquaredError(generator, TrainingConfig())
    returned = objective.step(batch, lambda name, loss: asked.update({name: loss}))
    drawn = generator(text).detach().requires_grad_()
    by_hand = (drawn - images).square().sum() / (3 * 16**2 * 3)
    by_hand.backward()
    assert list(asked) == ["generator"] and not returned["mse"].requires_grad
    torch.testing.assert_close(returned["mse"], by_hand.detach())
    torch.testing.assert_close(drawn.grad, 2 * (drawn.detach() - images) / images.numel())
    each = objective.validate(batch, {"generator": generator})
    torch.testing.assert_close(each.mean(), by_hand.detach())


def test_same_seed_same_run_and_another_seed_another(small_run, uninterrupted):
    again, other = new_generator(), new_generator()
    assert small_run.train(again).losses == uninterrupted[1].losses
    assert same_weights(again, uninterrupted[0])
    small_run.train(other, replace(SHORT, seed=1))
    assert not same_weights(other, uninterrupted[0])


def test_drawing_at_random_in_the_callback_does_not_touch_the_run(small_run, uninterrupted):
    seen = []

    def draw(step: int, generator: nn.Module) -> None:
        assert not generator.training and not torch.is_grad_enabled()
        images = generator(torch.randn(2, WIDTH), torch.randn(2, 4))
        assert images.shape == (2, 3, 16, 16)
        np.random.rand()
        random.random()
        seen.append(step)

    generator = new_generator()
    small_run.train(generator, replace(SHORT, draw_every=5), draw=draw)
    assert seen == [0, 5, 10, 12]
    assert same_weights(generator, uninterrupted[0])


def test_evaluation_comes_every_n_steps_and_at_the_end_before_the_checkpoint(small_run, tmp_path):
    config, file = replace(SHORT, evaluate_every=4), tmp_path / STATE_FILE
    seen = []

    def evaluate(step: int, generator: nn.Module) -> None:
        saved = torch.load(file, weights_only=True)["step"] if file.exists() else 0
        seen.append((step, saved, generator.training))

    small_run.train(ResidualDecoder(WIDTH, image_size=16), config, run_folder=tmp_path,
               evaluate=evaluate)  # fmt: skip
    assert seen == [(4, 0, False), (8, 4, False), (12, 8, False)]
    small_run.train(ResidualDecoder(WIDTH, image_size=16), replace(config, evaluate_every=1),
               run_folder=tmp_path, resume=True, evaluate=evaluate)  # fmt: skip
    assert len(seen) == 3  # the run was finished, and nothing is measured twice


def test_learning_rate_rises_then_follows_its_schedule():
    for schedule, after in (("constant", lambda _: 1), ("cosine", lambda k: math.cos(k / 9))):
        config = replace(SHORT, schedule=schedule, warmup_steps=3)
        rates = [training.rate_factor(config, step) for step in range(12)]
        assert rates[:3] == pytest.approx([1 / 4, 2 / 4, 3 / 4])
        assert rates[3:] == pytest.approx([(1 + after(math.pi * k)) / 2 for k in range(9)])


def test_averaged_weights_follow_the_recursion_with_warm_up():
    layer = nn.Linear(1, 1, bias=False)
    averaged = training.averaged_copy(layer, decay=0.5)
    expected = None
    for n in range(30):
        layer.weight.data.fill_(float(n + 1))
        averaged.update_parameters(layer)
        d = min(0.5, (1 + n) / (10 + n))
        expected = n + 1 if expected is None else d * expected + (1 - d) * (n + 1)
    assert averaged.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_networks_end_with_their_averaged_weights(small_run, tmp_path):
    generator = new_generator()
    small_run.train(generator, run_folder=tmp_path)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    averaged = state["averages"]["generator"]
    for name, value in generator.state_dict().items():
        assert torch.equal(value, averaged[f"module.{name}"])
    raw = state["networks"]["generator"]
    assert not all(torch.equal(raw[name], v) for name, v in generator.state_dict().items())
    without = new_generator()
    small_run.train(without, replace(SHORT, average_decay=0.0))
    assert all(torch.equal(raw[name], value) for name, value in without.state_dict().items())


def test_validation_loss_is_the_mean_over_all_images_whatever_the_batch_size(small_run):
    class Gray(nn.Module):
        text_dim, noise_dim, image_size = WIDTH, 0, 16

        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.zeros(()))

        def forward(self, text: Tensor, noise: Tensor | None = None) -> Tensor:
            return self.level.expand(len(text), 3, 16, 16)

    val, place = small_run.splits["val"], find_place("cpu", "float32")
    for size in (1, 7, 20):
        config = replace(SHORT, validation_images=1000, batch_size=size)  # all that there are
        objective = MeanSquaredError(Gray(), config)
        run = training.begin(objective, config, small_run.splits["train"], place)
        loss = monitoring.validation_loss(objective, run, config, place, val, small_run.text["val"])
        assert loss == pytest.approx(to_float(torch.tensor(val.images)).square().mean().item())


def test_long_gradients_are_shortened_to_the_given_norm():
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = nn.utils.parameters_to_vector(layer.parameters()).detach().clone()
    loss = 1000 * layer(torch.ones(1, 3)).sum()
    training.descend(optimizer, loss, 0.25, find_place("cpu", "float32"))
    moved = nn.utils.parameters_to_vector(layer.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.25, rel=1e-4)


def test_a_batch_in_parts_trains_what_it_trains_as_a_whole(small_run):
    runs = {}
    for parts in (1, 4):
        generator = new_generator()
        history = small_run.train(generator, replace(SHORT, batch_size=8, accumulate=parts))
        runs[parts] = generator, history
    for a, b in zip(runs[1][0].parameters(), runs[4][0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert runs[4][1].losses["mse"] == pytest.approx(runs[1][1].losses["mse"], rel=1e-4)
    assert runs[1][1].steps == runs[4][1].steps


def test_every_step_is_logged_once_and_the_time_for_data_is_known(small_run):
    logged = []
    history = small_run.train(
        new_generator(), replace(SHORT, validate_every=4), log=lambda *found: logged.append(found)
    )
    steps = [step for step, values in logged if "mse" in values]
    assert steps == list(range(1, SHORT.steps + 1))
    losses = [values["mse"] for _, values in logged if "mse" in values]
    assert losses == history.losses["mse"]
    validated = {step: values["validation"] for step, values in logged if "validation" in values}
    found = dict(zip(history.validation_steps, history.validation_losses, strict=True))
    assert validated == found and len(found) > 1
    assert 0 < history.waiting < history.seconds


def test_a_checkpoint_is_written_after_some_minutes(small_run, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        training.checkpoints, "save_run", lambda file, run, *_: saved.append(run.step)
    )
    config = replace(SHORT, steps=40, checkpoint_every=0, validate_every=0)
    small_run.train(new_generator(), config, run_folder=tmp_path / "one")
    assert saved == [40]
    saved.clear()
    config = replace(config, checkpoint_minutes=1e-9)
    small_run.train(new_generator(), config, run_folder=tmp_path / "two")
    assert saved == [10, 20, 30, 40]  # each time that the losses are looked at


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(small_run, tmp_path):
    class Failing(MeanSquaredError):  # noqa: N818 (an objective, not an exception)
        def step(self, batch, update):
            losses = super().step(batch, update)
            return losses if batch.step < 7 else {"mse": losses["mse"] * float("nan")}

        def validate(self, batch, networks):
            return super().validate(batch, networks) * (float("inf") if batch.step == 6 else 1)

    for every, message in ((0, "mse became nan at step 7"), (6, "loss became inf at step 6")):
        objective, config = Failing(new_generator(), SHORT), replace(SHORT, validate_every=every)
        folder = tmp_path / str(every)
        with pytest.raises(FloatingPointError, match=message):
            small_run.train(None, config, objective=objective, run_folder=folder)
        assert torch.load(folder / STATE_FILE, weights_only=True)["step"] == 4


def test_a_compiled_run_trains_what_a_plain_one_does(small_run, monkeypatch):
    # The graphs that torch.compile cuts, run as they are: its C++ takes minutes.
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net: compile_module(net, backend="eager"))
    plain, compiled = new_generator(), new_generator()
    config = replace(SHORT, steps=3)
    small_run.train(plain, config)
    small_run.train(compiled, replace(config, compile=True))
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# Two networks in the same loop


class TinyGAN:
    """A generator against a discriminator: hinge losses, two optimizers, two averages."""

    averaged = ("generator", "discriminator")
    identity = {"objective": "tiny GAN", "rates": (1e-3, 4e-3)}

    def __init__(self) -> None:
        torch.manual_seed(2)
        discriminator = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.Linear(8, 1))
        self.modules = {"generator": new_generator(), "discriminator": discriminator}
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), rate, betas=(0.0, 0.9))
            for (name, module), rate in zip(
                self.modules.items(), self.identity["rates"], strict=True
            )
        }
        self.judged_twice = []

    def step(self, batch, update):
        generator, discriminator = self.modules["generator"], self.modules["discriminator"]
        fake = generator(batch.text, batch.noise)  # shared by both updates
        before = discriminator(fake.detach())
        loss_d = (1 - discriminator(batch.images)).relu().mean() + (1 + before).relu().mean()
        update("discriminator", loss_d)
        after = discriminator(fake)
        self.judged_twice.append((before.detach(), after.detach()))
        loss_g = -after.mean()
        update("generator", loss_g)
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}

    def validate(self, batch, networks):
        images = networks["generator"](batch.text, batch.noise)
        return -networks["discriminator"](images).float().flatten()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_gan_trains_and_resumes_through_the_same_loop(small_run, tmp_path, precision):
    config = replace(SHORT, precision=precision)
    whole, parts = TinyGAN(), TinyGAN()
    history = small_run.train(None, config, objective=whole)
    assert set(history.losses) == {"generator", "discriminator"}
    with pytest.raises(KeyboardInterrupt):
        small_run.train(None, config, objective=parts, run_folder=tmp_path, draw=interrupt_at(0))
    resumed = TinyGAN()
    small_run.train(None, config, objective=resumed, run_folder=tmp_path, resume=True)
    for name in whole.modules:
        assert same_weights(whole.modules[name], resumed.modules[name])


def test_under_autocast_the_second_update_sees_the_weights_of_the_first(small_run):
    objective = TinyGAN()
    small_run.train(None, replace(SHORT, precision="bf16", clip_norm=0.0), objective=objective)
    # From step 2 on the rates are above 0 and the discriminator has moved between the two looks.
    assert all(not torch.equal(before, after) for before, after in objective.judged_twice[1:])


# What does not fit


@pytest.mark.parametrize(
    "numbers",
    [
        {"steps": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"learning_rate": math.nan},
        {"warmup_steps": -1}, {"average_decay": 1.0}, {"schedule": "linear"},
        {"precision": "fp16"}, {"clip_norm": -1.0},
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused_by_name(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        TrainingConfig(**numbers)


def test_parts_that_do_not_fit_each_other_are_refused(small_run):
    parts = (small_run.splits["train"], small_run.splits["val"])
    objective = MeanSquaredError(new_generator(), SHORT)
    wide = [np.zeros((len(text), 20), np.float32) for text in small_run.text.values()]
    with pytest.raises(ValueError, match="width of the text features: 20, but 12 are needed"):
        train(objective, SHORT, *parts, *wide, device="cpu")
    with pytest.raises(ValueError, match="rows of text features .*: 200, but 300 are needed"):
        train(objective, SHORT, *parts, small_run.text["val"], small_run.text["val"], device="cpu")
    with pytest.raises(ValueError, match="side of the images: 16, but 32"):
        small_run.train(ResidualDecoder(text_dim=WIDTH, image_size=32, width=16))
    with pytest.raises(ValueError, match="a batch of 8 cannot be shared by 1 processes .* 3 parts"):
        small_run.train(new_generator(), replace(SHORT, batch_size=8, accumulate=3))
