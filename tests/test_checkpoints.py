"""Weights and their cards, and the state of a run, come back as they were, or are refused."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_run as runs
import torch
from small_run import SHORT, SmallRun, interrupt_at, new_generator, same_weights
from torch import nn

from t2i_course import checkpoints
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.processes import STOPS
from t2i_course.training import STATE_FILE, MeanSquaredError


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
    files = sorted(f.name for f in tmp_path.iterdir())
    assert files == ["model-0.5.json", "model-0.5.safetensors"]
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


def test_weights_cut_short_or_changed_or_without_a_card_are_refused(saved):
    whole = saved.read_bytes()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (whole[:1000], b"", changed):
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match="cut short or changed"):
            checkpoints.load_generator(saved)
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


# Stopped and resumed


@pytest.mark.parametrize(
    ("step", "number"),
    [(0, signal.SIGINT), (10, signal.SIGTERM)]
    + [(5, getattr(signal, name)) for name in STOPS if hasattr(signal, name)],
)
def test_a_stopped_run_finishes_its_step_and_resumes_to_the_same_weights(
    small_run, uninterrupted, tmp_path, step, number
):
    config = replace(SHORT, draw_every=5)
    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    handlers = [signal.getsignal(n) for n in numbers]
    with pytest.raises(KeyboardInterrupt, match=f"step {step + 1}, saved in .*{STATE_FILE}"):
        draw = interrupt_at(step, number)
        small_run.train(new_generator(), config, run_folder=tmp_path, draw=draw)
    assert [signal.getsignal(n) for n in numbers] == handlers
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == step + 1
    generator = new_generator()
    history = small_run.train(generator, config, run_folder=tmp_path, resume=True)
    assert same_weights(generator, uninterrupted[0])
    expected = uninterrupted[1]
    assert (history.steps, history.losses) == (expected.steps, expected.losses)
    assert history.validation_losses == expected.validation_losses
    assert history.learning_rates == expected.learning_rates


def test_resume_continues_the_global_generators_too(small_run, tmp_path):
    class Jittered(MeanSquaredError):  # noqa: N818 (an objective, not an exception)
        """Draws from each global generator, as augmentation does."""

        def step(self, batch, update):
            shift = torch.rand(()) + np.random.rand() + random.random()
            images = self.modules["generator"](batch.text, batch.noise)
            loss = (images - batch.images + 0.1 * shift).square().mean()
            update("generator", loss)
            return {"mse": loss.detach()}

    def run(**options) -> nn.Module:
        objective = Jittered(new_generator(), SHORT)
        small_run.train(None, objective=objective, **options)
        return objective.modules["generator"]

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(run_folder=tmp_path, draw=interrupt_at(0))
    assert same_weights(run(run_folder=tmp_path, resume=True), whole)


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    small_scenes, packed_cache, small_run, tmp_path
):
    config = replace(SHORT, steps=120, checkpoint_every=10)
    whole = new_generator()
    small_run.train(whole, config)
    file = tmp_path / STATE_FILE
    command = [sys.executable, runs.__file__, str(small_scenes), str(packed_cache), str(tmp_path)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not file.exists():
        assert process.poll() is None, "it saved nothing"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    process.kill()
    process.wait()
    assert 0 < torch.load(file, weights_only=True)["step"] <= 120
    resumed = new_generator()
    small_run.train(resumed, config, run_folder=tmp_path, resume=True)
    assert same_weights(resumed, whole)


def test_ctrl_c_while_a_checkpoint_is_written_keeps_the_last(small_run, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def interrupted_save(state, path) -> None:
        calls.append(path)
        save(state, path)
        if len(calls) == 2:  # twice: the second Ctrl-C does not wait for the end of the step
            Path(path).write_bytes(b"half a checkpoint")
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch, "save", interrupted_save)
    with pytest.raises(KeyboardInterrupt, match="the checkpoint before is whole"):
        small_run.train(new_generator(), run_folder=tmp_path)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 4
    assert [file.name for file in tmp_path.iterdir()] == [STATE_FILE]


def test_a_full_disk_is_reported_and_keeps_the_checkpoint_before(small_run, tmp_path, monkeypatch):
    save = torch.save

    def full(state, path) -> None:
        if state["step"] > 4:
            raise RuntimeError("PytorchStreamWriter failed writing file: no space left")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="free some space"):
        small_run.train(new_generator(), run_folder=tmp_path)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 4


def test_a_run_of_constant_rate_can_be_made_longer(small_run, tmp_path):
    config = replace(SHORT, schedule="constant")
    whole, longer = new_generator(), new_generator()
    small_run.train(whole, config)
    small_run.train(new_generator(), replace(config, steps=6), run_folder=tmp_path)
    small_run.train(longer, config, run_folder=tmp_path, resume=True)
    assert same_weights(whole, longer)


@pytest.fixture(scope="module")
def finished(small_run, tmp_path_factory) -> Path:
    """A run that was asked to go on, and began, as there was none."""
    folder = tmp_path_factory.mktemp("run")
    small_run.train(new_generator(), run_folder=folder, resume=True)
    return folder


def test_a_finished_run_is_resumed_without_a_step_and_not_overwritten(
    small_run, finished, uninterrupted
):
    generator = new_generator()
    history = small_run.train(generator, run_folder=finished, resume=True)
    assert history.losses == uninterrupted[1].losses
    assert same_weights(generator, uninterrupted[0])
    with pytest.raises(FileExistsError, match="resume it, or remove it"):
        small_run.train(new_generator(), run_folder=finished)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"learning_rate": 1e-3}, {}, "learning_rate was 0.003 and is 0.001"),
        ({"steps": 13}, {}, "steps was 12 and is 13"),
        ({}, {"encoder": "another"}, "encoder was 'made up' and is 'another'"),
    ],
)
def test_resume_with_other_numbers_is_refused(small_run, finished, change, options, message):
    with pytest.raises(ValueError, match=message):
        config = replace(SHORT, **change)
        small_run.train(new_generator(), config, run_folder=finished, resume=True, **options)


def test_resume_with_another_network_or_other_data_is_refused(
    small_run, finished, small_scenes, packed_cache
):
    with pytest.raises(ValueError, match="noise_dim"):
        small_run.train(new_generator(noise_dim=5), run_folder=finished, resume=True)
    other = SmallRun(small_scenes, packed_cache)
    other.splits = {"train": small_run.splits["val"], "val": small_run.splits["val"]}
    other.text = {"train": small_run.text["val"], "val": small_run.text["val"]}
    with pytest.raises(ValueError, match="training data was 'train-16px"):
        other.train(new_generator(), run_folder=finished, resume=True)


@pytest.mark.parametrize("content", ["cut", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_refused(small_run, finished, tmp_path, content):
    whole = (finished / STATE_FILE).read_bytes()
    file = tmp_path / STATE_FILE
    if content == "other":
        torch.save({"weights": torch.zeros(3)}, file)
    else:
        file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[content])
    with pytest.raises(ValueError, match="no training state, or it is cut short"):
        small_run.train(new_generator(), run_folder=tmp_path, resume=True)
