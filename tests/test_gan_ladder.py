"""Tests of benchmarks/gan_ladder.py: is what it reads readable, and does it go on where it was?"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from t2i_course import report, runtime

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FEW = ["--steps", "2", "--batch-size", "4", "--samples", "12", "--seeds", "0", "1"]


@pytest.fixture
def ladder(tiny_bert, tmp_path, monkeypatch):
    """The benchmark on few scenes, with a tiny BERT, writing into a folder of its own."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "gan_ladder", raising=False)
    import gan_ladder

    networks = runtime.data_folder() / "checkpoints"
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    for folder in ("results", "checkpoints"):
        (tmp_path / folder).mkdir()
    for file in networks.glob("scene-features.*"):
        (tmp_path / "checkpoints" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(gan_ladder, "RUNS", tmp_path / "cache" / "runs.jsonl")
    monkeypatch.setattr(gan_ladder, "ENCODER", str(tiny_bert))
    monkeypatch.setattr(gan_ladder, "TRAIN", 30)
    return gan_ladder


def run(ladder, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gan_ladder.py", *FEW, *words])
    ladder.main()


def test_real_close_ups_are_read_right_with_their_margin(ladder):
    test = ladder.load_part("test", 60)
    assert test.packed.images.shape == (60, 3, 32, 32) and len(test.text) == 60
    assert {len(stated["objects"]) for stated in test.packed.facts} == {1}
    assert ladder.measure(test.packed.images, test)["scene accuracy: all"] >= 0.95
    coarse = np.repeat(np.repeat(test.packed.images[:, :, ::8, ::8], 8, axis=2), 8, axis=3)
    assert ladder.measure(coarse, test)["scene accuracy: all"] < 0.5


def test_false_captions_are_false_of_their_pictures(ladder):
    part = ladder.load_part("train", 30, 3)
    assert [len(group) for group in part.packed.captions] == [3] * 30
    draws = ladder.false_captions(part, ladder.GanConfig())
    assert len(draws.contradicting) == 90 and draws.number == 4
    assert all(draws.is_true(3 * image + 1, image) for image in range(30))
    assert np.mean([draws.is_true(k, (k // 3 + 1) % 30) for k in range(90)]) < 0.3


def test_every_rung_adds_one_ingredient(ladder):
    configs = [ladder.ingredients(rung) for rung in ladder.RUNGS]
    assert configs[-2] == ladder.GanConfig()  # the flagship's; the last rung has a second teacher
    for before, after, rung in zip(configs, configs[1:], list(ladder.RUNGS)[1:], strict=False):
        changed = [name for name in vars(before) if vars(before)[name] != vars(after)[name]]
        assert changed == list(ladder.RUNGS[rung])


def test_runs_are_made_once_and_make_rows(ladder, monkeypatch, capsys):
    words = ("--rungs", "mse", "diffaugment", "--ledger", "ladder")
    run(ladder, monkeypatch, *words)
    lines = ladder.RUNS.read_text().splitlines()
    assert len(lines) == 5 and len({json.loads(line)["name"] for line in lines}) == 5
    rows = {row.id: row for row in report.read_rows()}
    row = rows["ladder-diffaugment-scene-accuracy-all"]
    assert row.seeds == (0, 1) and row.interval and 0 <= row.value <= 1
    assert row.metric.endswith("after 2 steps of 4 pictures") and "--rungs mse" in row.command
    assert rows["ladder-mse-fd-scenes"].value > 0 and "ladder-real-pictures-recall" not in rows
    monkeypatch.setattr(ladder.training, "train", None)  # nothing is trained again
    run(ladder, monkeypatch, *words)
    assert ladder.RUNS.read_text().splitlines() == lines
