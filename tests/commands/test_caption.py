import random

import numpy as np
import pytest
from PIL import Image

from t2i_course.__main__ import main
from t2i_course.scenes import drawing
from t2i_course.scenes.caption_reader import is_true

TURNED = 274  # EXIF's orientation


@pytest.fixture(scope="module")
def scene():
    return drawing.sample_scene(random.Random("caption"), unseen=False, shares={"one": 1})


def caption_of(capsys, *argv):
    assert main(["caption", *map(str, argv), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert "%" in told.out and "sure of a word" in told.out
    return told.out.split(": ", 1)[1].rsplit(" (", 1)[0].strip(), told.err


def test_a_scene_is_worded_truly_and_without_a_warning(scene, tmp_path, capsys):
    drawing.render(scene).save(tmp_path / "scene.png")
    caption, remarks = caption_of(capsys, tmp_path / "scene.png")
    assert is_true(caption, scene) is True and remarks == ""


def of_kind(kind, picture):
    """The same scene in another kind of file."""
    if kind == "palette":
        return picture.quantize(256, dither=Image.Dither.NONE), {}
    if kind == "RGBA":
        return picture.convert("RGBA"), {}
    if kind == "20 megapixels":
        return picture.resize((4480, 4480), Image.Resampling.NEAREST), {}
    exif = Image.Exif()
    exif[TURNED] = 6  # to be turned right by a quarter
    return picture.transpose(Image.Transpose.ROTATE_90), {"exif": exif}


@pytest.mark.parametrize("kind", ["palette", "RGBA", "20 megapixels", "turned"])
def test_the_same_scene_in_any_kind_of_file_is_worded_truly(kind, scene, tmp_path, capsys):
    picture, options = of_kind(kind, drawing.render(scene))
    picture.save(tmp_path / "scene.png", **options)
    caption, remarks = caption_of(capsys, tmp_path / "scene.png")
    assert is_true(caption, scene) is True and remarks == ""


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (640, 480)])
def test_noise_of_any_size_gets_a_caption_and_a_warning(size, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")  # gray
    caption, remarks = caption_of(capsys, tmp_path / "noise.png")
    assert caption and remarks.count("\n") == 1
    assert "no scene that the model knows" in remarks


@pytest.mark.parametrize(("name", "content", "message"), [
    ("empty.png", b"", "is empty: copy it again"),
    ("text.png", b"not a picture", "cannot be read as a picture"),
    ("cut.png", None, "cannot be read as a picture"),
    ("nothing.png", "", "check the path"),
])  # fmt: skip
def test_what_is_no_picture_is_one_clear_line(
    name, content, message, scene, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    drawing.render(scene).save("whole.png")
    if content is None:
        content = (tmp_path / "whole.png").read_bytes()[:200]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    assert main(["caption", name, "whole.png", "--device", "cpu"]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and name in told.err and message in told.err
    assert told.out.startswith("whole.png: ")  # the others are worded all the same
    assert main(["caption", ".", "--device", "cpu"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_width_below_1_is_an_error(capsys):
    assert main(["caption", "a.png", "--width", "0"]) == 2
    assert "--width 0: choose 1 (greedy) or more" in capsys.readouterr().err
