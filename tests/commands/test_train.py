"""`train` and `metric-network` from end to end."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TRAIN, command, error_line

from t2i_course import checkpoints, processes, report, runtime, training
from t2i_course.__main__ import build_parser, main
from t2i_course.commands import options, train
from t2i_course.commands.console import read_settings
from t2i_course.gan import GanConfig
from t2i_course.scenes import drawing
from t2i_course.training import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def test_train_writes_weights_and_a_card_that_says_how(home):
    generator, card = checkpoints.load_generator("tiny")
    assert (generator.image_size, generator.text_dim) == (16, 32)
    assert card["command"] == "python -m t2i_course " + " ".join(TRAIN)
    assert (card["model"], card["data"], card["steps"]) == ("residual", "photos", 6)
    assert card["encoder"]["name"] == "caption-bert"
    assert 0 < next(iter(card["metrics"].values())) < 2
    assert str(home.parent) not in json.dumps(card)
    assert generator.standardize.mean.abs().sum() > 0


def test_the_same_command_trains_the_same_weights_and_overwrites_no_run_silently(
    home, template, capsys
):
    assert main([*TRAIN[:-2], "--restart"]) == 0
    file = Path("checkpoints", "tiny.safetensors")
    weights = (home / file).read_bytes()
    assert (template / file).read_bytes() == weights
    line = error_line(capsys, list(TRAIN))
    assert "--resume to go on, --restart to begin anew" in line
    assert main([*TRAIN, "--resume"]) == 0  # finished already: nothing changes
    assert (home / file).read_bytes() == weights
    assert checkpoints.load_generator("tiny")[1]["command"].endswith(" ".join(TRAIN))
    line = error_line(capsys, [*TRAIN, "--resume", "--learning-rate", "0.5"])
    assert "learning_rate was 0.002 and is 0.5" in line


def begun(*argv: str) -> tuple[subprocess.Popen, Path]:
    """A run in a process of its own that has saved its first checkpoint, and that file."""
    process = command(*argv)
    name = argv[argv.index("--output", argv.index("--output") + 1) + 1]
    state = runtime.data_folder() / "runs" / name / training.STATE_FILE
    while not state.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process, state


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_stopped_run_says_how_to_go_on_and_resumes_to_the_same_weights(home):
    long = [*TRAIN, "--steps", "150", "--checkpoint-every", "10"]
    assert main([*long, "--output", "whole"]) == 0
    process, state = begun(*long, "--output", "parts")
    process.send_signal(signal.SIGHUP)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume goes on" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (home / "checkpoints" / "parts.safetensors").exists()
    assert 0 < torch.load(state, weights_only=True)["step"] < 150
    assert main([*long, "--output", "parts", "--resume"]) == 0
    whole, parts = (home / "checkpoints" / f"{name}.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_two_runs_of_one_name_do_not_meet(home, capsys):
    with processes.locked_folder(home / "runs" / "one"):
        for more in ([], ["--resume"], ["--restart"]):
            line = error_line(capsys, [*TRAIN, "--output", "one", *more])
            assert "another process is at work in" in line and "another --output" in line
    assert not (home / "runs" / "one").exists()  # nothing was left in it
    assert main([*TRAIN, "--output", "one"]) == 0


def test_a_run_outlives_the_reader_of_its_output(home):
    """As in `train | head -n 1`."""
    process = command(*TRAIN, "--output", "read", "--validate-every", "1")
    process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(timeout=60) == 0 and "Traceback" not in stderr, stderr
    assert (home / "checkpoints" / "read.safetensors").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "nowhere"], "no data folder 'nowhere'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--steps", "0"], "steps must be above 0"),
        (["--size", "17"], "image_size 17"),
        (["--batch-size", "-4"], "batch_size"),
        (["--encoder", "./nothing"], "no encoder folder at nothing"),
        (["--output", "no/such/folder/model"], "make it first"),
        (["--seed", "-1"], "bad seed '-1'"),
    ],
)
def test_train_refuses_what_cannot_work_in_one_line(home, capsys, argv, message):
    files = sorted(home.rglob("*"))
    assert message in error_line(capsys, [*TRAIN, "--restart", *argv])
    made = [p for p in sorted(home.rglob("*")) if p not in files and "cache" not in p.parts]
    assert not made


def test_a_cut_picture_is_named_and_can_be_skipped(home, capsys):
    file = Path("photos/train2017/000000000001.jpg")
    file.write_bytes(file.read_bytes()[:100])
    argv = [*TRAIN, "--output", "cut"]
    assert "000000000001.jpg" in error_line(capsys, argv)
    assert main([*argv, "--on-bad-image", "skip"]) == 0
    err = capsys.readouterr().err
    assert "t2i_course: note: 1 of 12 images left out" in err
    assert "000000000001.jpg" in err


def few_photos(number: int) -> str:
    """The first training photos, in a folder with one file of captions."""
    file = Path("photos/annotations/captions_train2017.json")
    document = json.loads(file.read_text())
    document["images"] = document["images"][:number]
    known = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in known]
    folder = Path("few")
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "captions_train2017.json").write_text(json.dumps(document))
    shutil.copytree("photos/train2017", folder / "train2017")
    return str(folder)


@pytest.mark.parametrize("network", ["caption-matcher", "photo-features", "captioner"])
def test_too_few_pictures_or_no_place_for_the_weights_is_known_before_the_work(
    home, capsys, network
):
    argv = ["metric-network", network, "--data", few_photos(12), "--size", "16",
            "--steps", "100000"]  # fmt: skip
    assert "has 1 held-out picture, and 2 are needed" in error_line(capsys, argv)
    assert "make it first" in error_line(capsys, [*argv, "--output", "no/such/folder/model"])


def test_two_photos_train_a_gan_without_infinite_numbers(home, capsys):
    argv = ["train", "--model", "gan", "--data", few_photos(2), "--width", "4",
            "--steps", "2", "--batch-size", "4", "--size", "16", "--output", "two",
            "--device", "cpu"]  # fmt: skip
    assert main(argv) == 0
    card = json.loads((home / "checkpoints" / "two.json").read_text())
    assert np.isfinite(list(card["metrics"].values())).all()


def test_more_scenes_begin_with_the_scenes_there_are(home, capsys, monkeypatch, small_scenes):
    few = functools.partial(drawing.make_scenes, val=4)  # of val, for time's sake
    monkeypatch.setattr(drawing, "make_scenes", few)
    argv = ["train", "--data", "scenes", "--scenes", "70", "--steps", "1", "--batch-size", "4",
            "--output", "more", "--device", "cpu"]  # fmt: skip
    assert main(argv) == 0
    assert "images: 70 train, 4 val" in capsys.readouterr().out
    card = json.loads((home / "checkpoints" / "more.json").read_text())
    assert card["trained_on"][0]["images"] == 70 and card["data"] == "scenes"
    more = home / "scenes-70" / "train"
    for picture in sorted((small_scenes / "train").iterdir()):
        assert (more / picture.name).read_bytes() == picture.read_bytes()
    assert "1 or more" in error_line(capsys, ["train", "--data", "scenes", "--scenes", "0"])
    assert main([*argv, "--crowded", "--restart"]) == 0
    card = json.loads((home / "checkpoints" / "more.json").read_text())
    crowded = home / "scenes-70-crowded" / "annotations" / "captions_train.json"
    assert card["trained_on"][0]["sha256"] == hashlib.sha256(crowded.read_bytes()).hexdigest()
    told = error_line(capsys, [*TRAIN, "--scenes", "70", "--restart"])
    assert "where the data are scenes; here they are" in told and told.endswith("photos")


def plan(*argv: str) -> train.Plan:
    args = build_parser("train").parse_args(["train", "--data", "photos", *argv])
    args.settings = read_settings(args)
    return train.read_plan(args)


def test_the_captioner_is_a_second_teacher_by_default_where_it_can_read_the_pictures(home):
    for model in ("gan", "style"):
        assert plan("--model", model).gan.redescription == 0
        assert plan("--model", model, "--data", "scenes").gan.redescription > 0
    assert plan("--model", "gan", "--redescription", "2").gan.redescription == 2


def test_a_preset_gives_options_that_others_go_before(home):
    plain, chosen = plan(), plan("--preset", "val-hour", "--steps", "7", "--width", "8")
    assert (chosen.options.model, chosen.options.encoder) == ("gan", "bert-base-uncased")
    assert (chosen.config.flips, chosen.options.on_bad_image) == (True, "skip")
    assert (plain.config.flips, plain.options.on_bad_image) == (False, "raise")
    assert (chosen.config.steps, chosen.gan.width) == (7, 8)
    assert chosen.gan.augment == ("translation", "cutout")
    known = {e.name for part in (train.RunOptions, TrainingConfig, GanConfig) for e in fields(part)}
    for preset in train.PRESETS.values():
        assert preset.keys() <= known


def test_every_field_of_a_configuration_that_has_a_help_is_an_option():
    told = build_parser("train")
    for part in (TrainingConfig, GanConfig):
        for entry in options.option_fields(part):
            default = entry.default
            flag = "--" + entry.name.replace("_", "-")
            value = {bool: [], tuple: ["cutout"]}.get(type(default), [str(default)])
            found = options.given_fields(told.parse_args(["train", flag, *value]), part)
            assert list(found) == [entry.name] and type(found[entry.name]) is type(default)
    args = told.parse_args(["train", "--no-projection", "--augment", "--flips"])
    assert options.given_fields(args, GanConfig) == {"projection": False, "augment": ()}
    assert options.given_fields(args, TrainingConfig) == {"flips": True}


def test_a_preset_trains_photos(home, capsys):
    argv = ["train", "--preset", "val-hour", "--data", "photos", "--encoder", "caption-bert",
            "--size", "16", "--steps", "2", "--batch-size", "4", "--width", "4",
            "--output", "hour", "--device", "cpu", "--precision", "float32",
            "--ledger", "hour"]  # fmt: skip
    assert main(argv) == 0
    rows = {row.id: row for row in report.read_rows()}
    assert rows["hour-train-images-a-second"].value > 0
    assert 0 < rows["hour-train-share-of-the-time-spent-waiting-for-data"].value < 1
    assert "--flips is for photos" in error_line(capsys, ["train", "--flips", "--data", "scenes"])


def test_gan_is_trained_and_drawn_with(home, capsys, small_scenes):
    argv = ["train", "--model", "gan", "--data", str(small_scenes), "--steps", "2",
            "--batch-size", "8", "--width", "8", "--augment", "translation",
            "--output", "few", "--device", "cpu"]  # fmt: skip
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "generator" in out and "discriminator" in out
    draw = ["generate", "a red circle", "--model", "few", "--count", "2", "--output", "g.png"]
    assert main(draw) == 0
    assert (home / "checkpoints" / "few-discriminator.safetensors").exists()
    told = error_line(capsys, ["train", "--model", "baseline", "--steps", "2", "--width", "8"])
    assert "--width is for gan and style: baseline has no such ingredient" in told
    told = error_line(capsys, [*argv, "--restart", "--augment", "flip"])
    assert "unknown augmentation 'flip': choose from brightness" in told


def test_a_captioner_is_trained_and_teaches_a_generator(home, capsys, small_scenes):
    network = ["metric-network", "captioner", "--data", str(small_scenes), "--steps", "10",
               "--device", "cpu"]  # fmt: skip
    assert main(network) == 0
    argv = ["train", "--model", "gan", "--data", str(small_scenes), "--steps", "2",
            "--device", "cpu", "--batch-size", "8", "--width", "8",
            "--output", "taught"]  # fmt: skip
    on = [*argv, "--redescription", "0.5"]
    assert main([*on, "--captioner", "my-captioner", "--ledger", "taught"]) == 0
    card = json.loads((home / "checkpoints" / "taught.json").read_text())
    weights = json.loads((home / "checkpoints" / "my-captioner.json").read_text())["sha256"]
    assert card["captioner"] == f"my-captioner {weights[:16]}"
    rows = {row.id: row for row in report.read_rows()}
    assert rows["taught-train-redescription"].value > 10  # nats a caption, nearly untrained
    restart = [*on, "--restart"]
    other = [*argv, "--restart", "--captioner", "my-captioner"]
    assert "is for --redescription" in error_line(capsys, other)
    assert "no checkpoint" in error_line(capsys, [*restart, "--captioner", "nothing"])
    wrong = error_line(capsys, [*restart, "--captioner", "my-captioner", "--size", "32"])
    assert "reads pictures of 64 pixels, this run draws 32" in wrong
    assert wrong.endswith("or leave it out with --redescription 0")
    photos = ["photos" if word == str(small_scenes) else word for word in restart]
    assert "knows scenes only: train one on these photos" in error_line(capsys, photos)
    small = ["metric-network", "scene-features", "--data", str(small_scenes), "--size", "32"]
    assert "scene-features read pictures of 64 pixels, not 32" in error_line(capsys, small)


def test_a_captioner_learns_from_crowded_scenes_by_default(home, small_scenes, monkeypatch):
    asked = []

    def more_scenes(train, crowded, progress):
        asked.append((train, crowded))
        return small_scenes

    monkeypatch.setattr("t2i_course.scenes.drawing.more_scenes", more_scenes)
    argv = ["metric-network", "captioner", "--steps", "10", "--device", "cpu"]
    assert main([*argv, "--data", "photos", "--size", "16"]) == 0 and not asked
    assert main(argv) == 0 and asked == [(50_000, True)]
    assert json.loads((home / "checkpoints" / "my-captioner.json").read_text())["data"] == "scenes"


def test_a_captioner_of_photos_teaches_a_generator_of_photos(home):
    network = ["metric-network", "captioner", "--data", "photos", "--size", "16", "--steps", "10"]
    assert main([*network, "--device", "cpu", "--output", "telling"]) == 0
    assert json.loads((home / "checkpoints" / "telling.json").read_text())["data"] == "photos"
    told = ["--captioner", "telling", "--redescription", "1", "--output", "taught"]
    assert main([*TRAIN, "--model", "gan", "--width", "4", *told]) == 0
    card = json.loads((home / "checkpoints" / "taught.json").read_text())
    assert card["captioner"].startswith("telling ") and card["license"] != "Apache-2.0"
