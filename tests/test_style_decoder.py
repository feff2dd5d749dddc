import pytest
import torch
from torch import nn
from torch.nn import functional

from t2i_course.style_decoder import (
    LATENT,
    TEXT,
    EqualLinear,
    MappingNetwork,
    StyleGenerator,
    modulate,
    modulated_conv2d,
    path_length,
    upsample,
)
from t2i_course.text_encoder import TextFeatures


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return StyleGenerator(16, noise_dim=8, image_size=32, width=8).eval()


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("side", [1, 3])
def test_modulated_convolution_is_the_loop_over_pictures(demodulate, grouped, side):
    torch.manual_seed(0)
    x, weight, style = torch.randn(5, 6, 9, 9), torch.randn(4, 6, side, side), torch.randn(5, 6)
    found = modulated_conv2d(x, weight, style, demodulate, grouped)
    for picture, s, result in zip(x, style, found, strict=True):
        own = weight * s[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected = functional.conv2d(picture[None], own, padding=side // 2)[0]
        assert torch.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("grouped", [True, False])
def test_both_forms_have_the_gradients_of_the_loop(grouped):
    torch.manual_seed(0)
    x, weight, style = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(3, 4)
    inputs = [t.double().requires_grad_() for t in (x, weight, style)]
    torch.autograd.gradcheck(
        lambda *t: modulated_conv2d(*t, grouped=grouped), inputs, atol=1e-4, nondet_tol=1e-9
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_demodulation_keeps_the_variance_whatever_the_style(scale):
    torch.manual_seed(0)
    x, weight = torch.randn(64, 32, 16, 16), torch.randn(48, 32, 3, 3)
    style = scale * torch.randn(64, 32)
    inside = modulated_conv2d(x, weight, style)[:, :, 1:-1, 1:-1]  # the border is padded with 0
    assert inside.var().item() == pytest.approx(1, abs=0.1)
    plain = modulated_conv2d(x, weight, style, demodulate=False)[:, :, 1:-1, 1:-1]
    assert plain.var().item() == pytest.approx(scale**2 * 32 * 9, rel=0.3)


def test_demodulated_weights_have_unit_norm():
    weights = modulate(torch.randn(4, 6, 3, 3), torch.randn(5, 6))
    assert torch.allclose(weights.square().sum(dim=(2, 3, 4)), torch.ones(5, 4), atol=1e-4)


def test_every_layer_keeps_the_variance_at_the_start():
    """Of the convolutions' outputs, relative to what they see, through whole untrained networks.

    Demodulation holds on the average over weights and styles, hence the seeds.
    """
    seen = []

    def watch(layer, inputs, output):
        x, style = inputs
        found = modulated_conv2d(x, layer.weight, layer.affine(style), grouped=False)
        energy = functional.avg_pool2d(x.square().mean(dim=1, keepdim=True), 3, 1)
        seen.append((found[:, :, 1:-1, 1:-1].square().mean() / energy.mean()).item())

    for seed in range(6):
        torch.manual_seed(seed)
        generator = StyleGenerator(16, noise_dim=8, image_size=32, width=8).eval()
        for block in generator.blocks:
            block.first.register_forward_hook(watch)
            block.second.register_forward_hook(watch)
        with torch.no_grad():
            generator(torch.randn(64, 16), torch.randn(64, 8))
    assert len(seen) == 6 * generator.layers
    assert sum(seen) / len(seen) == pytest.approx(1, abs=0.1)


def test_style_does_not_see_the_length_of_the_noise(generator):
    text, noise = torch.randn(3, 16), torch.randn(3, 8)
    styles = generator.style(text, noise)
    assert styles.shape == (3, LATENT)
    assert torch.allclose(styles, generator.style(text, 5 * noise), atol=1e-5)
    assert not torch.allclose(styles, generator.style(text, -noise), atol=1e-3)


def test_text_and_noise_have_a_part_of_the_style_each(generator):
    text, noise = torch.randn(2, 16), torch.randn(2, 8)
    first, other = generator.style(text, noise), generator.style(text.flip(0), noise)
    assert torch.equal(first[:, TEXT:], other[:, TEXT:])
    assert torch.equal(first[:, :TEXT], other.flip(0)[:, :TEXT])


def test_mapping_keeps_the_variance_at_the_start():
    torch.manual_seed(0)
    mapped = MappingNetwork(64, 256)(torch.randn(4096, 64))
    assert mapped.square().mean().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("inputs", [4, 64, 1024])
def test_equalised_layer_keeps_the_variance_and_learns_at_one_relative_rate(inputs):
    torch.manual_seed(0)
    layer, x = EqualLinear(inputs, 256), torch.randn(2048, inputs)
    before = layer(x)
    assert before.var().item() == pytest.approx(1, abs=0.15)
    weight, optimizer = layer.weight.detach().clone(), torch.optim.Adam(layer.parameters(), lr=0.01)
    (before * torch.randn_like(before)).sum().backward()
    optimizer.step()
    changed = (layer.weight - weight).square().mean().sqrt() / weight.std()
    assert changed.item() == pytest.approx(0.01, rel=0.05)


def test_the_scale_of_a_demodulated_layers_weights_does_not_count(generator):
    text, noise = torch.randn(2, 16), torch.randn(2, 8)
    before = generator(text, noise)
    with torch.no_grad():
        for block in generator.blocks:
            block.first.weight.mul_(7)
    assert torch.allclose(generator(text, noise), before, atol=1e-5)


def test_it_takes_features_with_words_or_sentences_alone(generator):
    text, noise = torch.randn(2, 16), torch.randn(2, 8)
    words = TextFeatures(text, torch.randn(2, 5, 16), torch.ones(2, 5))
    assert torch.equal(generator(words, noise), generator(text, noise))


def test_upsampling_is_the_binomial_filter_inside():
    x = torch.randn(2, 3, 8, 8)
    kernel = torch.tensor([1.0, 3, 3, 1]) / 4
    kernel = (kernel[:, None] * kernel)[None, None].repeat(3, 1, 1, 1)  # [3, 1, 4, 4]
    expected = functional.conv_transpose2d(x, kernel, stride=2, padding=1, groups=3)
    assert torch.allclose(upsample(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-6)


def test_it_draws_in_range_and_other_noise_gives_another_picture(generator):
    text, noise = torch.randn(1, 16).expand(2, -1), torch.randn(2, 8)
    images = generator(text, noise)
    assert images.shape == (2, 3, 32, 32) and images.abs().max() <= 1
    assert not torch.allclose(images[0], images[1], atol=1e-4)
    assert torch.equal(generator(text, noise), images)  # eval mode has fixed noise maps
    with pytest.raises(ValueError, match="draws from noise"):
        generator(text)


def test_truncation_0_is_one_picture_a_caption_and_1_the_plain_model(generator):
    text, noise = torch.randn(2, 16).repeat_interleave(3, dim=0), torch.randn(6, 8)
    plain = generator(text, noise)
    generator.latent_mean.copy_(generator.style(text, noise)[:, TEXT:].mean(dim=0))
    generator.truncation = 0.0
    images = generator(text, noise)
    assert torch.allclose(images[:3], images[:1].expand(3, -1, -1, -1), atol=1e-6)
    assert not torch.allclose(images[0], images[3], atol=1e-4)  # the caption still counts
    generator.truncation = 1.0
    assert torch.equal(generator(text, noise), plain)
    generator.truncation = 0.5
    between = generator(text, noise)
    assert (between[:3].std(dim=0).mean() < plain[:3].std(dim=0).mean()).item()


def test_the_running_mean_follows_the_styles_in_training_only(generator):
    text, noise = torch.randn(32, 16), torch.randn(32, 8)
    generator(text, noise)
    assert not generator.latent_mean.any()
    generator.train()
    for _ in range(2000):
        with torch.no_grad():
            generator.style(text, noise)
    mean = generator.style(text, noise)[:, TEXT:].mean(dim=0)
    assert torch.allclose(generator.latent_mean, mean, atol=1e-3)


def test_noise_maps_differ_by_picture_in_training_once_they_have_a_strength(generator):
    text, noise = torch.randn(1, 16).expand(2, -1), torch.randn(1, 8).expand(2, -1)
    generator.train()
    assert torch.allclose(*generator(text, noise), atol=1e-6)
    for block in generator.blocks:
        nn.init.ones_(block.first.strength)
    assert not torch.allclose(*generator(text, noise), atol=1e-3)


def test_mixing_takes_the_early_layers_from_one_and_the_late_ones_from_the_other(generator):
    one, other = torch.randn(2, 1, LATENT).unbind()
    draw = generator.synthesize
    whole = [draw(style[:, None].expand(-1, generator.layers, -1)) for style in (one, other)]
    assert torch.equal(generator.mix(one, other, generator.layers), whole[0])
    assert torch.equal(generator.mix(one, other, 0), whole[1])
    mixed = generator.mix(one, other, 4)
    assert not torch.allclose(mixed, whole[0], atol=1e-4)
    assert not torch.allclose(mixed, whole[1], atol=1e-4)
    with pytest.raises(ValueError, match="has 8 layers"):
        generator.mix(one, other, 9)


def test_path_length_is_the_gradients_length_by_finite_differences():
    torch.manual_seed(0)
    generator = StyleGenerator(16, noise_dim=8, image_size=8, width=4).eval().double()
    style = torch.randn(1, LATENT, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(1, 3, 8, 8, generator=draw).double() / 8
    styles = style[:, None].repeat(1, generator.layers, 1)

    @torch.no_grad()
    def value(styles):  # [N, L, W] to [N]
        return (generator.synthesize(styles) * direction).sum(dim=(1, 2, 3))

    gradient = torch.zeros_like(styles)
    steps = 1e-5 * torch.eye(LATENT, dtype=torch.float64)  # [W, W]
    for layer in range(generator.layers):
        changed = styles.repeat(LATENT, 1, 1)
        changed[:, layer] += steps
        upper = value(changed)
        changed[:, layer] -= 2 * steps
        gradient[0, layer] = (upper - value(changed)) / 2e-5
    expected = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    assert torch.allclose(path_length(generator, style), expected, rtol=1e-4)
