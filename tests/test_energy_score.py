import math

import pytest
import torch

from t2i_course.energy_score import coarse_pixels, energy_score, picture_score, sorted_colors


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def thing(side, x, y, shade, ground=-1.0, size=64):
    """A square of one shade on a plain ground, [1, 3, S, S]; corners at even pixels."""
    picture = torch.full((1, 3, size, size), ground)
    picture[:, :, y : y + side, x : x + side] = shade
    return picture


def test_of_a_single_number_it_is_the_continuous_ranked_probability_score():
    """Of N(0, 1) at y: y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)."""
    first, second = normal(2, 400_000, 1)
    for y in (0.0, 0.7, -2.0):
        phi = math.exp(-y * y / 2) / math.sqrt(2 * math.pi)
        known = y * math.erf(y / math.sqrt(2)) + 2 * phi - 1 / math.sqrt(math.pi)
        found = energy_score(first, second, torch.full_like(first, y)).mean().item()
        assert found == pytest.approx(known, abs=0.005)


@pytest.mark.parametrize("width", [1, 6])
def test_it_is_least_for_draws_that_vary_as_real_ones_do(width):
    real, first, second = normal(3, 100_000, width)
    score = {
        spread: energy_score(spread * first, spread * second, real).mean().item()
        for spread in (0.25, 0.5, 1.0, 2.0, 4.0)
    }
    assert min(score, key=score.get) == 1
    # The squared error likes those best that do not vary.
    error = {spread: (spread * first - real).square().mean().item() for spread in score}
    assert min(error, key=error.get) == 0.25


def test_draws_that_are_alike_have_a_finite_gradient_and_are_not_torn_apart():
    same = torch.zeros(4, 6, requires_grad=True)
    energy_score(same, same * 1, normal(4, 6)).sum().backward()
    assert same.grad.isfinite().all() and same.grad.abs().max() < 10


def test_coarse_pixels_are_means_of_places():
    picture = thing(8, 16, 40, 1.0)
    found = coarse_pixels(picture).unflatten(1, (3, 8, 8))
    wanted = torch.full((3, 8, 8), -1.0)
    wanted[:, 5, 2] = 1.0
    assert torch.equal(found[0], wanted)
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1
    assert coarse_pixels(board.expand(1, 3, 64, 64)).abs().max() < 1e-6


def test_sorted_colors_know_shade_and_size_and_not_the_place():
    here = sorted_colors(thing(12, 4, 6, 0.5))
    assert here.shape == (1, 3, 20)
    assert torch.equal(here, sorted_colors(thing(12, 40, 30, 0.5)))
    darker, larger = sorted_colors(thing(12, 4, 6, 0.4)), sorted_colors(thing(14, 4, 6, 0.5))
    # 36 of 1,024 pixels: five steps of octaves from the brightest one lie within the thing.
    brightest = slice(10, 15)
    assert torch.allclose(here[..., brightest] - darker[..., brightest], torch.tensor(0.1))
    assert torch.equal(here[..., brightest], larger[..., brightest])
    assert (larger[..., 15:17] > here[..., 15:17]).any(dim=2).all()
    assert (here[..., :10] == -1).all()


@pytest.mark.parametrize("size", [8, 32, 64, 128])
def test_sorted_colors_take_every_pixel_once(size):
    picture = normal(2, 3, size, size)
    found = sorted_colors(picture)
    half = (size // 2) ** 2 // 2
    counts = [1]
    while sum(counts) < half:
        counts.append(min(sum(counts), half - sum(counts)))
    weights = torch.tensor([*counts, *counts]) / (2 * half)
    assert torch.allclose((found * weights).sum(dim=2), picture.mean(dim=(2, 3)), atol=1e-5)


def test_a_wrong_place_and_a_wrong_shade_both_cost():
    real, same = thing(12, 4, 6, 0.5), thing(12, 4, 6, 0.5)
    none = picture_score(same, same, real)
    moved = thing(12, 40, 30, 0.5)
    darker = thing(12, 4, 6, 0.1)
    assert abs(none) < 1e-3
    assert picture_score(moved, moved, real) > 0.05 and picture_score(darker, darker, real) > 0.05


def test_what_is_learnt_with_it_varies_as_real_values_do():
    """One weight, the spread of what is drawn around a mean, learns the spread of real values."""
    chance = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.0, 0.1], requires_grad=True)  # mean and spread
    optimizer = torch.optim.Adam([weights], lr=0.02)
    for _ in range(600):
        first, second, real = torch.randn(3, 256, 1, generator=chance)
        mean, spread = weights
        score = energy_score(mean + spread * first, mean + spread * second, 2 + 0.7 * real)
        optimizer.zero_grad()
        score.mean().backward()
        optimizer.step()
    mean, spread = weights.tolist()
    assert mean == pytest.approx(2, abs=0.1) and abs(spread) == pytest.approx(0.7, abs=0.1)
