"""The embedded data set: the same everywhere, whole or absent, in COCO's layout."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from t2i_course.scenes import drawing, oracle, wording


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def test_same_bytes_as_on_the_machine_where_the_course_was_written(small_scenes):
    assert digest(small_scenes) == (
        "9e80c80d3e5cbd96520bf4bb6a2499d3eaebb17cee682b618d4284ba1e371cdd"
    )


def test_second_call_writes_nothing(small_scenes):
    before = {p: p.stat().st_mtime_ns for p in small_scenes.rglob("*")}
    drawing.make_scenes(small_scenes, train=60, val=40, test=4, progress=False)
    assert {p: p.stat().st_mtime_ns for p in small_scenes.rglob("*")} == before


def test_first_pictures_do_not_depend_on_how_many_are_made(small_scenes, tmp_path):
    fewer = drawing.make_scenes(tmp_path / "fewer", train=5, val=3, test=4, progress=False)
    for path in (fewer / "train").iterdir():
        assert path.read_bytes() == (small_scenes / "train" / path.name).read_bytes()


def test_crowded_scenes_hold_three_objects_more_often_in_training_alone(tmp_path):
    folder = drawing.make_scenes(tmp_path / "some", 300, 40, test=4, progress=False, crowded=True)
    usual = drawing.make_scenes(tmp_path / "usual", 300, 40, test=4, progress=False)
    three = {
        place: np.mean(
            [len(s.objects) == 3 for s in drawing.read_instances(place, "train").values()]
        )
        for place in (folder, usual)
    }
    assert three[folder] > 0.47 and three[usual] < 0.38  # 57 % and 28 %, 3 deviations
    for path in sorted((usual / "val").iterdir()):
        assert path.read_bytes() == (folder / "val" / path.name).read_bytes()
    with pytest.raises(FileExistsError, match="crowded"):
        drawing.make_scenes(usual, 300, 40, test=4, progress=False, crowded=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="delete or move"):
        drawing.make_scenes(tmp_path, train=3, val=2, test=4, progress=False)
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_training_pictures_hold_no_unseen_pair_and_half_of_val_does(small_scenes):
    pairs = {}
    for split in ("train", "val"):
        instances = COCO(small_scenes / "annotations" / f"instances_{split}.json")
        names = {c["id"]: c["name"] for c in instances.dataset["categories"]}
        for image in instances.dataset["images"]:
            own = instances.imgToAnns[image["id"]]
            held_out = {(names[a["category_id"]], a["color"]) for a in own} & drawing.UNSEEN_PAIRS
            pairs.setdefault(image["subset"], []).append(bool(held_out))
    assert not any(pairs["train"])
    assert not any(pairs["val_seen"])
    assert all(pairs["val_unseen"])
    assert len(pairs["val_seen"]) == len(pairs["val_unseen"])


def test_train_captions_use_no_unseen_word_and_each_image_has_five(small_scenes):
    entries = drawing.read_captions(small_scenes, "train")
    for entry in entries:
        assert not any(word in entry["caption"] for word in wording.UNSEEN_WORDS)
    assert set(Counter(entry["image_id"] for entry in entries).values()) == {5}
    assert len(entries) == 5 * 60


def test_boxes_lie_inside_the_picture_and_do_not_overlap():
    for index in range(500):
        things = drawing.sample_scene(random.Random(f"boxes {index}")).objects
        for k, one in enumerate(things):
            reach = one.diameter / 2
            assert reach <= one.x <= drawing.SIDE - reach
            assert reach <= one.y <= drawing.SIDE - reach
            for other in things[:k]:
                gap = max(abs(one.x - other.x), abs(one.y - other.y))
                assert gap >= (one.diameter + other.diameter) / 2 + 3


def test_masks_have_the_area_of_their_shape():
    for diameter in (13, 20, 28):
        circle = np.asarray(drawing.shape_mask("circle", diameter), dtype=float).sum() / 255
        assert circle == pytest.approx(np.pi * diameter**2 / 4, rel=0.03)
        square = np.asarray(drawing.shape_mask("square", diameter), dtype=float).sum() / 255
        assert square == pytest.approx((0.86 * diameter) ** 2, rel=0.04)


def test_annotation_facts_are_true_of_the_written_picture(small_scenes):
    for entry in drawing.read_captions(small_scenes, "val"):
        pixels = np.asarray(Image.open(small_scenes / "val" / f"{entry['image_id']:012d}.bmp"))
        checks = oracle.check_facts(entry["facts"], oracle.read_picture(pixels))
        assert all(checks.values()), (entry, checks)


def test_unknown_shape_or_background_is_named():
    with pytest.raises(ValueError, match="hexagon"):
        drawing.shape_mask("hexagon", 20)
    with pytest.raises(ValueError, match="marble"):
        drawing.render(drawing.Scene("marble"))


def test_captions_are_read_with_their_facts(small_scenes):
    entries = drawing.read_captions(small_scenes, "val")
    assert len(entries) == 5 * 40
    assert {entry["wording"] for entry in entries} == {"seen", "unseen"}


def test_captions_without_facts_or_without_a_file_are_an_error(tmp_path):
    for read in (drawing.read_captions, drawing.read_instances):
        with pytest.raises(FileNotFoundError, match="drawn scenes only"):
            read(tmp_path, "val")
    (tmp_path / "annotations").mkdir()
    photo = {"annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
    file = tmp_path / "annotations" / "captions_val.json"
    file.write_text(json.dumps(photo), encoding="utf-8")
    with pytest.raises(ValueError, match="have no facts"):
        drawing.read_captions(tmp_path, "val")
