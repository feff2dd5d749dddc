import json
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from t2i_course import data, latent_space
from t2i_course.latent_space import (
    ConditioningAugmentation,
    PictureVae,
    info_nce,
    kl_to_standard_normal,
    reparameterise,
    retrieval_both_ways,
)
from t2i_course.metrics.networks import train_network
from t2i_course.scenes import drawing
from t2i_course.scenes.mismatched_captions import scenes_truth
from t2i_course.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("latent_space") / "scenes"
    return drawing.make_scenes(place, train=48, val=20, test=4, progress=False)


def unit(*shape):
    generator = torch.Generator().manual_seed(0)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=1)


# InfoNCE


def test_features_that_say_nothing_cost_the_log_of_the_candidates():
    same = unit(1, 16).expand(32, -1)
    assert info_nce(same, same, 10.0).item() == pytest.approx(math.log(32), rel=1e-5)
    wide = info_nce(unit(256, 4096), unit(512, 4096)[256:], 1.0)  # random: all but orthogonal
    assert wide.item() == pytest.approx(math.log(256), abs=0.01)


def test_info_nce_is_the_logarithm_of_a_small_batch_where_nothing_is_known():
    same = torch.ones(5, 4) / 2
    assert info_nce(same, same, 1.0).item() == pytest.approx(math.log(5))
    assert info_nce(torch.eye(5), torch.eye(5), 100.0) < 1e-6


def test_aligned_and_orthogonal_features_have_the_loss_of_a_closed_form():
    aligned = torch.eye(8)
    for scale in (0.0, 2.0, 100.0):
        expected = math.log(math.exp(scale) + 7) - scale
        assert info_nce(aligned, aligned, scale).item() == pytest.approx(expected, abs=1e-5)


def test_captions_of_no_picture_are_negatives_in_one_direction_only():
    aligned = torch.eye(8)
    found = info_nce(aligned[:3], aligned, 1.0).item()  # five captions more
    by_picture = math.log(math.e + 7) - 1
    by_caption = math.log(math.e + 2) - 1
    assert found == pytest.approx((by_picture + by_caption) / 2, abs=1e-6)


def test_true_captions_of_other_pictures_neither_cost_nor_push():
    pictures, captions = unit(6, 8).requires_grad_(), unit(9, 8)
    true = torch.eye(9, 6, dtype=torch.bool)
    true[4, 1] = true[8, 1] = True
    moved = captions.clone()
    moved[8] = -captions[8]  # only picture 1 may look away from it
    others = torch.ones(6, dtype=torch.bool)
    others[1] = False
    for rows, expected in ((captions, True), (moved, False)):
        (gradient,) = torch.autograd.grad(info_nce(pictures, rows, 5.0, true), pictures)
        if expected:
            first = gradient
    assert torch.allclose(first[1], gradient[1], atol=1e-7)
    assert not torch.allclose(first[others], gradient[others], atol=1e-4)
    own = torch.eye(9, 6, dtype=torch.bool)  # a caption is no negative of its own picture anyway
    assert torch.equal(info_nce(pictures, captions, 5.0, own), info_nce(pictures, captions, 5.0))


def test_retrieval_counts_equally_true_captions_and_says_what_chance_gets():
    similarity = np.array(
        [[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.95, 0.2, 0.1]]
    )  # captions, pictures
    true = np.eye(3, dtype=bool)
    found = retrieval_both_ways(similarity, true)
    assert found["captions for a picture"].value == pytest.approx(1 / 3)  # 2, 1, 0: the second
    assert found["pictures for a caption"].value == pytest.approx(1 / 3)  # always picture 0
    true[2, 0] = true[1, 0] = True
    found = retrieval_both_ways(similarity, true)
    assert found["captions for a picture"].value == pytest.approx(2 / 3)
    assert found["pictures for a caption"].value == 1
    assert found["chance"].value == pytest.approx(5 / 9)
    assert found["pictures for a caption"].low < 1


def test_truth_of_held_out_pairs_is_that_of_the_facts(folder):
    val = data.pack(folder, "val", 64, progress=False)
    pictures, captions, true = latent_space.held_out_pairs(folder, val, most=12)
    is_true = scenes_truth(folder, "val", val)
    assert len(pictures) == len(captions) == 12 and (val.images_of(captions) == pictures).all()
    assert true.diagonal().all()
    assert true.tolist() == [[is_true(int(c), int(p)) for p in pictures] for c in captions]


def test_hard_negatives_are_false_and_name_no_unseen_pair(folder):
    train = data.pack(folder, "train", 64, progress=False)
    rows = np.arange(len(train.all_captions))
    captions, facts = latent_space.hard_negatives(folder, "train", rows)
    assert len(captions) == len(facts) == len(rows)
    shown = drawing.read_instances(folder, "train")
    own = [shown[i] for i in train.image_ids[train.images_of(np.arange(len(facts)))].tolist()]
    table = latent_space.TruthTable(facts, own)
    assert not table(rows, rows).diagonal().any()
    pairs = {(t.get("shape"), t.get("color")) for stated in facts for t in stated["objects"]}
    assert not pairs & drawing.UNSEEN_PAIRS


@pytest.mark.parametrize("kind", ["scenes", "photos"])
def test_trained_space_comes_from_its_file_as_it_was_measured(folder, as_photos, tmp_path, kind):
    place = folder if kind == "scenes" else as_photos(folder, tmp_path / "photos")
    file = train_network(
        latent_space.prepare, str(place), tmp_path / "few", steps=40, batch_size=24, device="cpu",
        encoder=TextEncoder("caption-bert", device="cpu"), progress=False,
    )  # fmt: skip
    card = json.loads(file.with_suffix(".json").read_text())
    space = latent_space.load_shared_space(tmp_path / "few", "cpu")
    assert space.encoder["name"] == "caption-bert" and file.stat().st_size < 1_600_000
    found = {name: v for name, v in card["metrics"].items() if name.startswith("R@1")}
    assert len(found) == 3 and all(0 <= value <= 1 for value in found.values())
    assert card["metrics"]["loss at the end"] < (math.log(24) + math.log(48)) / 2  # it has learnt
    images = data.pack(place, "val", 64, progress=False).images
    assert np.allclose(np.linalg.norm(space.embed_images(images), axis=1), 1, atol=1e-5)


# The autoencoder


def test_kl_is_that_of_known_gaussians():
    mean, deviation = torch.tensor([0.0, 1.0, -2.0, 0.3]), torch.tensor([1.0, 0.5, 2.0, 0.01])
    found = kl_to_standard_normal(mean, 2 * deviation.log())
    expected = kl_divergence(Normal(mean, deviation), Normal(torch.zeros(4), torch.ones(4)))
    assert torch.allclose(found, expected, atol=1e-6) and found[0] == 0
    assert found[1].item() == pytest.approx((1 + 0.25 - 1 - math.log(0.25)) / 2)


def test_drawn_values_have_the_moments_and_gradients_of_their_gaussian():
    mean = torch.tensor([2.0], requires_grad=True)
    log_variance = torch.tensor([math.log(0.25)], requires_grad=True)
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    z = reparameterise(mean, log_variance, noise)
    assert z.mean().item() == pytest.approx(2, abs=0.01)
    assert z.std().item() == pytest.approx(0.5, abs=0.01)
    z.square().mean().backward()  # E[z^2] = mu^2 + sigma^2
    assert mean.grad.item() == pytest.approx(4, abs=0.02)
    assert log_variance.grad.item() == pytest.approx(0.25, abs=0.01)


def test_loss_of_the_autoencoder_is_error_and_weighted_kl():
    torch.manual_seed(0)
    vae, images = PictureVae(16, latent=6, width=8), torch.rand(5, 3, 16, 16) * 2 - 1
    noise = torch.randn(5, 6)
    with torch.no_grad():
        mean, log_variance = vae.encode(images)
        drawn = vae.decode(mean + (log_variance / 2).exp() * noise)
        error, kl = vae.loss(images, noise, beta=3.0)
        floor = vae.loss(images, noise, beta=3.0, free_nats=100.0)[1]
    normal = Normal(drawn, 1.0).log_prob(images).sum(dim=(1, 2, 3)).mean()
    constant = -images[0].numel() * math.log(2 * math.pi) / 2
    assert error.item() == pytest.approx((constant - normal).item(), rel=1e-4)
    each = kl_to_standard_normal(mean, log_variance)
    assert kl.item() == pytest.approx(3 * each.sum(dim=1).mean().item(), rel=1e-5)
    assert floor.item() == pytest.approx(3 * 6 * 100)
    assert vae.sample(noise).shape == images.shape and vae.sample(noise).abs().max() <= 1


@pytest.mark.parametrize("size", [8, 16, 64])
def test_autoencoder_gives_pictures_of_the_side_that_it_takes(size):
    vae = PictureVae(size, latent=4, width=8)
    assert vae.reconstruct(torch.zeros(2, 3, size, size)).shape == (2, 3, size, size)


def test_autoencoder_of_a_side_that_cannot_be_halved_is_refused():
    for size, width in ((48, 8), (4, 8), (64, 12)):
        with pytest.raises(ValueError, match="choose 8, 16"):
            PictureVae(size, width=width)


def test_autoencoder_learns_to_rebuild_and_collapses_where_nats_are_dear(folder):
    packed = data.PackedPart(data.pack(folder, "train", 64, progress=False), range(48), size=16)
    images = data.to_float(torch.from_numpy(packed.images))

    def trained(beta):
        torch.manual_seed(0)
        vae = PictureVae(16, latent=8, width=8)
        optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
        for _ in range(150):
            loss = sum(vae.loss(images, torch.randn(48, 8), beta))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            kl = kl_to_standard_normal(*vae.encode(images)).sum(dim=1).mean().item()
        return (vae.reconstruct(images) - images).square().mean().item(), kl

    (error, kl), (worse, none) = trained(1.0), trained(3000.0)
    assert error < 0.5 * worse and none < 0.2 < 2 < kl


def test_free_nats_cost_nothing_and_push_nothing():
    torch.manual_seed(0)
    vae, images, noise = PictureVae(16, 6, width=8), torch.rand(5, 3, 16, 16), torch.zeros(5, 6)
    for free_nats, pushed in ((0.0, True), (100.0, False)):
        kl = vae.loss(images, noise, beta=2.0, free_nats=free_nats)[1]
        gradients = torch.autograd.grad(kl, list(vae.encoder.parameters()))
        assert any(gradient.abs().sum() > 0 for gradient in gradients) == pushed


def test_conditioning_augmentation_draws_around_its_mean_and_says_its_kl():
    torch.manual_seed(0)
    augmentation, text = ConditioningAugmentation(8, 5), torch.randn(3, 8)
    with torch.no_grad():
        centre, kl = augmentation(text, torch.zeros(3, 5))
        mean, log_variance = augmentation.parameters_of(text).chunk(2, dim=1)
        moved, same = augmentation(text, torch.ones(3, 5))
    assert torch.equal(centre, mean) and torch.equal(kl, same) and kl.shape == (3,)
    assert torch.allclose(moved - centre, (log_variance / 2).exp(), atol=1e-6)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    assert torch.allclose(kl, expected, atol=1e-5)
