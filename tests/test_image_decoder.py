"""The decoders' promises, and the measures against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

from t2i_course.image_decoder import (
    DECODERS,
    ArticleDecoder,
    ResidualDecoder,
    Standardize,
    build_decoder,
    checkerboard,
    count_operations,
    draw_constant,
    reach,
)

WIDTH = 24  # features of a caption


def build(name: str, **config) -> nn.Module:
    torch.manual_seed(0)
    return build_decoder(name, text_dim=WIDTH, **config)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("image_size", [32, 64])
def test_draws_one_image_in_range_for_each_caption(name, image_size):
    generator = build(name, image_size=image_size)
    images = generator(torch.randn(3, WIDTH) * 10, None)
    assert images.shape == (3, 3, image_size, image_size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1


@pytest.mark.parametrize("name", DECODERS)
def test_a_caption_is_drawn_the_same_in_any_batch(name):
    generator = build(name)
    text = torch.randn(5, WIDTH)
    torch.testing.assert_close(generator(text)[3:4], generator(text[3:4]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_config_builds_the_same_network_again(name):
    generator = build(name)
    again = build_decoder(generator.name, **generator.config)
    again.load_state_dict(generator.state_dict())
    text = torch.randn(2, WIDTH)
    assert torch.equal(again(text), generator(text))


@pytest.mark.parametrize("name", DECODERS)
def test_baseline_ignores_the_noise(name):
    generator = build(name)
    text = torch.randn(2, WIDTH)
    assert torch.equal(generator(text, torch.randn(2, 7)), generator(text, None))


def test_noise_changes_the_picture_where_the_decoder_takes_it():
    generator = build("residual", noise_dim=8)
    text = torch.randn(1, WIDTH).expand(2, -1)
    first, second = generator(text, torch.randn(2, 8))
    assert (first - second).abs().mean() > 1e-3


@pytest.mark.parametrize(
    ("text_shape", "noise_shape", "message"),
    [
        ((2, WIDTH + 1), (2, 8), r"\[2, 25\].*\[B, 24\]"),
        ((WIDTH,), (2, 8), r"\[24\]"),
        ((2, 5, WIDTH), (2, 8), r"\[2, 5, 24\]"),
        ((2, WIDTH), None, r"pass torch.randn\(2, 8\)"),
        ((2, WIDTH), (2, 7), r"noise has shape \[2, 7\], needed is \[2, 8\]"),
        ((2, WIDTH), (1, 8), r"noise has shape \[1, 8\]"),
    ],
)
def test_wrong_inputs_are_refused_by_shape(text_shape, noise_shape, message):
    generator = build("residual", noise_dim=8)
    noise = None if noise_shape is None else torch.randn(noise_shape)
    with pytest.raises(ValueError, match=message):
        generator(torch.randn(text_shape), noise)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("stylegan", {}, "unknown decoder 'stylegan': choose one of article, residual"),
        ("article", {"image_size": 30}, "multiple of 4"),
        ("residual", {"image_size": 48}, "8, 16, 32"),
        ("residual", {"width": 20}, "multiple of 16"),
        ("residual", {"noise_dim": -2}, "noise_dim"),
        ("article", {"depth": 3}, "cannot be built"),
    ],
)
def test_impossible_decoders_are_refused(name, config, message):
    with pytest.raises(ValueError, match=message):
        build(name, **config)


def test_residual_decoder_has_about_a_million_weights():
    generator = ResidualDecoder(text_dim=256)
    assert 0.8e6 < sum(p.numel() for p in generator.parameters()) < 1.2e6


def test_every_weight_gets_a_gradient():
    for name in DECODERS:
        generator = build(name)
        generator(torch.randn(4, WIDTH)).square().mean().backward()
        for key, weight in generator.named_parameters():
            assert weight.grad is not None and weight.grad.abs().sum() > 0, f"{name}: {key}"


def test_residual_decoder_learns_one_batch_by_heart():
    torch.manual_seed(0)
    generator = ResidualDecoder(text_dim=WIDTH, image_size=16, width=16)
    text = torch.randn(4, WIDTH)
    images = torch.rand(4, 3, 1, 1).mul(2).sub(1).repeat(1, 1, 16, 16)
    images[:, :, 4:9, 6:12] *= -1
    optimizer = torch.optim.Adam(generator.parameters(), 3e-3)
    for _ in range(150):
        loss = (generator(text) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_bf16_and_channels_last_draw_nearly_the_same():
    generator = build("residual").to(memory_format=torch.channels_last)
    text = torch.randn(2, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        half = generator(text)
    assert (half.float() - generator(text)).abs().max() < 0.1


def test_standardized_features_have_mean_0_and_deviation_1():
    features = np.random.default_rng(0).normal(3, [0.1, 1, 50], size=(5000, 3)).astype(np.float32)
    layer = Standardize(3)
    text = torch.from_numpy(features)
    assert torch.equal(layer(text), text)  # the identity before `fit`
    layer.fit(features)
    torch.testing.assert_close(layer(text).mean(dim=0), torch.zeros(3), atol=1e-3, rtol=0)
    scale = layer(text).std(dim=0)
    torch.testing.assert_close(scale[1:], torch.ones(2), atol=1e-3, rtol=0)
    assert 0 < scale[0] < 1  # moves 500 times less than the widest: not blown up


def test_a_feature_that_never_moves_stays_finite():
    layer = Standardize(2)
    layer.fit(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    assert layer(torch.tensor([[2.0, 5.0], [2.0, 5.1]])).isfinite().all()


# Closed forms


def test_operations_of_single_layers_match_their_formulas():
    conv = nn.Conv2d(6, 8, kernel_size=3, padding=1, groups=2)
    (row,) = count_operations(conv, torch.randn(2, 6, 5, 7))
    assert row.multiply_adds == 2 * 5 * 7 * 8 * 3 * 3 * 6 // 2
    assert (row.output_shape, row.parameters) == ((2, 8, 5, 7), 8 * 3 * 9 + 8)
    transposed = nn.ConvTranspose2d(4, 3, kernel_size=4, stride=2, padding=1)
    (row,) = count_operations(transposed, torch.randn(1, 4, 8, 8))
    assert row.multiply_adds == 8 * 8 * 4 * 4 * 4 * 3
    (row,) = count_operations(nn.Linear(10, 20), torch.randn(3, 10))
    assert (row.multiply_adds, row.parameters) == (3 * 10 * 20, 220)


def test_article_decoder_costs_what_its_formula_says():
    rows = count_operations(ArticleDecoder(text_dim=768), torch.randn(1, 768))
    assert [row.multiply_adds for row in rows] == [
        768 * 512,
        512 * 128 * 16 * 16,
        128 * 64 * 16 * 16 * 16,
        64 * 3 * 16 * 32 * 32,
    ]
    assert rows[-1].output_shape == (1, 3, 64, 64)


@pytest.mark.parametrize("name", DECODERS)
def test_the_layers_rows_hold_nearly_every_parameter(name):
    generator = build(name)
    rows = count_operations(generator, torch.randn(1, WIDTH))
    whole = sum(p.numel() for p in generator.parameters())
    assert 0.99 * whole < sum(row.parameters for row in rows) <= whole
    assert not any(layer._forward_hooks for layer in generator.modules())


def test_a_layer_called_twice_is_paid_twice_and_owned_once():
    layer = nn.Linear(4, 4)
    rows = count_operations(nn.Sequential(layer, layer), torch.randn(1, 4))
    assert [row.multiply_adds for row in rows] == [16, 16]
    assert [row.parameters for row in rows] == [20, 0]


def test_work_grows_with_the_batch():
    generator = build("residual")
    one = sum(row.multiply_adds for row in count_operations(generator, torch.randn(1, WIDTH)))
    five = sum(row.multiply_adds for row in count_operations(generator, torch.randn(5, WIDTH)))
    assert five == 5 * one


def test_checkerboard_of_plus_and_minus_a_is_a():
    board = torch.ones(1, 1, 9, 8)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
    assert checkerboard(0.3 * board + 0.1, period=2) == pytest.approx(0.3)
    assert checkerboard(torch.full((2, 3, 8, 8), 0.7), period=2) == pytest.approx(0, abs=1e-9)
    blocks = torch.nn.functional.interpolate(0.3 * board[..., :8, :], scale_factor=2)
    assert checkerboard(blocks, period=4) == pytest.approx(0.3)
    assert checkerboard(blocks, period=2) == pytest.approx(0, abs=1e-9)


def test_checkerboard_equals_the_energy_at_the_periods_frequencies():
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.fft2(images[0, 0].double()).abs().square() / (32 * 32) ** 2
    energy = spectrum[::8, ::8].sum() - spectrum[0, 0]
    assert checkerboard(images, period=4) == pytest.approx(float(energy.sqrt()))


def test_transposed_convolutions_leave_a_checkerboard_and_copied_pixels_none():
    text = torch.randn(4, WIDTH)
    assert checkerboard(draw_constant(build("article"), text), period=4) > 0.01
    assert checkerboard(draw_constant(build("residual"), text), period=16) < 1e-6


@pytest.mark.parametrize("period", [1, 0, 40])
def test_a_period_that_does_not_fit_is_refused(period):
    with pytest.raises(ValueError, match="period"):
        checkerboard(torch.zeros(1, 3, 32, 32), period)


def test_a_cell_of_the_article_decoder_reaches_10_by_10_pixels():
    generator = build("article")
    seed = generator.seed(torch.randn(1, WIDTH))
    pixels = reach(generator.draw, seed, row=5, column=8)
    # One transposed convolution: cell i reaches 2i - 1 to 2i + 2. Two of them: 4i - 3 to 4i + 6.
    rows, columns = pixels.nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (4 * 5 - 3, 4 * 5 + 6)
    assert (columns.min(), columns.max()) == (4 * 8 - 3, 4 * 8 + 6)
    assert (pixels > 0).sum() == 100


def test_a_cell_of_the_residual_decoder_reaches_the_whole_picture():
    generator = build("residual")
    pixels = reach(generator.draw, generator.seed(torch.randn(1, WIDTH)), row=1, column=2)
    assert (pixels > 0).all()


@pytest.mark.parametrize("captions", [1, 5])
def test_features_of_captions_that_are_all_alike_are_not_blown_up(captions):
    standardize = Standardize(6)
    alike = 3 * torch.ones(captions, 6)
    standardize.fit(alike)
    assert torch.equal(standardize(alike), torch.zeros(captions, 6))
    assert standardize(alike[:1] + torch.randn(1, 6)).abs().max() < 2
