"""Photos that packages ship become a folder in COCO's layout."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

import pytest

from t2i_course import data
from t2i_course.photos.sample_photos import SPLITS, make_sample_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sample_photos(tmp_path_factory.mktemp("sample") / "photos")


def test_all_are_read_and_none_is_downloaded(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = make_sample_photos(tmp_path / "photos")
    for split, number in (("train", 12), ("val", 3)):
        packed = data.pack(folder, split, 32, cache=tmp_path / "cache", progress=False)
        assert len(packed) == number and not packed.problems
        assert [len(group) for group in packed.captions] == [5] * number
        assert all(images.std() > 5 for images in packed.images)  # bytes: none is blank


def test_annotations_give_licence_credit_and_size(folder):
    listed = data.load_split(folder, "val").coco
    names = {entry["id"]: entry["name"] for entry in listed.dataset["licenses"]}
    (portrait,) = (i for i in listed.imgs.values() if i["file_name"] == "grace_hopper.jpg")
    assert (portrait["width"], portrait["height"]) == (512, 600)
    assert names[portrait["license"]] == "public domain" and "Navy" in portrait["credit"]


def test_every_photo_has_five_different_captions_of_plain_letters():
    captions = [c for photos in SPLITS.values() for photo in photos for c in photo.captions]
    assert len(captions) == len(set(captions)) == 75
    assert all(re.fullmatch(r"[A-Z][A-Za-z ,]+\.", caption) for caption in captions)


def test_a_second_call_changes_nothing(folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert make_sample_photos(folder) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_a_missing_photo_is_named_and_leaves_no_folder(tmp_path, monkeypatch):
    gone = replace(SPLITS["val"][0], file="absent.jpg")
    monkeypatch.setitem(SPLITS, "val", (gone,))
    with pytest.raises(FileNotFoundError, match="matplotlib ships absent.jpg.*pip install"):
        make_sample_photos(tmp_path / "photos")
    assert list(tmp_path.iterdir()) == []
