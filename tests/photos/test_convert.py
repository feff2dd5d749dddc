import json
import shutil

import numpy as np
import pytest
from PIL import Image

from t2i_course import data
from t2i_course.__main__ import main
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


@pytest.mark.parametrize(
    ("separator", "header"), [(",", True), (";", False), ("\t", True), ("|", False)]
)
def test_a_table_becomes_a_folder_that_the_course_reads(pictures, tmp_path, separator, header):
    lines = [f"image{separator}caption"] if header else []
    lines += [f"{name}{separator}a picture of {name}" for name in names()]
    lines += [f"{name}{separator}\u4e00 {name}" for name in names()]
    folder = convert_table(write(tmp_path, lines), pictures, tmp_path / "mine").folder
    parts = [data.load_split(folder, split) for split in ("train", "val")]
    assert [len(part) for part in parts] == [11, 1]
    found = [part[k] for part in parts for k in range(len(part))]
    assert all(image.size == (40, 30) and len(texts) == 2 for image, texts in found)
    assert sorted(t for _, texts in found for t in texts if t.startswith("a ")) == sorted(
        f"a picture of {name}" for name in names()
    )


def read(pictures, tmp_path, text, **options):
    """Convert a table; return {file name: captions}, and what came of it."""
    table = tmp_path / "table"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    shutil.rmtree(tmp_path / "mine", ignore_errors=True)
    made = convert_table(table, pictures, tmp_path / "mine", **options)
    document = json.loads((made.folder / "annotations" / "captions_train.json").read_text())
    found = {image["id"]: (image["file_name"], []) for image in document["images"]}
    for entry in document["annotations"]:
        found[entry["image_id"]][1].append(entry["caption"])
    return dict(found.values()), made


TABLES = {
    "commas without quotes": (
        '0.png,a dog, a cat, and a mouse\n2.png,"one, ""two"""\n',
        {"0.png": ["a dog, a cat, and a mouse"], "2.png": ['one, "two"']},
    ),
    "a space before the quotes": (
        'image, caption\n0.png, "a dog, ""big"""\n',
        {"0.png": ['a dog, "big"']},
    ),
    "Flickr8k": (
        '0.png#0\tA child\n0.png#1\t"A" girl , too\n2.png#0\tA dog .\n',
        {"0.png": ["A child", '"A" girl , too'], "2.png": ["A dog ."]},
    ),
    "Flickr30k": (
        'image_name| comment_number| comment\n0.png| 0| Two men , "here" .\n0.png| 1   A dog .\n',
        {"0.png": ['Two men , "here" .', "A dog ."]},
    ),
    "a number between": (
        'image_name,comment_number,comment\n0.png,0,Two men .\n0.png,1,"Two, in green"\n',
        {"0.png": ["Two men .", "Two, in green"]},
    ),
    "other columns": (
        "split;Caption;id;File Name\ntrain;A wall;7;0.png\n",
        {"0.png": ["A wall"]},
    ),
    "two captions a row": (
        "image,caption_1,caption_2\n0.png,A wall,One wall\n2.png,A dog,\n",
        {"0.png": ["A wall", "One wall"], "2.png": ["A dog"]},
    ),
    "a list in a cell": (
        'raw,filename,img_id\n"[""a dog"", ""a cat""]",0.png,0\n',
        {"0.png": ["a dog", "a cat"]},
    ),
    "names without suffix": (
        "image,caption\n0,A wall\nmore/1,A dog\n2.png,A cat\n",
        {"0.png": ["A wall"], "more/1.png": ["A dog"], "2.png": ["A cat"]},
    ),
    "other ways to write a name": (
        "image,caption\n0.png,A\n./0.png,B\nmore\\1.png,C\n",
        {"0.png": ["A", "B"], "more/1.png": ["C"]},
    ),
    "caption first": ("caption,image\nA wall,0.png\n", {"0.png": ["A wall"]}),
    "Excel's first line": (
        "sep=;\r\nimage;caption\r\n0.png;A dog, wet\r\n",
        {"0.png": ["A dog, wet"]},
    ),
    "UTF-16": ("image\tcaption\n0.png\t猫\n".encode("utf-16"), {"0.png": ["猫"]}),
    "ends of lines": (
        "image,caption\r0.png,one\u2028line\x0b\x85and\x1c end\r\n2.png,B\n",
        {"0.png": ["one\u2028line\x0b\x85and\x1c end"], "2.png": ["B"]},
    ),
}


@pytest.mark.parametrize("form", TABLES)
def test_tables_are_understood_by_their_columns(pictures, tmp_path, form):
    text, expected = TABLES[form]
    found, made = read(pictures, tmp_path, text)
    assert found == expected
    assert (made.pictures, made.captions) == (len(expected), sum(map(len, expected.values())))


def test_what_was_read_and_passed_over_is_told(pictures, tmp_path, capsys):
    table = tmp_path / "c.csv"
    table.write_text("image,caption,split\n0.png,A wall,train\nnone.png,A dog,test\n")
    command = ["convert", str(table), str(pictures), "--output", str(tmp_path / "mine")]
    assert main(command) == 2
    assert main([*command, "--on-bad-image", "skip"]) == 0
    out, err = capsys.readouterr()
    assert (
        "read: 1 pictures, 1 captions (file name: image; caption: caption; passed over: split)"
        in out
    )
    assert "1 pictures left out" in out and "line 3: no picture" in err


def test_links_are_followed(pictures, tmp_path):
    store, linked = tmp_path / "store", tmp_path / "linked"
    store.mkdir()
    linked.mkdir()
    (pictures / "0.png").rename(store / "k")
    (linked / "a.png").symlink_to("../store/k")
    (linked / "more").symlink_to(pictures / "more")
    read(linked, tmp_path, "a.png,A wall\nmore/1.png,A dog\n")
    shutil.move(linked, tmp_path / "moved")
    for name in ("a.png", "more/1.png"):
        assert Image.open(tmp_path / "mine" / "train" / name).size == (40, 30)
    (linked).mkdir()
    (linked / "b.png").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match="line 1: .*b.png is a link to a file that is not"):
        read(linked, tmp_path, "b.png,A wall\n")
    (linked / "c.png").symlink_to("c.png")
    with pytest.raises(FileNotFoundError, match="line 1: .*c.png is a link to a file that is not"):
        read(linked, tmp_path, "c.png,A wall\n")


def test_paths_from_the_root_may_lead_into_the_folder(pictures, tmp_path):
    found, _ = read(pictures, tmp_path, f"{pictures}/0.png,A wall\nmore/1.png,A dog\n")
    assert found == {"0.png": ["A wall"], "more/1.png": ["A dog"]}
    with pytest.raises(ValueError, match="line 1: '/elsewhere/0.png' leads out"):
        read(pictures, tmp_path, "/elsewhere/0.png,A wall\nmore/1.png,A dog\n")


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["0.png,a", "none.png,b"], FileNotFoundError, "line 2: no picture"),
        (["0.png,a", "2.png"], ValueError, "line 2: needed are a file name and a caption"),
        (["../pictures/0.png,a"], ValueError, "leads out of"),
        (["image,caption"], ValueError, "holds no caption"),
        (["0.png;a", "2.png;b;c"], ValueError, "line 2: needed are"),
        (["broken.png,a"], ValueError, "line 1: .*is no picture"),
        (["0.png,0,a", "2.png,1,a, b"], ValueError, "3 columns and no header"),
        (["image,text,description", "0.png,a,b"], ValueError, "which column holds the caption"),
        (["image,path,caption", "0.png,2.png,b"], ValueError, "which column holds the file name"),
        (
            ["image,caption,split", "0.png,a, b,train"],
            ValueError,
            "line 2: needed are .* 3 columns",
        ),
        (
            ["image,caption", '0.png,"a', "2.png,b"] * 99,
            ValueError,
            "line 2: a quote is not closed",
        ),
        (["0.png\ta", '2.png\t"b', '4.png\tsays "c'], ValueError, "line 2: a quote is not closed"),
        (["image,caption", '0.png,"a "" b', '2.png,"b"'], ValueError, "line 2: a quote is not"),
        (["image,caption", "image,caption", "0.png,a"], FileNotFoundError, "line 2: no picture"),
        (["none.jpg,a", "0.png,b"], FileNotFoundError, "line 1: no picture"),
        (["words"], ValueError, "columns hold cannot be told: begin it with a row that names"),
        (["Bild;Satz", "0.png;Ein Hund"], ValueError, "columns hold cannot be told: begin it"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(pictures, tmp_path, lines, error, message):
    (pictures / "broken.png").write_bytes(b"nothing")
    with pytest.raises(error, match=message):
        convert_table(write(tmp_path, lines), pictures, tmp_path / "mine")
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
