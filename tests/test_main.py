"""The command line from end to end, on a small folder of real picture files and a tiny BERT."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course import (
    __version__,
    checkpoints,
    doctor,
    generation,
    processes,
    report,
    runtime,
    training,
)
from t2i_course.__main__ import build_parser, main
from t2i_course.commands import options, train
from t2i_course.commands.console import read_settings
from t2i_course.gan import GanConfig
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.latent_space import SharedSpace
from t2i_course.metrics.networks import NO_ENCODER
from t2i_course.metrics.scene_features import SceneFeatures
from t2i_course.report import LOG_FILE, read_lines
from t2i_course.scenes import drawing
from t2i_course.text_encoder import TextEncoder
from t2i_course.training import TrainingConfig

CAPTIONS = ("two dogs run on the green grass", "a man rides a wave", "people at a table with food")
TRAIN = ("train", "--data", "photos", "--size", "16", "--steps", "6", "--batch-size", "4",
         "--precision", "float32", "--output", "tiny", "--device", "cpu")  # fmt: skip
OWN = ("--encoder", "caption-bert")  # the tiny one of these tests
PROMPT = "a large red circle on a white background"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute as `command` does: the sums of two threads differ in the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder in COCO's layout: JPEG and PNG, mixed sizes, some in grayscale."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 12), ("val2017", 6)):
        (folder / split).mkdir()
        images, annotations = [], []
        for k in range(count):
            name = f"{k:012d}.{'png' if k % 3 == 0 else 'jpg'}"
            size = (40 + 5 * k, 30) if k % 2 else (24, 50 + k)
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize((size[0] // 8, size[1] // 8)).resize(size)
            (picture.convert("L") if k % 4 == 1 else picture).save(folder / split / name)
            images.append({"id": k, "file_name": name, "width": size[0], "height": size[1]})
            for number, caption in enumerate(CAPTIONS[: 1 + k % 3]):
                annotations.append({"id": 10 * k + number, "image_id": k, "caption": caption})
        file = folder / "annotations" / f"captions_{split}.json"
        file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory, photos, tiny_bert) -> Path:
    """A data folder with an encoder and a trained model, made by the command itself."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_bert, home / "encoders" / "caption-bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_HOME", str(home))
        patch.setenv("T2I_DEVICE", "cpu")
        patch.chdir(photos.parent)
        assert main(TRAIN) == 0
    return home


@pytest.fixture
def home(template, photos, tmp_path, monkeypatch) -> Path:
    """A copy of the trained data folder; the working folder holds `photos`."""
    shutil.copytree(template, tmp_path / "home")
    (tmp_path / "work").mkdir()
    shutil.copytree(photos, tmp_path / "work" / "photos")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    for name in ("T2I_DATA", "T2I_PROFILE", "T2I_SEED", "T2I_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("T2I_DEVICE", "cpu")
    return tmp_path / "home"


def error_line(capsys, argv: list[str]) -> str:
    """Run a command that must fail with one line on stderr and status 2."""
    capsys.readouterr()
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if ": note: " not in line]
    assert len(lines) == 1 and lines[0].startswith("t2i_course: error: "), captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def command(*argv: str, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "t2i_course", *argv],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


# The whole


def test_help_and_version_import_no_library():
    code = (
        "import sys\nfrom t2i_course.__main__ import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    for argument, expected in (("--help", "doctor"), ("--version", __version__)):
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, check=True
        )
        assert expected in done.stdout


@pytest.mark.parametrize("argv", [[], ["paint"], ["train", "--model", "stylegan"]])
def test_wrong_arguments_end_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: python -m t2i_course" in capsys.readouterr().err


def test_doctor_prints_a_line_for_each_requirement_and_fails_for_a_missing_encoder(
    home, capsys, monkeypatch
):
    monkeypatch.setattr(doctor, "ENCODERS", ("caption-bert",))
    monkeypatch.setattr(doctor, "CHECKPOINTS", ("tiny",))
    (home / "results").mkdir()
    for file in (runtime.CHECKOUT / "data" / "results").glob("*.json"):
        (home / "results" / file.name).touch()
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all there"
    assert any(line.split()[:2] == ["OK", "torch"] for line in lines)
    assert any(line.split()[:2] == ["optional", "scenes"] for line in lines)
    shutil.rmtree(home / "encoders")
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("FAIL      text encoder") and ";" in line for line in lines)
    assert lines[-1] == "1 to mend: text encoder"


# Options and variables


def test_an_option_goes_before_its_variable_and_that_before_the_default(home, monkeypatch):
    def card() -> dict:
        assert main([*TRAIN, "--restart", "--steps", "1", "--output", "seeded", *more]) == 0
        return json.loads((home / "checkpoints" / "seeded.json").read_text())

    more = []
    assert card()["seed"] == 0
    monkeypatch.setenv("T2I_SEED", "7")
    assert card()["seed"] == 7
    more = ["--seed", "3"]
    assert card()["seed"] == 3


def test_pictures_of_a_seed_from_the_environment_are_those_of_the_option(
    home, small_scenes, monkeypatch
):
    few = ["train", "--model", "gan", "--data", str(small_scenes), "--steps", "1", "--width", "4",
           "--batch-size", "4", "--size", "16", "--device", "cpu", "--output", "few"]  # fmt: skip
    assert main(few) == 0
    draw = ["generate", PROMPT, "--model", "few", "--count", "1", "--output"]
    assert main([*draw, "0.png"]) == main([*draw, "7.png", "--seed", "7"]) == 0
    monkeypatch.setenv("T2I_SEED", "7")
    assert main([*draw, "variable.png"]) == 0
    assert Path("variable.png").read_bytes() == Path("7.png").read_bytes()
    assert Path("variable.png").read_bytes() != Path("0.png").read_bytes()


@pytest.mark.parametrize(
    "argv",
    [["generate", PROMPT], ["evaluate"], ["train"], ["encoder", "--output", "new"],
     ["metric-network", "captioner"], ["download"],
     ["convert", "a.csv", "photos", "--output", "new"]],
    ids=lambda argv: argv[0],
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("T2I_SEED", "abc", "bad seed 'abc'"), ("T2I_PROFILE", "quick", "unknown profile 'quick'"),
     ("T2I_DEVICE", "tpu", "unknown device 'tpu'")],
)  # fmt: skip
def test_a_bad_variable_is_an_error_in_every_command(
    home, capsys, monkeypatch, argv, name, value, message
):
    monkeypatch.setenv(name, value)
    assert message in error_line(capsys, argv)
    assert sorted(path.name for path in Path().iterdir()) == ["photos"]


def test_an_unexpected_error_is_one_line_with_its_kind(home, capsys, monkeypatch):
    def fail(*_, **__):
        raise KeyError("something")

    monkeypatch.setattr(generation, "read_prompts", fail)
    line = error_line(capsys, ["generate", PROMPT])
    assert "KeyError: 'something' (T2I_DEBUG=1 shows where)" in line


# train


def test_train_writes_weights_and_a_card_that_says_how(home):
    generator, card = training.load_generator("tiny")
    assert (generator.image_size, generator.text_dim) == (16, 32)
    assert card["command"] == "python -m t2i_course " + " ".join(TRAIN)
    assert (card["model"], card["data"], card["steps"]) == ("residual", "photos", 6)
    assert card["encoder"]["name"] == "caption-bert"
    assert 0 < next(iter(card["metrics"].values())) < 2
    assert str(home.parent) not in json.dumps(card)
    assert generator.standardize.mean.abs().sum() > 0


def test_the_same_command_trains_the_same_weights(home, template):
    name = "checkpoints/tiny.safetensors"
    assert main([*TRAIN[:-2], "--restart"]) == 0
    first, second = ((folder / name).read_bytes() for folder in (template, home))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


def test_a_run_of_that_name_is_not_overwritten_silently(home, capsys):
    assert main([*TRAIN, "--restart"]) == 0
    weights = (home / "checkpoints" / "tiny.safetensors").read_bytes()
    line = error_line(capsys, list(TRAIN))
    assert "--resume to go on, --restart to begin anew" in line
    assert main([*TRAIN, "--resume"]) == 0  # finished already: nothing changes
    assert (home / "checkpoints" / "tiny.safetensors").read_bytes() == weights
    assert training.load_generator("tiny")[1]["command"].endswith(" ".join(TRAIN))


def test_resume_with_another_learning_rate_or_other_data_is_refused(home, capsys):
    line = error_line(capsys, [*TRAIN, "--resume", "--learning-rate", "0.5"])
    assert "learning_rate was 0.002 and is 0.5" in line
    assert "training data was" in line  # the folder has another place than in the first run


def test_the_article_decoder_trains_to_a_path_of_its_own(home, tmp_path, capsys):
    argv = [*TRAIN, "--model", "article", "--output", str(tmp_path / "model"), "--seed", "3"]
    assert main(argv) == 0
    assert "validation loss: 0." in capsys.readouterr().out
    assert training.load_generator(tmp_path / "model")[1]["model"] == "article"


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
@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_a_stopped_run_says_how_to_go_on_and_resumes_to_the_same_weights(home, number):
    long = [*TRAIN, "--steps", "150", "--checkpoint-every", "10"]
    assert main([*long, "--output", "whole"]) == 0
    process, state = begun(*long, "--output", "parts")
    process.send_signal(getattr(signal, number))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume goes on" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (home / "checkpoints" / "parts.safetensors").exists()
    assert 0 < torch.load(state, weights_only=True)["step"] < 150
    assert main([*long, "--output", "parts", "--resume"]) == 0
    whole, parts = (home / "checkpoints" / f"{name}.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
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


# generate


def test_generate_writes_a_grid(home, capsys):
    assert main(["generate", PROMPT, "--model", "tiny", "--count", "16", "--output", "c.png"]) == 0
    picture = Image.open("c.png")
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert picture.size == (8 * 18 + 2, 2 * 18 + 2)
    captured = capsys.readouterr()
    assert captured.out == "grid: c.png\n"
    assert "without noise" in captured.err


def test_generate_writes_a_folder_of_samples_in_coco_form(home):
    Path("prompts.txt").write_text(f"\ufeff{PROMPT}\n\n a small blue star \n", encoding="utf-8")
    argv = ["generate", "a green heart", "--prompts", "prompts.txt", "--model", "tiny",
            "--count", "2", "--seed", "5", "--output-dir", "samples"]  # fmt: skip
    assert main(argv) == 0
    assert not Path("generated.png").exists()
    document = json.loads(Path("samples/captions.json").read_text(encoding="utf-8"))
    expected = ["a green heart", PROMPT, "a small blue star"]
    assert [i["prompt"] for i in document["images"]] == [p for p in expected for _ in range(2)]
    assert [i["sample"] for i in document["images"]] == [0, 1] * 3
    assert {i["seed"] for i in document["images"]} == {5}
    captions = {a["image_id"]: a["caption"] for a in document["annotations"]}
    for image in document["images"]:
        assert captions[image["id"]] == image["prompt"]
        picture = Image.open(Path("samples", image["file_name"]))
        assert (picture.size, picture.mode) == ((16, 16), "RGB")
    assert len(list(Path("samples").iterdir())) == 7
    assert sorted(p.name for p in Path().iterdir()) == ["photos", "prompts.txt", "samples"]


def test_what_a_prompt_was_drawn_as_is_said_and_written_beside_it(home, capsys):
    card = home / "checkpoints" / "tiny.json"
    card.write_text(card.read_text().replace('"data": "photos"', '"data": "scenes"'))
    argv = ["generate", "a tiny star, no circle", "--model", "tiny", "--count", "1", "--output-dir"]
    for folder, drawn_as, extra in (("one", "a small star", []), ("two", argv[1], ["--as-typed"])):
        assert main([*argv, folder, *extra]) == 0
        (image,) = json.loads(Path(folder, "captions.json").read_text(encoding="utf-8"))["images"]
        assert (image["prompt"], image["drawn_as"]) == (argv[1], drawn_as)
        assert ("is drawn as 'a small star'" in capsys.readouterr().err) == (not extra)


def test_the_same_seed_draws_the_same_files_alone_or_among_others(home):
    base = ["generate", "--model", "tiny", "--count", "2", PROMPT]
    assert main([*base, "--output-dir", "first"]) == 0
    assert main([*base, "a green heart", "--output-dir", "second", "--output", "grid.png"]) == 0
    for name in ("000001.png", "000002.png"):
        first, second = (np.asarray(Image.open(Path(d, name))) for d in ("first", "second"))
        assert np.abs(first.astype(int) - second).max() <= 1
    width, height = Image.open("grid.png").size
    assert width >= 280 and height > 2 * 20 + 2 * 16  # a title above each prompt's row


def test_a_folder_with_something_in_it_is_kept_unless_it_is_ours(home, capsys):
    argv = ["generate", PROMPT, "--model", "tiny", "--output-dir", "samples"]
    assert main([*argv, "--count", "3"]) == 0
    assert "add --overwrite" in error_line(capsys, argv)
    assert main([*argv, "--count", "1", "--overwrite"]) == 0
    assert sorted(p.name for p in Path("samples").iterdir()) == ["000001.png", "captions.json"]
    Path("samples/thesis.doc").write_text("years of work")
    assert "'thesis.doc'" in error_line(capsys, [*argv, "--overwrite"])
    assert Path("samples/thesis.doc").exists()
    Path("empty").mkdir()
    assert main([*argv[:-1], "empty", "--count", "1"]) == 0
    assert len(list(Path("empty").iterdir())) == 2


def test_samples_go_where_a_link_leads_and_into_the_folder_one_is_in(home, monkeypatch):
    argv = ["generate", PROMPT, "--model", "tiny", "--count", "2", "--output-dir"]
    drawn = ["000001.png", "000002.png", "captions.json"]
    Path("elsewhere").mkdir()
    Path("link").symlink_to("elsewhere")
    assert main([*argv, "link"]) == 0
    assert Path("link").is_symlink()
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == drawn
    Path("here").mkdir()
    monkeypatch.chdir("here")
    assert main([*argv, "."]) == 0
    assert sorted(path.name for path in Path().iterdir()) == drawn
    Path("loop").symlink_to("loop")
    assert main([*argv, "loop"]) == 2 and main([*argv[:-1], "--output", "loop/a.png"]) == 2


def test_what_systems_leave_in_folders_does_not_count(home):
    argv = ["generate", PROMPT, "--model", "tiny", "--count", "1", "--output-dir", "samples"]
    Path("samples").mkdir()
    for name in (".DS_Store", "Thumbs.db"):
        Path("samples", name).write_text("of the system")
    assert main(argv) == 0
    assert main([*argv, "--overwrite"]) == 0
    assert Path("samples/.DS_Store").read_text() == "of the system"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(home, capsys):
    Path("closed").mkdir(mode=0o500)
    for target in (["--output", "closed/g.png"], ["--output-dir", "closed"]):
        assert "cannot be written to" in error_line(
            capsys, ["generate", PROMPT, "--model", "tiny", *target]
        )


def test_unknown_words_are_noted_and_the_rest_is_drawn(home, capsys):
    argv = ["generate", "a red circle \u5728 \U0001f600", "--model", "tiny", "--output", "c.png"]
    assert main([*argv, "--count", "1"]) == 0
    err = capsys.readouterr().err.encode("ascii", "backslashreplace").decode()
    assert "the encoder cannot read" in err
    assert Path("c.png").exists()


@pytest.mark.parametrize(
    "prompt", ["\u4e00\u4e2a\u7ea2\u8272\u7684\u5706", "\U0001f600 \U0001f680"]
)
def test_a_prompt_without_a_known_word_gets_a_picture_and_a_note(home, capsys, prompt):
    assert main(["generate", prompt, "--model", "tiny", "--output", "c.png", "--count", "1"]) == 0
    assert "the encoder cannot read" in capsys.readouterr().err
    assert Path("c.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no prompt: give at least one"),
        (["  "], "prompt 1 is empty"),
        (["a red circle", ""], "prompt 2 is empty"),
        (["a red circle " * 40], "tokens long, the encoder takes 48"),
        (["--prompts", "missing.txt"], "no prompt file missing.txt"),
        (["--prompts", "empty.txt"], "empty.txt holds no prompt"),
        (["--prompts", "latin.txt"], "latin.txt is not UTF-8"),
        ([PROMPT, "--count", "0"], "0 samples"),
        ([PROMPT, "--seed", "-3"], "bad seed '-3'"),
        ([PROMPT, "--device", "cuda:99"], "no device 'cuda:99'"),
        ([PROMPT, "--output", "circle.jpg"], "ends in .png"),
        ([PROMPT, "--output", "no/such/circle.png"], "make it first"),
        ([PROMPT, "--output", "photos.png"], "is a folder"),
        ([PROMPT, "--output-dir", "no/such/folder"], "make it first"),
        ([PROMPT, "--output-dir", "latin.txt"], "is a file"),
        ([PROMPT, "--output-dir", "photos"], "is not empty"),
        ([PROMPT, "--output-dir", "photos", "--overwrite"], "which generate did not write"),
        ([PROMPT, "--model", "nothing"], "there are tiny in that folder"),
        ([PROMPT, "--model", "no/such/model"], "no checkpoint"),
    ],
)
def test_generate_refuses_bad_input_in_one_line_and_writes_nothing(home, capsys, argv, message):
    Path("latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    Path("empty.txt").write_text("\n  \n")
    Path("photos.png").mkdir()
    before = sorted(Path().rglob("*"))
    assert message in error_line(capsys, ["generate", "--model", "tiny", *argv])
    assert sorted(Path().rglob("*")) == before


def test_a_checkpoint_cut_short_is_refused(home, capsys):
    file = home / "checkpoints" / "tiny.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert "cut short or changed" in error_line(capsys, ["generate", PROMPT, "--model", "tiny"])


def test_a_checkpoint_of_another_encoder_is_refused(home, capsys):
    file = home / "checkpoints" / "tiny.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    card["encoder"]["fingerprint"] = "f" * 16
    file.write_text(json.dumps(card), encoding="utf-8")
    line = error_line(capsys, ["generate", PROMPT, "--model", "tiny"])
    assert "reads by another encoder 'caption-bert' (fingerprint ffff" in line
    shutil.rmtree(home / "encoders" / "caption-bert")
    assert "encoder is missing" in error_line(capsys, ["generate", PROMPT, "--model", "tiny"])


def test_debugging_shows_the_traceback(home, monkeypatch):
    monkeypatch.setenv("T2I_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["generate", PROMPT, "--model", "nothing"])


# evaluate


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
    save(
        "caption-matcher",
        SharedSpace(32, width=16, name="caption-matcher"),
        card | {"encoder": named},
    )
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
        (["--inception-weights", "none.pth"], "30 drawn and 60 real pictures: FID needs more"),
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
    assert "other.json is not JSON" in error_line(capsys, [*here, "--ledger", "study"])


def picture(file: str, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    Image.effect_noise(size, 50).convert(mode).save(Path("pictures", file))


@pytest.mark.parametrize("fault", [
    "no captions.json", "reads captions.json", "16 x 16 pixels", "not RGB", "cut short or damaged",
    "are not captions of scenes, val", "000002.png is missing", "3 are needed", "holds no picture",
])  # fmt: skip
def test_evaluate_refuses_bad_pictures_in_one_line(here, capsys, fault):
    captions = json.loads(Path("scenes/annotations/captions_val.json").read_text())["annotations"]
    texts = [captions[0]["caption"], captions[5]["caption"]]
    Path("pictures").mkdir()
    document = {"images": [], "annotations": []}
    for number, text in enumerate(texts, start=1):
        document["images"].append({"id": number, "file_name": f"{number:06d}.png"})
        document["annotations"].append({"id": number, "image_id": number, "caption": text})
        picture(f"{number:06d}.png")
    if fault.startswith("are not"):
        document["annotations"][0]["caption"] = "a dog in the snow"
    listing, file = Path("pictures/captions.json"), Path("pictures/000002.png")
    listing.write_text(json.dumps(document))
    if fault == "no captions.json":
        listing.unlink()
    elif fault.startswith("reads"):
        listing.write_text(listing.read_text()[:40])
        fault = "captions.json is not JSON"
    elif fault.startswith("16"):
        picture("000001.png", (16, 16))
        picture("000002.png", (16, 16))
    elif fault == "not RGB":
        picture("000002.png", mode="L")
    elif fault.startswith("cut"):
        file.write_bytes(file.read_bytes()[:200])
    elif fault.endswith("missing"):
        file.unlink()
    elif fault == "holds no picture":
        file.unlink()
        Path("pictures/000001.png").unlink()
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
    network = [
        "metric-network",
        "photo-features",
        "--data",
        "photos",
        "--steps",
        "10",
        "--device",
        "cpu",
    ]
    assert main(network) == 0
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
    argv = [
        "metric-network",
        network,
        "--data",
        few_photos(12),
        "--size",
        "16",
        "--steps",
        "100000",
    ]
    assert "has 1 held-out picture, and 2 are needed" in error_line(capsys, argv)
    assert "make it first" in error_line(capsys, [*argv, "--output", "no/such/folder/model"])


def test_two_photos_train_a_gan_without_infinite_numbers(home, capsys):
    argv = ["train", "--model", "gan", *OWN, "--data", few_photos(2), "--width", "4",
            "--steps", "2", "--batch-size", "4", "--size", "16", "--output", "two",
            "--device", "cpu"]  # fmt: skip
    assert main(argv) == 0
    card = json.loads((home / "checkpoints" / "two.json").read_text())
    assert np.isfinite(list(card["metrics"].values())).all()


# encoder


def test_encoder_refuses_to_overwrite_one(home, capsys):
    assert "is there already" in error_line(capsys, ["encoder", "--device", "cpu"])


def test_encoder_passes_its_options_on(home, capsys):
    argv = ["encoder", "--output", "new", "--mlm-steps", "1", "--contrastive-steps", "1",
            "--reading-steps", "1", "--captions", "photos/annotations/missing.json",
            "--seed", "2"]  # fmt: skip
    assert "missing.json" in error_line(capsys, argv)
    assert not Path("new").exists()


def test_download_says_what_is_wrong_and_leaves_nothing(home, capsys):
    argv = ["download", "--mirror", "http://127.0.0.1:9", "--output", "coco"]
    assert "no answer from http://127.0.0.1:9" in error_line(capsys, argv)
    assert "give 1 or more" in error_line(capsys, [*argv, "--subset", "0"])
    assert not Path("coco").exists()


def test_style_decoder_is_trained_and_truncated(home, capsys, small_scenes):
    argv = ["train", "--model", "style", "--data", str(small_scenes), "--steps", "2", "--output",
            "few", "--batch-size", "8", "--width", "8", "--device", "cpu"]  # fmt: skip
    assert main(argv) == 0
    drawn = {}
    for truncation in ("0", "1"):
        argv = ["generate", "a red circle", "--model", "few", "--count", "2", "--output-dir",
                truncation, "--truncation", truncation]  # fmt: skip
        assert main(argv) == 0
        drawn[truncation] = [p.read_bytes() for p in sorted(Path(truncation).glob("*.png"))]
    assert drawn["0"][0] == drawn["0"][1] and drawn["1"][0] != drawn["1"][1]
    assert "give 0" in error_line(capsys, [*argv[:-1], "1.5", "--overwrite"])
    argv = ["generate", "a dog", "--model", "tiny", "--output", "t.png", "--truncation", "0.5"]
    assert "has no truncation" in error_line(capsys, argv)


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


def test_a_preset_gives_options_that_others_go_before(home):
    def plan(*argv: str) -> train.Plan:
        args = build_parser("train").parse_args(["train", "--data", "photos", *argv])
        args.settings = read_settings(args)
        return train.read_plan(args)

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
    argv = ["train", "--model", "gan", *OWN, "--data", str(small_scenes), "--steps", "2",
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
    network = [
        "metric-network",
        "captioner",
        "--data",
        str(small_scenes),
        "--steps",
        "10",
        "--device",
        "cpu",
    ]
    assert main(network) == 0
    argv = ["train", "--model", "gan", *OWN, "--data", str(small_scenes), "--steps", "2",
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
    photos = ["photos" if word == str(small_scenes) else word for word in restart]
    assert "knows scenes only: train one on these photos" in error_line(capsys, photos)
    small = ["metric-network", "scene-features", "--data", str(small_scenes), "--size", "32"]
    assert "scene-features read pictures of 64 pixels, not 32" in error_line(capsys, small)


def test_a_captioner_of_photos_teaches_a_generator_of_photos(home):
    network = ["metric-network", "captioner", "--data", "photos", "--size", "16", "--steps", "10"]
    assert main([*network, "--device", "cpu", "--output", "telling"]) == 0
    assert json.loads((home / "checkpoints" / "telling.json").read_text())["data"] == "photos"
    told = ["--captioner", "telling", "--redescription", "1", "--output", "taught"]
    assert main([*TRAIN, "--model", "gan", *OWN, "--width", "4", *told]) == 0
    card = json.loads((home / "checkpoints" / "taught.json").read_text())
    assert card["captioner"].startswith("telling ") and card["license"] != "Apache-2.0"
