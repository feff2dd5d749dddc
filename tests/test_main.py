"""The command line: help, options and variables, errors, and its shorter commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import PROMPT, TRAIN, error_line

from t2i_course import __version__, doctor, generation, runtime
from t2i_course.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(
    "argv",
    [["generate", PROMPT], ["evaluate"], ["train"], ["encoder", "--output", "new"], ["download"]],
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
    monkeypatch.setenv("T2I_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["generate", PROMPT])


def test_encoder_overwrites_none_and_reads_its_captions_first(home, capsys):
    assert "is there already" in error_line(capsys, ["encoder", "--device", "cpu"])
    argv = ["encoder", "--output", "new", "--mlm-steps", "1", "--captions", "missing.json"]
    assert "missing.json" in error_line(capsys, argv) and not Path("new").exists()


def test_download_says_what_is_wrong_and_leaves_nothing(home, capsys):
    argv = ["download", "--mirror", "http://127.0.0.1:9", "--output", "coco"]
    assert "no answer from http://127.0.0.1:9" in error_line(capsys, argv)
    assert "give 1 or more" in error_line(capsys, [*argv, "--subset", "0"])
    assert not Path("coco").exists()


def test_style_decoder_is_trained_truncated_and_seeded_by_the_environment_too(
    home, capsys, small_scenes, monkeypatch
):
    argv = ["train", "--model", "style", "--data", str(small_scenes), "--steps", "2", "--output",
            "few", "--batch-size", "8", "--width", "8", "--encoder", "caption-bert",
            "--device", "cpu"]  # fmt: skip
    assert main(argv) == 0
    drawn = {}
    for truncation in ("0", "1"):
        argv = ["generate", "a red circle", "--model", "few", "--count", "2", "--output-dir",
                truncation, "--truncation", truncation]  # fmt: skip
        assert main(argv) == 0
        drawn[truncation] = [p.read_bytes() for p in sorted(Path(truncation).glob("*.png"))]
    assert drawn["0"][0] == drawn["0"][1] and drawn["1"][0] != drawn["1"][1]
    seeded = ["generate", PROMPT, "--model", "few", "--count", "1", "--output"]
    assert main([*seeded, "0.png"]) == main([*seeded, "7.png", "--seed", "7"]) == 0
    monkeypatch.setenv("T2I_SEED", "7")
    assert main([*seeded, "variable.png"]) == 0
    zero, seven, variable = (Path(f"{n}.png").read_bytes() for n in ("0", "7", "variable"))
    assert variable == seven != zero
    assert "give 0" in error_line(capsys, [*argv[:-1], "1.5", "--overwrite"])
    argv = ["generate", "a dog", "--model", "tiny", "--output", "t.png", "--truncation", "0.5"]
    assert "has no truncation" in error_line(capsys, argv)
