"""`evaluate`, and the evaluations of a run, from end to end."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from command_line import TRAIN, command, error_line
from PIL import Image

from t2i_course import checkpoints, report, training
from t2i_course.__main__ import main
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.latent_space import SharedSpace
from t2i_course.metrics.networks import NO_ENCODER
from t2i_course.metrics.scene_features import SceneFeatures
from t2i_course.report import LOG_FILE, read_lines
from t2i_course.text_encoder import TextEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def measuring(home, small_scenes) -> Path:
    """Metric networks, a generator of 64 pixels, and scenes in the working folder."""
    shutil.copytree(small_scenes, "scenes")
    encoder = TextEncoder()
    named = {"name": encoder.name, "fingerprint": encoder.fingerprint, "pooling": "mean"}
    card = {"data": "scenes", "command": "none", "steps": 0, "seconds": 0, "hardware": "none",
            "metrics": {}, "license": "Apache-2.0"}  # fmt: skip
    torch.manual_seed(0)
    save = checkpoints.save_weights
    save("scene-features", SceneFeatures(8), card | {"encoder": NO_ENCODER})
    matcher = SharedSpace(32, width=16, name="caption-matcher")
    save("caption-matcher", matcher, card | {"encoder": named})
    save("gan", ResidualDecoder(32, noise_dim=4, width=16), card | {"encoder": named})
    return home


EVALUATE = ("evaluate", "--model", "gan", "--data", "scenes", "--samples", "30", "--device", "cpu")


@pytest.fixture
def here(measuring, monkeypatch):
    """`--data scenes` draws 12,000 pictures; a path leads to the small set of that name."""
    return [*EVALUATE[:4], "./scenes", *EVALUATE[5:]]


def test_evaluate_prints_a_table_and_writes_nothing(here, measuring, capsys):
    before = sorted(p for p in measuring.rglob("*") if "cache" not in p.parts)
    assert main(here) == 0
    out = capsys.readouterr().out
    assert out.startswith("gan on scenes, val: 30 pictures, one a caption, 8 bits, seed 0;")
    table = {line[:40].split("  ")[0]: line for line in out.splitlines()}
    for metric in ("FD-scenes", "precision", "scene accuracy: all", "scene accuracy: background"):
        assert metric in table
    assert all(word in out for word in ("real", "shuffled captions", "left out: retrieval: 30"))
    assert sorted(p for p in measuring.rglob("*") if "cache" not in p.parts) == before


def test_evaluate_adds_rows_to_the_ledger_which_say_how_they_were_made(here, measuring, capsys):
    argv = [*here, "--seed", "5", "--ledger", "study"]
    assert main(argv) == 0
    rows = {row.id: row for row in report.read_rows(measuring / "results")}
    row = rows["study-gan-fd-scenes-val-n30-s5"]
    assert (row.seeds, row.split, row.data) == ((5,), "val", "scenes")
    assert row.command == "python -m t2i_course " + " ".join(argv)
    assert rows["study-real-scene-accuracy-all-val-n30"].value >= 0.9
    assert str(measuring / "results" / "study.json") in capsys.readouterr().out
    assert main([*here, "--ledger", "study.json"]) == 0  # other rows: those stay
    assert rows.keys() < {row.id for row in report.read_rows(measuring / "results")}


def test_evaluate_measures_a_folder_as_it_measures_the_model_that_drew_it(here, measuring, capsys):
    captions = json.loads(Path("scenes/annotations/captions_val.json").read_text())["annotations"]
    texts = [entry["caption"] for entry in captions[::5]]
    Path("prompts.txt").write_text("\n".join(texts))
    drawn = ["generate", "--prompts", "prompts.txt", "--model", "gan", "--count", "2",
             "--output-dir", "drawn"]  # fmt: skip
    assert main(drawn) == 0
    capsys.readouterr()
    assert main(["evaluate", "--pictures", "drawn", "--data", "./scenes", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("drawn on scenes, val: 40 pictures, one a caption, 8 bits, seed 0;")
    assert "FD-scenes" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "nothing"], "no checkpoint"),
        (["--model", "tiny"], "pictures of 16 x 16 pixels cannot be measured as scenes"),
        (["--samples", "1"], "1 samples: scenes has 200 captions in val"),
        (["--samples", "201"], "200 captions in val"),
        (["--seed", "-1"], "bad seed '-1'"),
        (["--data", "nowhere"], "no data folder 'nowhere'"),
        (
            ["--data", "photos", "--model", "tiny", "--samples", "9"],
            "nothing to measure photos with",
        ),
        (["--extractor", "none"], "no checkpoint"),
        (["--matcher", "scene-features"], "unknown model 'scene-features'"),
        (["--fid"], "30 drawn and 60 real pictures: FID needs more than 2048 of each"),
        (["--ledger", "../study"], "small letters, digits and hyphens only"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_evaluate_refuses_what_cannot_work_in_one_line(here, measuring, capsys, argv, message):
    before = sorted(p for p in measuring.rglob("*") if "cache" not in p.parts)
    assert message in error_line(capsys, [*here, *argv])
    assert sorted(p for p in measuring.rglob("*") if "cache" not in p.parts) == before


def test_evaluate_refuses_a_damaged_ledger_before_the_work(here, measuring, capsys):
    (measuring / "results").mkdir()
    (measuring / "results" / "other.json").write_text("[")
    assert "other.json is no list" in error_line(capsys, [*here, "--ledger", "study"])


@pytest.mark.parametrize("fault", [
    "no captions.json", "16 x 16 pixels", "are not captions of scenes, val", "3 are needed",
])  # fmt: skip
def test_evaluate_refuses_bad_pictures_in_one_line(here, capsys, fault):
    captions = json.loads(Path("scenes/annotations/captions_val.json").read_text())["annotations"]
    side = 16 if fault.startswith("16") else 64
    Path("pictures").mkdir()
    document = {"images": [], "annotations": []}
    for number, row in enumerate((0, 5), start=1):
        text = "a dog in the snow" if fault.startswith("are not") else captions[row]["caption"]
        document["images"].append({"id": number, "file_name": f"{number}.png"})
        document["annotations"].append({"id": number, "image_id": number, "caption": text})
        Image.effect_noise((side, side), 50).convert("RGB").save(f"pictures/{number}.png")
    if fault != "no captions.json":
        Path("pictures/captions.json").write_text(json.dumps(document))
    argv = ["evaluate", "--pictures", "pictures", "--data", "./scenes", "--samples", "3"]
    assert fault in error_line(capsys, argv)


def test_the_card_says_what_the_model_has_learnt_from(here, measuring):
    card = json.loads((measuring / "checkpoints" / "tiny.json").read_text())
    file = Path("photos/annotations/captions_train2017.json")
    assert card["trained_on"] == [{
        "captions": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "images": 12, "divided": False, "coco": False,
    }]  # fmt: skip


def test_no_model_is_judged_on_what_it_has_learnt_from(here, measuring, capsys):
    argv = ["evaluate", "--model", "tiny", "--data", "photos", "--samples", "9"]
    for kind in ("", "annotations/captions_"):
        suffix = ".json" if kind else ""
        Path(f"photos/{kind}val2017{suffix}").rename(f"photos/{kind}val2014{suffix}")
    message = error_line(capsys, argv)
    assert "tiny has learnt from train2017, which shares pictures with val2014" in message
    assert "35,504 of val2014's 40,504" in message and "download --split val" in message
    card = measuring / "checkpoints" / "tiny.json"
    older = json.loads(card.read_text())
    del older["trained_on"]  # as cards were before
    card.write_text(json.dumps(older))
    assert "would train on train2017 and hold out val2014" in error_line(capsys, argv)
    assert "would train on train2017 and hold out val2014" in error_line(
        capsys, [*TRAIN, "--output", "other"]
    )
    assert not (measuring / "runs" / "other").exists()


def test_an_older_card_is_read_and_its_silence_noted(here, measuring, capsys):
    card = measuring / "checkpoints" / "gan.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"data": "photos"}))
    argv = ["evaluate", "--model", "gan", "--data", "photos", "--samples", "9"]
    assert main([*argv, "--extractor", "scene-features"]) == 0
    assert "the card of gan does not say which captions" in capsys.readouterr().err


def test_evaluate_on_photos_gives_a_clip_score_and_a_grid(here, measuring, capsys, tiny_clip):
    argv = ["evaluate", "--model", "tiny", "--data", "photos", "--samples", "9",
            "--clip-weights", str(tiny_clip), "--grid", "grid.png", "--ledger", "clip"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "CLIP score" in out and "grid: grid.png" in out
    with Image.open("grid.png") as grid:
        assert grid.format == "PNG" and grid.width > 3 * 256 and grid.height > 3 * 100
    rows = {row.id: row for row in report.read_rows(measuring / "results")}
    assert rows.keys() == {
        f"clip-{judged}-clip-score-photos-val-n9"
        for judged in ("tiny", "real", "shuffled-captions")
    }
    assert rows["clip-tiny-clip-score-photos-val-n9"].extractor.startswith("CLIP tiny-clip (")
    assert not [path for path in Path().iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--grid", "grid.jpg"], "name a file that ends in .png"),
        (["--grid", "nowhere/grid.png"], "no folder"),
        (["--clip-weights", "nowhere"], "no folder of CLIP's weights at nowhere"),
        (["--clip-weights", "photos"], "photos holds no whole CLIP"),
    ],
)
def test_evaluate_refuses_a_bad_grid_or_clip_before_the_work(
    here, measuring, capsys, argv, message
):
    base = ["evaluate", "--model", "tiny", "--data", "photos", "--samples", "9"]
    assert message in error_line(capsys, [*base, *argv])
    assert not list(Path().glob("grid*"))


SCENES = ("train", "--data", "./scenes", "--steps", "6", "--batch-size", "4", "--precision",
          "float32", "--output", "watched", "--device", "cpu", "--evaluate-every", "4",
          "--evaluate-samples", "20")  # fmt: skip


def test_training_writes_what_evaluate_would_say_into_its_log(here, measuring, capsys):
    assert main(SCENES) == 0
    out = capsys.readouterr().out
    lines = read_lines(measuring / "runs" / "watched" / LOG_FILE)
    assert [line["step"] for line in lines] == [4, 6]
    assert [line for line in out.splitlines() if line.startswith("step 4: FD-scenes ")]
    argv = ["evaluate", "--model", "watched", "--data", "./scenes", "--samples", "20"]
    assert main([*argv, "--device", "cpu", "--ledger", "study"]) == 0
    rows = {row.id: row for row in report.read_rows(measuring / "results")}
    for metric, name in (("FD-scenes", "fd-scenes"), ("precision", "precision")):
        found = lines[1]["metrics"][metric]
        row = rows[f"study-watched-{name}-val-n20"]
        assert (found["value"], found["samples"]) == (pytest.approx(row.value, 1e-3), 20)
        assert found["interval"] == pytest.approx(list(row.interval), 1e-2)
    plain = [word for word in SCENES if not word.startswith("--evaluate")]
    del plain[plain.index("4", plain.index("cpu")) :]
    assert main([*plain, "--restart"]) == 0  # evaluating does not touch the run
    assert not (measuring / "runs" / "watched" / LOG_FILE).exists()


def test_evaluation_does_not_change_the_trained_weights(here, measuring):
    weights = measuring / "checkpoints" / "watched.safetensors"
    assert main(SCENES) == 0
    watched = weights.read_bytes()
    assert main([*SCENES, "--restart", "--evaluate-every", "0"]) == 0
    assert weights.read_bytes() == watched


def test_a_resumed_run_loses_and_doubles_no_evaluation(here, measuring):
    argv = [*SCENES, "--steps", "30", "--checkpoint-every", "7", "--evaluate-every", "5"]
    argv += ["--evaluate-samples", "9"]
    assert main([*argv, "--output", "whole"]) == 0
    process = command(*argv, "--output", "parts")
    state, log = (measuring / "runs" / "parts" / name for name in (training.STATE_FILE, LOG_FILE))
    while not (state.exists() and log.exists() and len(log.read_text().splitlines()) >= 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()  # without a moment to save
    process.communicate()
    assert torch.load(state, weights_only=True)["step"] < 30
    assert main([*argv, "--output", "parts", "--resume"]) == 0
    whole = read_lines(measuring / "runs" / "whole" / LOG_FILE)
    assert [line["step"] for line in whole] == list(range(5, 31, 5))
    assert read_lines(log) == whole


def test_photos_are_judged_by_a_network_that_learnt_from_them_without_labels(home, capsys):
    network = ["metric-network", "photo-features", "--data", "photos", "--steps", "10"]
    assert main([*network, "--device", "cpu"]) == 0
    train = [*TRAIN[:-4], "--size", "64", "--output", "mine", "--device", "cpu"]
    assert main(train) == 0
    argv = ["evaluate", "--model", "mine", "--data", "photos", "--samples", "12", "--device", "cpu",
            "--extractor", "my-photo-features"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "Frechet distance" in out or "kernel distance" in out
    assert "FID" not in out and "FD-scenes" not in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--evaluate-every", "-1"], "evaluate_every must be 0 or more"),
        (["--evaluate-samples", "1"], "1 samples"),
        (["--size", "16"], "cannot be measured as scenes"),
        (["--data", "photos", "--size", "16", "--evaluate-samples", "9"], "nothing to measure"),
        (["--extractor", "none"], "no checkpoint"),
    ],
)
def test_train_refuses_an_evaluation_that_cannot_be(here, measuring, capsys, argv, message):
    assert message in error_line(capsys, [*SCENES, *argv])
    assert not (measuring / "runs" / "watched").exists()
