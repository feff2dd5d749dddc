import numpy as np
import pytest
from PIL import Image

from t2i_course import data
from t2i_course.photos.convert import convert_table


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if k % 2 else "") / f"{k}.png")
    return folder


def names():
    return [f"{'more/' if k % 2 else ''}{k}.png" for k in range(12)]


def write(tmp_path, lines):
    table = tmp_path / "captions.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_a_table_becomes_a_folder_that_the_course_reads(pictures, tmp_path, separator, header):
    lines = [f"image{separator}caption"] if header else []
    lines += [f"{name}{separator}a picture of {name}" for name in names()]
    lines += [f"{name}{separator}\u4e00 {name}" for name in names()]
    folder = convert_table(write(tmp_path, lines), pictures, tmp_path / "mine", progress=False)
    parts = [data.load_split(folder, split) for split in ("train", "val")]
    assert [len(part) for part in parts] == [11, 1]
    found = [part[k] for part in parts for k in range(len(part))]
    assert all(image.size == (40, 30) and len(texts) == 2 for image, texts in found)
    assert sorted(t for _, texts in found for t in texts if t.startswith("a ")) == sorted(
        f"a picture of {name}" for name in names()
    )


def test_commas_in_a_caption_need_no_quotes_and_quotes_are_taken_off(pictures, tmp_path):
    lines = ["0.png,a dog, a cat, and a mouse", '2.png,"one, ""two"""']
    folder = convert_table(write(tmp_path, lines), pictures, tmp_path / "mine", progress=False)
    texts = {
        text
        for split in ("train", "val")
        for part in [data.load_split(folder, split)]
        for k in range(len(part))
        for text in part[k][1]
    }
    assert texts == {"a dog, a cat, and a mouse", 'one, "two"'}


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["0.png,a", "none.png,b"], FileNotFoundError, "line 2: no picture"),
        (["0.png,a", "2.png"], ValueError, "line 2: needed are a file name and a caption"),
        (["0.png,a", "2.png,"], ValueError, "line 2: needed are"),
        (["../pictures/0.png,a"], ValueError, "leads out of"),
        (["image,caption"], ValueError, "holds no caption"),
        (["0.png;a", "2.png;b;c"], ValueError, "line 2: needed are"),
        (["broken.png,a"], ValueError, "is no picture"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(pictures, tmp_path, lines, error, message):
    (pictures / "broken.png").write_bytes(b"nothing")
    with pytest.raises(error, match=message):
        convert_table(write(tmp_path, lines), pictures, tmp_path / "mine", progress=False)
    assert not (tmp_path / "mine").exists()


def test_what_exists_is_not_touched_and_missing_places_are_named(pictures, tmp_path):
    table = write(tmp_path, ["0.png,a", "2.png,b"])
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="name a new folder"):
        convert_table(table, pictures, tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="no table"):
        convert_table(tmp_path / "none.csv", pictures, tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="no folder of pictures"):
        convert_table(table, tmp_path / "none", tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="make it first"):
        convert_table(table, pictures, tmp_path / "none" / "new")
    table.write_bytes("0.png,caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        convert_table(table, pictures, tmp_path / "new")
