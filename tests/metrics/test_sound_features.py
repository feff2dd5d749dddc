"""The features of FD-sounds: they learn from true sounds, and sounds of other balls are far."""

import numpy as np
import torch

from t2i_course.__main__ import main
from t2i_course.evaluation import frechet
from t2i_course.metrics import sound_features
from t2i_course.scenes.bouncing_balls import Ball, Clip, draw_clip, synthesise


def test_labels_count_the_impacts_of_a_clip():
    ball = Ball("wood", 0.1, 0.5, 0.0, height=0.5, speed=0.0)  # the smallest: first class of size
    labels = sound_features.read_labels([Clip((ball,), seconds=1.0)])
    count = labels["kinds"].sum()
    assert count > 1 and labels["kinds"][0, 1] == count and labels["pitches"][0, 0] == count
    assert labels["windows"].sum() == count  # no two within a tenth of a second


def test_training_writes_a_network_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_features, "CLIPS", 64)
    monkeypatch.setenv("T2I_DEVICE", "cpu")
    command = ["train-sound", "sound-features", "--steps", "10", "--output", str(tmp_path / "ears")]
    assert main(command) == 0
    network = sound_features.load_sound_features(tmp_path / "ears")
    assert not network.training
    features = sound_features.features_of(
        network, [synthesise(draw_clip(np.random.default_rng(1)))]
    )
    assert features.shape == (1, sound_features.WIDTH) and np.isfinite(features).all()


def test_features_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    network = sound_features.SoundFeatures().eval()
    sounds = [synthesise(draw_clip(np.random.default_rng(seed))) for seed in range(3)]
    together = sound_features.features_of(network, sounds)
    np.testing.assert_allclose(
        together[1:2], sound_features.features_of(network, sounds[1:2]), atol=1e-5
    )


def test_shipped_features_tell_true_sounds_from_silence():
    network = sound_features.load_sound_features()
    rng = np.random.default_rng(0)
    sounds = [synthesise(draw_clip(rng)) for _ in range(2 * 80)]
    true, other = (sound_features.features_of(network, part) for part in (sounds[:80], sounds[80:]))
    quiet = sound_features.features_of(
        network, [np.random.default_rng(n).normal(0, 1e-3, 16000).astype("f4") for n in range(80)]
    )
    near, far = (frechet(true, features, repeats=0).value for features in (other, quiet))
    assert far > 3 * near
