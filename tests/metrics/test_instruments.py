"""Which networks an evaluation gets, from real small ones on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2i_course import checkpoints
from t2i_course.metrics.caption_matcher import CaptionMatcher
from t2i_course.metrics.held_out import open_held_out
from t2i_course.metrics.instruments import load_instruments, matched_text
from t2i_course.metrics.picture_network import NO_ENCODER
from t2i_course.metrics.scene_features import SceneFeatures
from t2i_course.text_encoder import TextEncoder

CARD = {
    "data": "scenes", "command": "none", "steps": 0, "seconds": 0, "hardware": "none",
    "metrics": {}, "license": "Apache-2.0",
}  # fmt: skip


@pytest.fixture
def home(tmp_path, tiny_bert, monkeypatch):
    """A data folder with both networks under their names, and one more of each."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    encoder = TextEncoder(tiny_bert)
    named = {"name": str(tiny_bert), "fingerprint": encoder.fingerprint, "pooling": "mean"}
    for seed, prefix in enumerate(("", "my-")):
        torch.manual_seed(seed)
        save = checkpoints.save_weights
        save(f"{prefix}scene-features", SceneFeatures(8), CARD | {"encoder": NO_ENCODER})
        save(f"{prefix}caption-matcher", CaptionMatcher(32, width=16), CARD | {"encoder": named})
    return tmp_path


def test_scenes_get_the_courses_networks_or_those_named(home, small_scenes):
    held = open_held_out(small_scenes)
    usual = load_instruments(held, device="cpu")
    named = load_instruments(held, "my-scene-features", "my-caption-matcher", device="cpu")
    assert usual.extractor.width == 8 and usual.inception is None
    assert usual.extractor.fingerprint != named.extractor.fingerprint
    assert usual.matcher.fingerprint != named.matcher.fingerprint


def test_photos_get_no_network_that_learnt_from_scenes_unless_it_is_named(home, photos):
    held = open_held_out(photos)
    with pytest.raises(ValueError, match="nothing to measure photos with"):
        load_instruments(held, device="cpu")
    found = load_instruments(held, matcher="my-caption-matcher", device="cpu")
    assert found.extractor is None and found.matcher is not None


def test_missing_weights_are_named(home, small_scenes):
    held = open_held_out(small_scenes)
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        load_instruments(held, extractor="nothing", device="cpu")
    with pytest.raises(FileNotFoundError, match="no Inception weights at none.pth"):
        load_instruments(held, inception_weights="none.pth", device="cpu")


def test_captions_reach_the_matchers_space_through_its_own_encoder(home, small_scenes, tiny_bert):
    matcher = load_instruments(open_held_out(small_scenes), device="cpu").matcher
    captions = ["a red circle", "two small blue stars", "a red circle"]
    found = matched_text(matcher, captions)
    with torch.no_grad():
        expected = matcher.embed_text(TextEncoder(tiny_bert)(captions).sentence)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[0] == found[2]).all()
    matcher.encoder = matcher.encoder | {"fingerprint": "f" * 16}
    with pytest.raises(ValueError, match="reads by another encoder"):
        matched_text(matcher, captions)
