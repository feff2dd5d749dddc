"""`generate` from end to end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import PROMPT, error_line
from PIL import Image

from t2i_course.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")


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
    Path("empty/.DS_Store").write_text("of the system")  # which does not count
    for more in ((), ("--overwrite",)):
        assert main([*argv[:-1], "empty", "--count", "1", *more]) == 0
    assert len(list(Path("empty").iterdir())) == 3


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


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(home, capsys):
    Path("closed").mkdir(mode=0o500)
    for target in (["--output", "closed/g.png"], ["--output-dir", "closed"]):
        assert "cannot be written to" in error_line(
            capsys, ["generate", PROMPT, "--model", "tiny", *target]
        )


@pytest.mark.parametrize("prompt", ["a red circle \u5728 \U0001f600", "\u7ea2\u8272\u7684\u5706"])
def test_a_prompt_with_unknown_words_gets_a_picture_and_a_note(home, capsys, prompt):
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


def test_a_checkpoint_of_another_encoder_is_refused(home, capsys):
    file = home / "checkpoints" / "tiny.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    card["encoder"]["fingerprint"] = "f" * 16
    file.write_text(json.dumps(card), encoding="utf-8")
    line = error_line(capsys, ["generate", PROMPT, "--model", "tiny"])
    assert "reads by another encoder 'caption-bert' (fingerprint ffff" in line
    shutil.rmtree(home / "encoders" / "caption-bert")
    assert "encoder is missing" in error_line(capsys, ["generate", PROMPT, "--model", "tiny"])
