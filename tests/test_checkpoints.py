"""Weights and their cards come back as they were, or are refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from t2i_course import checkpoints
from t2i_course.image_decoder import ResidualDecoder


@pytest.fixture
def generator() -> ResidualDecoder:
    return ResidualDecoder(text_dim=12, noise_dim=4, image_size=16, width=16)


def example_card(**changes) -> dict:
    card = {
        "encoder": {"name": "caption-bert", "fingerprint": "0" * 16, "pooling": "mean"},
        "data": "scenes", "command": "python -m t2i_course train", "steps": 12, "seconds": 1.5,
        "hardware": "2 cores", "metrics": {"validation loss": 0.05}, "license": "Apache-2.0",
    }  # fmt: skip
    return card | changes


@pytest.fixture
def saved(generator, tmp_path) -> Path:
    file = checkpoints.save_weights(tmp_path / "model-0.5", generator, example_card())
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "model-0.5.json",
        "model-0.5.safetensors",
    ]
    return file


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".json"])
def test_saved_weights_draw_the_same_pictures_again(saved, generator, suffix):
    loaded, card = checkpoints.load_generator(saved.with_suffix(suffix))
    text, noise = torch.randn(2, 12), torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(loaded(text, noise), generator.eval()(text, noise))
    assert (card["model"], card["steps"]) == ("residual", 12)
    assert not loaded.training


def test_a_name_stands_for_a_file_in_the_checkpoints_folder(generator, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    checkpoints.save_weights("small", generator, example_card())
    assert (tmp_path / "checkpoints" / "small.safetensors").is_file()
    assert checkpoints.load_generator("small")[0].config == generator.config
    with pytest.raises(FileNotFoundError, match="there are small in that folder"):
        checkpoints.load_generator("large")


def test_weights_cut_short_or_changed_are_refused(saved):
    whole = saved.read_bytes()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (whole[:1000], b"", changed):
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match="cut short or changed"):
            checkpoints.load_generator(saved)


def test_weights_without_a_card_are_refused(saved):
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model card .*model-0.5.json is missing"):
        checkpoints.load_generator(saved)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"model": "residual"', '"model": "stylegan"', "unknown model 'stylegan'"),
        ('"model": "residual"', '"model": "article"', "does not fit the model"),
        ('"text_dim": 12', '"text_dim": 13', "does not fit the model"),
        ('"width": 16', '"depth": 16', "does not fit the model"),
        ('"license"', '"licence"', "lacks license"),
        ('"pooling"', '"pool"', "encoder needs name, fingerprint and pooling"),
        ("{", "[", "is not a model card"),
    ],
)
def test_a_card_of_another_model_is_refused(saved, old, new, message):
    card = saved.with_suffix(".json")
    text = card.read_text(encoding="utf-8")
    assert old in text
    card.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        checkpoints.load_generator(saved)


def test_an_incomplete_card_is_not_written(generator, tmp_path):
    card = example_card()
    del card["command"]
    with pytest.raises(ValueError, match="lacks command"):
        checkpoints.save_weights(tmp_path / "model", generator, card)
    assert not list(tmp_path.iterdir())


def test_random_state_comes_back_in_every_generator():
    def draws() -> list[float]:
        return [random.random(), np.random.rand(), np.random.randn(), torch.rand(()).item()]

    np.random.randn()  # leaves half a pair of normal numbers behind
    state = checkpoints.random_state(torch.device("cpu"))
    first = draws()
    checkpoints.set_random_state(state, torch.device("cpu"))
    assert draws() == first
