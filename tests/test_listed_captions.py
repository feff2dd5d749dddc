"""COCO's annotations read as a stream: as if read whole, or left to the reader that explains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from t2i_course import coco_folder, listed_captions
from t2i_course.coco_folder import CheckedCaptions, find_split
from t2i_course.listed_captions import ListedCaptions, open_captions, stream_lists

DOCUMENT = {
    "info": {"year": 2017, "nested": [{"a": [1, {"b": "]}"}]}]},
    "numbers": [1, -2.5, 1e3, True, None, "text, with [marks] {and} \"quotes\""],
    "none": [],
    "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(40)],
    "annotations": [{"id": k, "caption": f"près de 猫 \N{CAT FACE} {k}\n"} for k in range(90)],
    "last": 17,
}  # fmt: skip
ENTRIES = [(name, e) for name, part in DOCUMENT.items() if isinstance(part, list) for e in part]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("form", [{}, {"indent": 1}, {"ensure_ascii": False}])
def test_every_entry_of_every_list_is_read(tmp_path, monkeypatch, chunk, form):
    monkeypatch.setattr(listed_captions, "CHUNK", chunk)
    for start, end in (("", ""), ("\ufeff \n", " \n\t")):
        (tmp_path / "a.json").write_text(start + json.dumps(DOCUMENT, **form) + end, "utf-8")
        assert list(stream_lists(tmp_path / "a.json")) == ENTRIES


def test_a_text_cut_anywhere_is_an_error(tmp_path):
    whole = json.dumps(DOCUMENT)
    for length in range(0, len(whole), 11):
        (tmp_path / "a.json").write_text(whole[:length])
        with pytest.raises(ValueError):
            list(stream_lists(tmp_path / "a.json"))


WRONG = [
    "", "[]", "17", '"a"', "{", "{}}", '{"a": [1 2]}', '{"a": [1,]}', '{"a": 1 "b": 2}',
    '{"a": [1], "a": [2]}', "{1: 2}", "{'a': 1}", '{"a": [1}', '{"a" [1]}', '{"a": []} x',
    '{"a": 1,}',
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_json_object_is_an_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):
        list(stream_lists(tmp_path / "a.json"))


def test_bytes_that_are_not_utf_8_are_an_error(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(ValueError):
        list(stream_lists(tmp_path / "a.json"))


def edit(folder: Path, change) -> None:
    file = folder / "annotations" / "captions_train.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def shuffle(document: dict) -> None:
    """Other orders, and letters beyond ASCII."""
    rng = np.random.default_rng(0)
    for number, entry in enumerate(document["annotations"]):
        entry["caption"] = f" {number} près de 猫\n"
    for name in ("images", "annotations"):
        rng.shuffle(document[name])
    document["annotations"] += document["annotations"][:0]
    document["images"] = document.pop("images")  # now after the annotations


@pytest.mark.parametrize("change", [lambda document: None, shuffle])
def test_images_and_captions_are_those_of_the_other_reader(photos, change):
    edit(photos, change)
    split = find_split(photos, "train")
    listed, checked = open_captions(split), CheckedCaptions(split)
    assert isinstance(listed, ListedCaptions) and len(listed) == len(checked) == 60
    assert listed.ids == checked.ids and listed.skipped == checked.skipped
    for row in range(60):
        assert listed.captions(row) == checked.captions(row) == listed[row][1] == checked[row][1]
        assert listed.file_name(row) == checked.file_name(row)
        assert np.array_equal(listed[row][0], checked[row][0])


def test_divided_folder_has_the_images_of_its_split(photos):
    (photos / "annotations" / "captions_val.json").unlink()
    for file in (photos / "val").iterdir():
        file.unlink()
    (photos / "val").rmdir()
    for role in ("train", "val"):
        split = find_split(photos, role)
        listed = open_captions(split)
        assert isinstance(listed, ListedCaptions)
        assert tuple(listed.ids) == split.image_ids
        assert [text for _, text in listed] == [text for _, text in CheckedCaptions(split)]


def first(name: str, **changes):
    return lambda document: document[name][0].update(changes)


FAULTS = {
    "empty caption": first("annotations", caption=" \n"),
    "caption is a number": first("annotations", caption=3),
    "caption of no image": first("annotations", image_id=424242),
    "caption twice": lambda document: document["annotations"].append(document["annotations"][0]),
    "image twice": lambda document: document["images"].append(document["images"][0]),
    "image missing": first("images", file_name="none.bmp"),
    "image without caption": lambda document: document.update(
        annotations=[a for a in document["annotations"] if a["image_id"] != 1]
    ),
    "no images": lambda document: document.update(images=[]),
    "no annotations": lambda document: document.pop("annotations"),
    "id is a text": first("images", id="1"),
    "id is a truth value": first("images", id=True),
    "id too large": first("images", id=2**70),
    "name leads out": first("images", file_name="../x.jpg"),
    "name is a number": first("images", file_name=7),
    "entry is a list": lambda document: document["images"].append([1]),
    "instances": lambda document: [a.pop("caption") for a in document["annotations"]],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_out_of_order_is_left_to_the_reader_that_explains(photos, fault):
    split = find_split(photos, "train")
    edit(photos, FAULTS[fault])
    with pytest.raises((ValueError, KeyError, TypeError, OverflowError)):
        ListedCaptions(split)
    try:
        expected = CheckedCaptions(split)
    except (ValueError, FileNotFoundError, AttributeError) as error:
        with pytest.raises(type(error)) as caught:
            open_captions(split)
        assert str(caught.value) == str(error)
    else:
        assert isinstance(open_captions(split), CheckedCaptions)
        assert open_captions(split).ids == expected.ids


def test_damaged_picture_is_named_as_by_the_other_reader(photos):
    split = find_split(photos, "train")
    listed = open_captions(split)
    (photos / "train" / listed.file_name(3)).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot be read") as caught:
        listed[3]
    with pytest.raises(ValueError) as expected:
        coco_folder.CheckedCaptions(split)[3]
    assert str(caught.value) == str(expected.value)
