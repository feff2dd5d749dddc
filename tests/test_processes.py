"""Several processes train as one does; they are real ones, joined by gloo on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from t2i_course import data, processes, report
from t2i_course.report import LOG_FILE, read_lines

CHECKOUT = Path(__file__).resolve().parents[1]
TRAIN = ("train.py", "train", "--data", "photos", "--encoder", "encoder", "--size", "32",
         "--steps", "8", "--batch-size", "8", "--precision", "float32", "--device", "cpu",
         "--checkpoint-every", "3")  # fmt: skip
# Adam divides a gradient by its size: rounding of one near 0 becomes a whole step. Plain descent
# moves by the gradient, and shows whether the processes add theirs up.
PROGRAM = """
import sys
import torch

class Descent(torch.optim.SGD):
    def __init__(self, weights, lr, **_):
        super().__init__(weights, lr=0.05)

torch.optim.Adam = torch.optim.AdamW = Descent
from t2i_course.__main__ import main

sys.exit(main())
"""
GAN = ("--model", "gan", "--width", "4", "--penalty-every", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_scenes, as_photos, tiny_bert) -> Path:
    """A folder with photos, an encoder, and a place for what is made of them."""
    folder = tmp_path_factory.mktemp("several")
    as_photos(small_scenes, folder / "photos")
    shutil.copytree(tiny_bert, folder / "encoder")
    (folder / "train.py").write_text(PROGRAM)
    (folder / "data" / "checkpoints").mkdir(parents=True)
    (folder / "data" / "results").mkdir()
    return folder


def start(home: Path, arguments: tuple[str, ...], number: int = 1, **environment: str):
    """Start `number` processes of a command, by torchrun if there are several."""
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number))
    command = [sys.executable, *(several if number > 1 else ()), *arguments]
    known = {"T2I_HOME": str(home / "data"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    known |= {"ACCELERATE_USE_CPU": "true"} if number > 1 else {}
    return subprocess.Popen(
        command, cwd=home, env=os.environ | known | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def run(home: Path, arguments: tuple[str, ...], number: int = 1, **environment: str) -> str:
    """Run a command to its end; return what it said."""
    process = start(home, arguments, number, **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def weights_of(home: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(home / "data" / "checkpoints" / f"{name}.safetensors")


def losses_of(home: Path, name: str) -> dict[str, list[float]]:
    file = home / "data" / "runs" / name / "training_state.pt"
    return torch.load(file, weights_only=True)["history"]["losses"]


def assert_same_run(home: Path, one: str, other: str) -> None:
    """Weights and losses of two runs are equal within rounding, and moved at all."""
    expected, found = weights_of(home, one), weights_of(home, other)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-6, msg=name)
    expected, found = losses_of(home, one), losses_of(home, other)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        assert len(values) == 8 and len(set(values)) > 1
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(home) -> str:
    """A run of a GAN by one process."""
    assert "processes: 1;" in run(home, (*TRAIN, *GAN, "--output", "alone"))
    return "alone"


def test_two_processes_train_what_one_does(home, alone):
    said = run(home, (*TRAIN, *GAN, "--output", "two"), 2)
    assert said.count("processes: 2;") == 1  # one speaks for both
    assert_same_run(home, alone, "two")
    cards = [home / "data" / "checkpoints" / f"{name}.json" for name in ("alone", "two")]
    assert [json.loads(card.read_text())["processes"] for card in cards] == [1, 2]


def test_a_killed_run_of_two_processes_goes_on_with_one(home, alone):
    arguments = (*TRAIN, *GAN, "--output", "killed")
    state = home / "data" / "runs" / "killed" / "training_state.pt"
    process = start(home, arguments, 2)
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # both, and torchrun, as a power cut would
    process.communicate()
    assert 0 < torch.load(state, weights_only=True)["step"] <= 8
    run(home, (*arguments, "--resume"))
    assert_same_run(home, alone, "killed")


def test_a_process_that_is_told_of_another_and_finds_none_stops(home):
    process = start(home, (*TRAIN, "--output", "lost"), WORLD_SIZE="2")  # and no address
    _, err = process.communicate()
    assert process.returncode == 2
    assert "MASTER_ADDR" in err
    assert not (home / "data" / "checkpoints" / "lost.safetensors").exists()


def test_evaluation_is_shared_and_logged_once_and_the_ledger_has_a_row_a_number(home):
    shared = home / "data" / "checkpoints"
    for file in (CHECKOUT / "data" / "checkpoints").glob("scene-features.*"):
        shutil.copy(file, shared)
    more = ("--evaluate-every", "4", "--evaluate-samples", "150", "--extractor", "scene-features",
            "--tensorboard", "--ledger", "shared", "--size", "64")  # fmt: skip
    found = {}
    for number in (1, 2):
        name = f"judged-{number}"
        run(home, (*TRAIN, *GAN, "--steps", "4", *more, "--output", name), number)
        found[number] = read_lines(home / "data" / "runs" / name / LOG_FILE)
        assert [line["step"] for line in found[number]] == [4]
        rows = json.loads((home / "data" / "results" / "shared.json").read_text())
        assert len({row["id"] for row in rows}) == len(rows) > 5
        assert {row["id"] for row in rows} >= {
            "shared-train-discriminator", "shared-train-images-a-second",
            "shared-train-share-of-the-time-spent-waiting-for-data",
        }  # fmt: skip
        for row in rows:
            report.Row(**row)
    for metric, values in found[1][0]["metrics"].items():
        assert found[2][0]["metrics"][metric]["value"] == pytest.approx(values["value"], rel=1e-3)


def test_tensorboard_has_each_step_once_after_a_resume(home):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = (*TRAIN, "--tensorboard", "--output", "curves", "--steps", "3000")
    folder = home / "data" / "runs" / "curves"
    process = start(home, (*arguments, "--checkpoint-every", "20"))
    while not (folder / "training_state.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # some steps after those that are saved
    process.communicate()
    saved = torch.load(folder / "training_state.pt", weights_only=True)["step"]
    again = start(home, (*arguments, "--checkpoint-every", "20", "--resume"))
    while torch.load(folder / "training_state.pt", weights_only=True)["step"] == saved:
        assert again.poll() is None
        time.sleep(0.1)
    again.send_signal(signal.SIGINT)
    again.communicate()
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    steps = [event.step for event in events.Scalars("mse")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > saved
    assert {"learning rate", "images per second"} <= set(events.Tags()["scalars"])


# Parts of a batch


@pytest.fixture(scope="module")
def batch(small_scenes, tmp_path_factory) -> processes.TrainingBatch:
    packed = data.pack(small_scenes, "train", 32, tmp_path_factory.mktemp("cache"), progress=False)
    drawn = next(data.CaptionBatches(packed, 8, torch.Generator().manual_seed(0)))
    text = torch.randn(len(packed.all_captions), 5)
    return processes.find_place("cpu", "float32").batch(drawn, text, torch.randn(8, 3), 1)


def test_the_parts_of_a_batch_are_the_batch(batch):
    parts = batch.parts(4)
    assert [len(part.captions) for part in parts] == [2, 2, 2, 2]
    for name in ("images", "text", "noise", "caption_rows", "image_rows"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert sum((part.captions for part in parts), []) == batch.captions


def test_two_processes_draw_together_what_one_draws(batch):
    from dataclasses import replace

    chance = lambda: torch.Generator().manual_seed(5)  # noqa: E731
    whole = replace(batch, chance=chance()).draw(3)
    halves = [
        replace(part, chance=chance(), rank=rank, processes=2).draw(3)
        for rank, part in enumerate(batch.parts(2))
    ]
    assert whole.shape == (8, 3) and 0 <= whole.min() and whole.max() < 1
    assert torch.equal(torch.cat(halves), whole)
