"""The flow: paths, velocities and solvers by their closed forms; the network learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from t2i_course import data
from t2i_course.flow_matching import FlowGenerator, FlowMatching, flow_loss, solve, step_times
from t2i_course.text_cache import EmbeddedCaptions
from t2i_course.text_encoder import TextFeatures
from t2i_course.training import TrainingConfig, train


def text(count: int, width: int = 12, tokens: int = 5) -> TextFeatures:
    generator = torch.Generator().manual_seed(count)
    mask = torch.ones(count, tokens, dtype=torch.long)
    return TextFeatures(
        torch.randn(count, width, generator=generator),
        torch.randn(count, tokens, width, generator=generator),
        mask,
    )


@pytest.fixture
def generator():
    torch.manual_seed(0)
    network = FlowGenerator(12, image_size=16, width=16).eval()
    for weight in network.parameters():  # those that start at 0 would hide what they do
        nn.init.normal_(weight, std=0.2)
    return network


def gaussian_velocity(mean, deviation):
    """E[x - e | z_t = z] for pictures x ~ N(mean, deviation^2), noise e ~ N(0, 1)."""

    def velocity(z, t):
        variance = (t * deviation) ** 2 + (1 - t) ** 2
        slope = (t * deviation**2 - (1 - t)) / variance
        return mean + slope * (z - t * mean)

    return velocity


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_known_velocity_of_a_gaussian_carries_noise_to_it(solver):
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = solve(gaussian_velocity(3.0, 0.5), noise, step_times(200, 2.0), solver)[-1]
    assert found.mean().item() == pytest.approx(3, abs=0.02)
    assert found.std().item() == pytest.approx(0.5, abs=0.02)


def test_one_step_is_enough_where_paths_are_straight():
    start, end = torch.randn(4, 3), torch.randn(4, 3)
    for steps in (1, 7):
        path = solve(lambda z, t: end - start, start, step_times(steps))
        assert len(path) == steps + 1
        assert torch.allclose(path[-1], end, atol=1e-5)


def test_heuns_error_falls_with_the_square_of_the_step_and_eulers_with_the_step():
    exact = torch.tensor(2.0).exp()

    def error(solver, steps):
        start = torch.tensor([1.0], dtype=torch.float64)
        z = solve(lambda z, t: 2 * z, start, step_times(steps), solver)[-1]
        return abs(z.item() - exact.item())

    assert error("euler", 64) / error("euler", 128) == pytest.approx(2, rel=0.1)
    # Heun's last step is Euler's, whose error is that of one step: of second order as well
    assert error("heun", 64) / error("heun", 128) == pytest.approx(4, rel=0.15)


def test_a_shift_shortens_the_first_steps_and_keeps_both_ends():
    assert step_times(4) == [0, 0.25, 0.5, 0.75, 1]
    assert step_times(2, 3.0) == [0, 0.25, 1]  # 0.5 / (0.5 + 3 x 0.5)
    gaps = np.diff(step_times(12, 3.0))
    assert (np.diff(gaps) > 0).all() and gaps.sum() == pytest.approx(1)


def test_unknown_solvers_no_steps_and_no_shift_are_refused():
    with pytest.raises(ValueError, match="choose euler or heun"):
        solve(lambda z, t: z, torch.zeros(1), [0, 1], "rk4")
    for steps, shift in ((0, 1.0), (3, 0.0), (3, float("nan"))):
        with pytest.raises(ValueError, match="from 1 step, and a shift above 0"):
            step_times(steps, shift)


def test_charge_for_the_picture_is_that_for_the_velocity(generator):
    images, noise = torch.randn(3, 3, 16, 16), torch.randn(3, 3, 16, 16)
    t, captions = torch.tensor([0.1, 0.5, 0.9]), text(3)
    keep = torch.ones(3, dtype=torch.bool)
    part = t[:, None, None, None]
    z = part * images + (1 - part) * noise
    velocity = (generator.predict(z, t, captions, keep) - z) / (1 - part)
    expected = (velocity - (images - noise)).square().mean(dim=(1, 2, 3))
    found = flow_loss(generator, images, noise, t, captions, keep)
    assert torch.allclose(found, expected, rtol=1e-4)


def test_guidance_of_one_is_the_conditional_network(generator):
    z, captions = torch.randn(2, 3, 16, 16), text(2)
    generator.guidance, generator.interval = 1.0, (0.0, 1.0)
    plain = generator.velocity(z, 0.5, captions)
    expected = (generator.predict(z, torch.full((2,), 0.5), captions) - z) / 0.5
    assert torch.allclose(plain, expected, atol=1e-5)
    generator.guidance = 1 + 1e-9
    assert torch.allclose(generator.velocity(z, 0.5, captions), plain, atol=1e-4)
    generator.guidance = 0.0
    nothing = torch.zeros(2, dtype=torch.bool)
    expected = (generator.predict(z, torch.full((2,), 0.5), captions, nothing) - z) / 0.5
    assert torch.allclose(generator.velocity(z, 0.5, captions), expected, atol=1e-4)


def test_a_dropped_caption_is_not_seen(generator):
    z, t, nothing = torch.randn(2, 3, 16, 16), torch.rand(2), torch.zeros(2, dtype=torch.bool)
    one, other = text(2), text(2, tokens=9)
    with torch.no_grad():
        assert torch.allclose(
            generator.predict(z, t, one, nothing), generator.predict(z, t, other, nothing)
        )
        assert not torch.allclose(generator.predict(z, t, one), generator.predict(z, t, other))


def test_padding_changes_no_picture(generator):
    captions, noise = text(2), torch.randn(2, generator.noise_dim)
    longer = TextFeatures(
        captions.sentence,
        torch.cat([captions.words, torch.randn(2, 3, 12)], dim=1),
        torch.cat([captions.mask, torch.zeros(2, 3, dtype=torch.long)], dim=1),
    )
    with torch.no_grad():
        assert torch.allclose(generator(captions, noise), generator(longer, noise), atol=1e-4)


def test_evaluations_are_those_that_are_made(generator, monkeypatch):
    predict, calls = FlowGenerator.predict, []

    def count(self, z, t, captions, keep=None):
        calls.append(len(z))
        return predict(self, z, t, captions, keep)

    monkeypatch.setattr(FlowGenerator, "predict", count)
    with torch.no_grad():
        for solver in ("euler", "heun"):
            calls.clear()
            generator.solver = solver
            generator(text(1), torch.randn(1, generator.noise_dim))
            assert sum(calls) == generator.evaluations()


def test_shipped_defaults_cost_at_most_twenty_evaluations():
    assert FlowGenerator(12).evaluations() <= 20


def test_wrong_noise_and_sizes_are_named(generator):
    with pytest.raises(ValueError, match=r"noise \[2, 768\]"):
        generator(text(2), torch.randn(2, 5))
    with pytest.raises(ValueError, match="multiple of 8"):
        FlowGenerator(12, image_size=20)


def test_the_loop_teaches_it_to_draw_two_captions(small_scenes, tmp_path):
    packed = data.pack(small_scenes, "train", 16, progress=False)
    rows = len(packed.all_captions)
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(rows * 4, 12, generator=generator).half().numpy()
    captions = EmbeddedCaptions(
        torch.randn(rows, 12, generator=generator).numpy(), words, *starts_of(rows, 4)
    )
    objective = FlowMatching(FlowGenerator(12, image_size=16, width=16), 2e-3)
    config = TrainingConfig(steps=60, batch_size=16, warmup_steps=5)
    history = train(objective, config, packed, packed, captions, captions, device="cpu",
                    progress=False)  # fmt: skip
    losses = history.losses["flow"]
    assert np.median(losses[-10:]) < 0.6 * np.median(losses[:10])  # some weigh very much
    drawn = objective.modules["generator"](captions[[0, 1]], torch.randn(2, 768))
    assert drawn.shape == (2, 3, 16, 16) and drawn.abs().max() <= 1


def starts_of(rows: int, tokens: int):
    return np.arange(rows + 1) * tokens, np.arange(rows)
