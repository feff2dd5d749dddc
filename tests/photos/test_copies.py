"""Copies of a picture are found, and stay on one side."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from photo_folder import make_split, photo, read_captions, write_captions
from PIL import Image

from t2i_course import data
from t2i_course.photos import copies
from t2i_course.photos.pictures import Sample


def saved(image: Image.Image, form: str, **options) -> Sample:
    file = io.BytesIO()
    image.save(file, form, **options)
    return Sample(0, "", [], file.getvalue(), "a picture")


def groups_of(samples: list[Sample]) -> list[int]:
    return copies.group_copies(copies.reduce_pictures(iter(samples), len(samples))).tolist()


def test_pictures_saved_anew_in_another_form_or_size_are_copies_and_others_are_none():
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = []
    for seed in range(8):
        image = photo(320, 240, seed)
        samples += [
            saved(image, "PNG"),
            saved(image, "JPEG", quality=40),
            saved(image.resize((160, 120)), "WEBP", quality=80),
            saved(image.rotate(90, expand=True), "JPEG", quality=90, exif=exif),
        ]
    flat = [saved(Image.new("RGB", (30, 20), (90, 20 * k, 0)), "PNG") for k in range(5)]
    groups = groups_of(samples + flat)
    assert all(groups[4 * k : 4 * k + 4] == [groups[4 * k]] * 4 for k in range(8))
    assert len(set(groups)) == 8 + 5


def test_a_picture_that_cannot_be_read_is_a_copy_of_none():
    broken = Sample(0, "", [], b"nothing", "a picture")
    assert len(set(groups_of([broken, broken, saved(photo(30, 20, 1), "PNG")]))) == 3


def test_groups_go_to_one_side_and_a_tenth_at_most_is_held_out():
    groups = np.array([0] * 40 + [k for k in range(1, 31) for _ in range(2)])
    ids = list(range(100))
    val, train = (copies.hold_out(ids, groups, split) for split in ("val", "train"))
    assert sorted(val + train) == ids and len(val) == 10
    assert not {groups[k] for k in val} & {groups[k] for k in train}
    assert copies.hold_out(ids, groups, "val") == val
    assert copies.hold_out([1, 2, 3, 4, 5], np.array([0, 0, 0, 1, 1]), "val") == (4, 5)
    with pytest.raises(ValueError, match="all pictures are copies of one"):
        copies.hold_out([1, 2], np.array([0, 0]), "val")


def test_copies_in_a_folder_are_counted_and_never_in_both_parts(tmp_path):
    folder = tmp_path / "photos"
    make_split(folder, "train", ["wide"] * 8, 1)
    document = read_captions(folder, "train")
    for number, image in enumerate(document["images"][:]):
        name = image["file_name"]  # the file under a second id, a copy of it, one saved anew
        shutil.copy(folder / "train" / name, folder / "train" / f"copy of {name}")
        with Image.open(folder / "train" / name) as opened:
            opened.save(folder / "train" / f"{number}.png")
        for k, other in enumerate((name, f"copy of {name}", f"{number}.png"), start=1):
            new = 1000 * k + number
            document["images"].append({"id": new, "file_name": other, "of": image["id"]})
            document["annotations"].append({"id": new, "image_id": new, "caption": f"{new}"})
    write_captions(folder, "train", document)
    shown = {i["id"]: i.get("of", i["id"]) for i in document["images"]}
    with pytest.warns(UserWarning, match="32 of 32 pictures .* are copies, of 8 different ones"):
        train = data.pack(folder, "train", 16, tmp_path / "cache", progress=False)
    val = data.find_split(folder, "val").image_ids
    assert len(val) == 4 and len(train) == 28
    assert not {shown[k] for k in val} & {shown[k] for k in train.image_ids.tolist()}


def test_groups_of_many_pictures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    monkeypatch.setattr(copies, "KEPT_FROM", 3)
    samples = [saved(photo(30, 20, seed), "PNG") for seed in (1, 2, 1)]
    first = copies.find_copies(lambda: iter(samples), 3, "a data set")
    copies._known.clear()
    again = copies.find_copies(lambda: iter([]), 3, "a data set")
    assert first.tolist() == again.tolist() and first[0] == first[2] != first[1]
