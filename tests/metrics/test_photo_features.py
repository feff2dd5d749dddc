import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from t2i_course import data
from t2i_course.metrics import held_out, picture_features, protocol
from t2i_course.metrics.networks import train_network
from t2i_course.metrics.photo_features import (
    NAME,
    TEMPERATURE,
    PhotoFeatures,
    load_photo_features,
    prepare,
    random_view,
)


@pytest.fixture(scope="module")
def folder(small_scenes, as_photos, tmp_path_factory):
    return as_photos(small_scenes, tmp_path_factory.mktemp("features") / "photos")


def test_views_are_within_range_and_follow_their_generator():
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first, again = (random_view(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == images.shape and first.abs().max() <= 1
    assert torch.equal(first, again)


def test_a_view_of_an_even_picture_is_even_and_cuts_come_from_inside():
    even = torch.tensor([0.2, -0.1, 0.4])[:, None, None].expand(3, 16, 16)
    view = random_view(even[None], torch.Generator().manual_seed(0))[0]
    assert torch.allclose(view, view[:, :1, :1].expand_as(view), atol=1e-5)
    # A ramp from left to right, not clamped: cuts and mirrors of it are ramps within its range.
    ramp = torch.linspace(-0.2, 0.2, 64).expand(8, 3, 64, 64)
    views = random_view(ramp, torch.Generator().manual_seed(3))[:, 0]  # [8, 64, 64]
    assert torch.allclose(views, views[:, :1].expand_as(views), atol=1e-5)
    steps = views[:, 0].diff(dim=1)
    slopes = steps[:, 8:-8].mean(dim=1)
    assert (slopes < 0).any() and (slopes > 0).any()  # some are mirrored
    assert len({round(abs(slope), 5) for slope in slopes.tolist()}) == 8  # all cut differently


def test_a_view_that_is_only_cut_keeps_sides_and_colours():
    ramp = torch.linspace(-0.2, 0.2, 64).expand(8, 3, 64, 64)
    views = random_view(ramp, torch.Generator().manual_seed(3), smallest=0.5, cut_only=True)
    slopes = views[:, 0, 0, 8:-8].diff(dim=1).mean(dim=1) / (0.4 / 63)  # [8], of the ramp's
    assert slopes.min() >= 0.49 and slopes.max() <= 1.01 and slopes.max() > slopes.min() + 0.1
    assert views.min() >= -0.2 and views.max() <= 0.2
    assert torch.allclose(views, views[:, :1].expand_as(views), atol=1e-6)


def test_loss_is_that_of_equation_1():
    torch.manual_seed(0)
    network = PhotoFeatures(16, width=8).eval()
    first, second = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        z = network.project(network.picture(torch.cat([first, second])))
        similar = functional.cosine_similarity(z[:, None], z[None], dim=2) / TEMPERATURE
        terms = []
        for i in range(6):
            j = (i + 3) % 6
            others = sum(similar[i, k].exp() for k in range(6) if k != i)
            terms.append(-(similar[i, j].exp() / others).log())
        assert network.loss(first, second).item() == pytest.approx(
            torch.stack(terms).mean().item(), rel=1e-5
        )


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "features"
    train_network(prepare, str(folder), output, steps=60, batch_size=32, size=32,
                         device="cpu", command="test", progress=False)  # fmt: skip
    return output


def test_after_training_views_find_each_other_better_than_before(folder, trained, tmp_path):
    train_network(prepare, str(folder), tmp_path / "new", steps=10, batch_size=2, size=32,
                         device="cpu", command="test", progress=False)  # fmt: skip
    name = "R@1 of another view of the same picture among 40, val"
    cards = [json.loads(path.with_suffix(".json").read_text())
             for path in (trained, tmp_path / "new")]  # fmt: skip
    assert cards[0]["metrics"][name] > 2 / 40
    assert cards[0]["metrics"]["loss at the end"] < np.log(63)  # of chance
    assert cards[0]["data"] == folder.name and cards[0]["license"] == "as the training data allow"


def test_the_loaded_network_names_itself_and_is_an_extractor_for_photos(folder, trained):
    network = load_photo_features(trained, "cpu")
    assert "without labels" in network.name and folder.name in network.name
    images = data.pack(folder, "val", 32, progress=False).images
    features = picture_features.extract_features(network, images)
    assert features.shape == (40, 64)
    few = picture_features.extract_features(network, images[:3])
    np.testing.assert_allclose(few, features[:3], atol=1e-4)
    with pytest.raises(ValueError, match="3 x 32 x 32"):
        network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    held = held_out.open_held_out(folder, size=32)
    found = protocol.load_networks(held, extractor=str(trained), device="cpu")
    assert found.extractor.fingerprint == network.fingerprint and found.matcher is None


def test_it_is_no_matcher(folder, trained):
    held = held_out.open_held_out(folder, size=32)
    with pytest.raises(ValueError, match=f"unknown model '{NAME}'"):
        protocol.load_networks(held, matcher=str(trained), device="cpu")
