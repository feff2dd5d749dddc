import numpy as np
import pytest
import torch

from t2i_course import data
from t2i_course.metrics.networks import PictureNetwork, fit
from t2i_course.scenes import drawing


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = drawing.make_scenes(
        tmp_path_factory.mktemp("networks") / "scenes", train=40, val=8, test=4, progress=False
    )
    return data.pack(folder, "train", 64, progress=False)


def test_pictures_become_features_that_know_the_place_of_things():
    torch.manual_seed(0)
    network = PictureNetwork(12).eval()
    images = torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    images[0, :, 4:12, 4:12] = 0
    images[1, :, 4:12, 52:60] = 0
    features = network.read(images)
    assert features.shape == (2, 12)
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    assert torch.allclose(features[1:], network.read(images[1:]), atol=1e-5)  # in any batch


def test_sides_that_cannot_be_halved_and_pictures_of_another_side_are_refused():
    with pytest.raises(ValueError, match="50 pixels"):
        PictureNetwork(12, 50)
    with pytest.raises(ValueError, match="64 x 64 values, not of 3 x 32 x 32"):
        PictureNetwork(12).read(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_fitting_lowers_the_loss_and_the_same_seed_gives_the_same_weights(packed):
    brightness = torch.tensor(packed.images[:].mean(axis=(1, 2, 3)) / 255.0)  # [N]

    def run(seed):
        torch.manual_seed(seed)
        network = PictureNetwork(1)

        def loss(batch):
            found = network(batch.images).float()[:, 0]
            return (found - brightness[batch.image_rows].float()).square().mean()

        losses = fit(network, loss, packed, 30, 16, 3e-3, seed, torch.device("cpu"), False)
        assert not network.training
        return losses, network.features.weight

    losses, weights = run(0)
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    again, same = run(0)
    assert losses == again and torch.equal(weights, same)
    other, _ = run(1)
    assert other != losses


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(packed):
    network = PictureNetwork(1)

    def loss(batch):
        return network(batch.images).float().mean() * float("nan")

    with pytest.raises(FloatingPointError, match="nan at step 1"):
        fit(network, loss, packed, 5, 8, 1e-3, 0, torch.device("cpu"), False)
