import json

import numpy as np
import pytest
import torch

from t2i_course import data
from t2i_course.evaluation import retrieval
from t2i_course.latent_space import SharedSpace
from t2i_course.metrics.caption_matcher import load_caption_matcher, matched_text, prepare
from t2i_course.metrics.networks import train_network
from t2i_course.scenes import drawing
from t2i_course.text_cache import embed_captions
from t2i_course.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("caption_matcher") / "scenes"
    return drawing.make_scenes(place, train=48, val=12, test=4, progress=False)


def test_features_have_length_one_and_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    matcher = SharedSpace(8).eval()
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 64, 64), dtype=np.uint8)
    found = matcher.embed_images(images)
    assert found.dtype == np.float32 and found.shape == (7, 128)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(found[3], matcher.embed_images(images[3:4])[0], atol=1e-5)
    text = matcher.embed_text(np.random.default_rng(1).normal(size=(5, 8)))
    assert text.shape == (5, 128) and np.allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["scenes", "photos"])
def test_photos_are_cut_and_scenes_are_not(folder, as_photos, tmp_path, monkeypatch, kind):
    place = folder if kind == "scenes" else as_photos(folder, tmp_path / "photos")
    seen = []
    loss = SharedSpace.loss

    def watched(network, images, text):
        seen.append(images.clone())
        return loss(network, images, text)

    monkeypatch.setattr(SharedSpace, "loss", watched)
    train_network(
        prepare, str(place), tmp_path / "few", steps=4, batch_size=48, device="cpu",
        encoder=TextEncoder(device="cpu"), progress=False,
    )  # fmt: skip
    packed = data.to_float(torch.from_numpy(np.array(data.pack(place, "train", 64).images)))
    whole = torch.stack([(packed == image).flatten(1).all(1).any() for image in torch.cat(seen)])
    assert whole.all() if kind == "scenes" else not whole.any()


def test_training_finds_the_captions_of_training_pictures(folder, tmp_path):
    encoder = TextEncoder(device="cpu")
    file = train_network(
        prepare, str(folder), tmp_path / "few", steps=60, batch_size=32, device="cpu",
        encoder=encoder, progress=False, command="test",
    )  # fmt: skip
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["data"] == "scenes" and card["license"] == "Apache-2.0"
    assert "R@1 of real pictures among 12 captions, val" in card["metrics"]
    matcher = load_caption_matcher(tmp_path / "few", "cpu")
    assert matcher.encoder["name"] == "caption-bert" and card["sha256"][:16] == matcher.fingerprint
    packed = data.pack(folder, "train", 64, progress=False)
    text = embed_captions(encoder, [packed.all_captions[i] for i in packed.caption_starts[:-1]])
    found = retrieval(matcher.embed_images(packed.images), matcher.embed_text(text), 40)
    assert found["R@5"].value > 0.3  # chance is 5 in 40


def test_captions_reach_the_matchers_space_through_its_own_encoder(tiny_bert):
    torch.manual_seed(0)
    matcher, encoder = SharedSpace(32, width=16).eval(), TextEncoder(tiny_bert)
    matcher.encoder = {"name": str(tiny_bert), "fingerprint": encoder.fingerprint,
                       "pooling": "mean"}  # fmt: skip
    captions = ["a red circle", "two small blue stars", "a red circle"]
    found = matched_text(matcher, captions)
    with torch.no_grad():
        expected = matcher.embed_text(encoder(captions).sentence)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    matcher.encoder = matcher.encoder | {"fingerprint": "f" * 16}
    with pytest.raises(ValueError, match="reads by another encoder"):
        matched_text(matcher, captions)
