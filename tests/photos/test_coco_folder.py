"""Folders in COCO's layout: found, divided, read, and every fault in them named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from photo_folder import SIZE, cache_files, make_split, read_captions, write_captions
from torchvision.datasets import CocoCaptions

from t2i_course import data
from t2i_course.photos import coco_folder as coco_folder_module

# The folder


def test_coco_names_and_short_names_are_found(coco_folder, tmp_path):
    assert data.find_split(coco_folder, "train").name == "train2017"
    assert data.find_split(coco_folder, "val").name == "val2017"
    make_split(tmp_path / "other", "train", ["plain"], 1)
    make_split(tmp_path / "other", "dev", ["plain"], 1)
    assert data.find_split(tmp_path / "other", "train").image_ids is None
    assert data.find_split(tmp_path / "other", "val").name == "dev"
    assert data.resolve_data(coco_folder) == coco_folder


def test_single_split_is_divided_without_overlap_and_always_alike(tmp_path):
    make_split(tmp_path, "val2017", ["tiny"] * 30, 1)
    train, val = (data.find_split(tmp_path, split).image_ids for split in ("train", "val"))
    listed = {image["id"] for image in read_captions(tmp_path, "val2017")["images"]}
    assert set(train) | set(val) == listed
    assert not set(train) & set(val)
    assert len(val) == 3
    assert data.find_split(tmp_path, "val").image_ids == val
    assert data.load_split(tmp_path, "val").ids == list(val)
    assert data.load_split(tmp_path, "train").ids == list(train)


def test_split_is_a_coco_captions_data_set_and_prints_nothing(coco_folder, capsys):
    document = read_captions(coco_folder) | {"categories": [{"id": 1, "name": "bus"}]}
    document["annotations"][0]["caption"] = "un chat près d'une fenêtre, 猫 \N{CAT FACE}"
    write_captions(coco_folder, "train2017", document)
    dataset = data.load_split(coco_folder, "train")
    assert isinstance(dataset, CocoCaptions)
    assert capsys.readouterr() == ("", "")
    texts = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        texts[annotation["image_id"]].append(annotation["caption"])
    assert dataset.ids == sorted(texts)
    for index, image_id in enumerate(dataset.ids):
        image, captions = dataset[index]
        assert image.mode == "RGB"
        assert captions == texts[image_id]
    cut_short(coco_folder)
    with pytest.raises(ValueError, match=r"000000000100\.jpg cannot be read"):
        dataset[dataset.ids.index(100)]


def test_instances_are_read_without_printing(coco_folder, capsys):
    image_id = read_captions(coco_folder)["images"][0]["id"]
    box = {"id": 1, "image_id": image_id, "category_id": 3, "bbox": [1, 2, 3, 4]}
    document = read_captions(coco_folder) | {"annotations": [box]}
    document["categories"] = [{"id": 3, "name": "bus"}]
    file = coco_folder / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    coco = data.instances(coco_folder, "train")
    assert coco.loadAnns(coco.getAnnIds(imgIds=image_id, catIds=3)) == [box]
    assert capsys.readouterr() == ("", "")
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json is missing"):
        data.instances(coco_folder, "val")


def test_linked_folders_are_listed_once(coco_folder, tmp_path):
    more = tmp_path / "more"
    (coco_folder / "val2017").rename(more)
    (more / "again").symlink_to(more)  # leads back
    (coco_folder / "val2017").symlink_to(more)
    names = set(coco_folder_module.list_images(coco_folder / "val2017"))
    assert names == {file.name for file in more.glob("*.jpg")}
    (coco_folder / "train2017" / "more").symlink_to(more)
    assert f"more/{min(names)}" in coco_folder_module.list_images(coco_folder / "train2017")


# Bad input


def image_path(folder: Path, index: int = 0) -> Path:
    return folder / "train2017" / read_captions(folder)["images"][index]["file_name"]


def cut_short(folder: Path) -> None:
    path = image_path(folder)
    path.write_bytes(path.read_bytes()[:-600])


def remove_image(folder: Path) -> None:
    image_path(folder).unlink()


def edit(**changes):
    """Change the first image ("file_name", "id") or a caption of it in the annotation file."""

    def change(folder: Path) -> None:
        document = read_captions(folder)
        image = document["images"][0]
        caption = next(a for a in document["annotations"] if a["image_id"] == image["id"])
        for name, value in changes.items():
            (image if name in ("file_name", "id") else caption)[name] = value
        text = json.dumps(document)  # ASCII: a half letter has no place in UTF-8
        (folder / "annotations" / "captions_train2017.json").write_text(text, encoding="ascii")

    return change


def remove_captions(folder: Path) -> None:
    document = read_captions(folder)
    gone = document["images"][0]["id"]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != gone]
    write_captions(folder, "train2017", document)


def dangle(folder: Path) -> None:
    path = image_path(folder)
    path.unlink()
    path.symlink_to("../gone.jpg")


def make_instances_file(folder: Path) -> None:
    document = read_captions(folder)
    for annotation in document["annotations"]:
        del annotation["caption"]
        annotation["bbox"] = [0, 0, 1, 1]
    write_captions(folder, "train2017", document)


def repeat_entry(name: str):
    def change(folder: Path) -> None:
        document = read_captions(folder)
        document[name].append(document[name][0])
        write_captions(folder, "train2017", document)

    return change


def write_annotations(content: bytes):
    def change(folder: Path) -> None:
        (folder / "annotations" / "captions_train2017.json").write_bytes(content)

    return change


FAULTY_IMAGES = {
    "JPEG cut short": (cut_short, ValueError, r"000100\.jpg cannot be read \(image file is trunc"),
    "image missing": (remove_image, FileNotFoundError, r"000100\.jpg is missing"),
    "image without caption": (remove_captions, ValueError, r"000100\.jpg has no caption"),
    "empty caption": (edit(caption=" \n"), ValueError, r"000100\.jpg has an empty caption in .*"),
    "half a letter": (edit(caption="a dog \ud83d"), ValueError, r"000100\.jpg has .* surrogate"),
    "dangling link": (dangle, FileNotFoundError, r"000100\.jpg is missing, a link to a file that"),
}
FAULTY_FILES = {
    "not JSON": (write_annotations(b"{'images': []}"), ValueError, "is not JSON"),
    "JSON cut short": (write_annotations(b'{"images": [{"id": 1'), ValueError, "cut short"),
    "not text": (write_annotations(b"\xff\xd8\xff\xe0\0\0"), ValueError, "is not JSON"),
    "a list": (write_annotations(b"[]"), ValueError, 'no list "images"'),
    "instances file": (make_instances_file, ValueError, "holds no captions: .*bbox.*instances"),
    "caption of no image": (edit(image_id=424242), ValueError, "image 424242, which .* not list"),
    "caption is a number": (edit(caption=3), ValueError, "needs a text and an id"),
    "id is a text": (edit(id="100"), ValueError, "whole number id"),
    "id is too large": (edit(id=2**63), ValueError, "whole number id, of 64 bits"),
    "image id is a text": (edit(image_id="100"), ValueError, "image '100', which is no whole"),
    "name with half a letter": (edit(file_name="a\ud83d.jpg"), ValueError, "needs a whole number"),
    "an entry is a list": (
        lambda folder: write_captions(folder, "train2017", {"images": [{}, []], "annotations": []}),
        ValueError,
        'no list "images"',
    ),
    "nested too deep": (write_annotations(b"[" * 100_000), ValueError, "is not JSON"),
    "path out of the folder": (edit(file_name="../x.jpg"), ValueError, r"\.\./x\.jpg' leads out"),
    "Windows path": (edit(file_name="C:\\x.jpg"), ValueError, "leads out of the picture folder"),
    "image listed twice": (repeat_entry("images"), ValueError, "two images have the id 100"),
    "caption listed twice": (repeat_entry("annotations"), ValueError, r"two captions have the id"),
}


@pytest.mark.parametrize("fault", [*FAULTY_IMAGES, *FAULTY_FILES])
def test_fault_is_named_and_nothing_is_left(coco_folder, tmp_path, fault):
    damage, error, message = (FAULTY_IMAGES | FAULTY_FILES)[fault]
    damage(coco_folder)
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(error, match=message) as caught:
        data.pack(coco_folder, "train", SIZE, cache=cache, progress=False)
    assert str(coco_folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cache_files(cache) == []


@pytest.mark.parametrize("fault", FAULTY_IMAGES)
def test_faulty_image_can_be_skipped_and_is_counted(coco_folder, packed, tmp_path, fault):
    damage, error, message = FAULTY_IMAGES[fault]
    damage(coco_folder)
    options = {"cache": tmp_path / "cache", "progress": False}
    with pytest.warns(UserWarning, match=r"1 of 11 images left out.*000000000100\.jpg") as caught:
        skipping = data.pack(coco_folder, "train", SIZE, on_bad_image="skip", **options)
    assert len(caught) == 1, [str(warning.message) for warning in caught]
    assert skipping.skipped == ["000000000100.jpg"]
    assert skipping.image_ids.tolist() == packed.image_ids.tolist()[1:]
    assert np.array_equal(skipping.images, packed.images[1:])
    assert skipping.captions == packed.captions[1:]
    with pytest.raises(error, match=message):  # what was skipped once is not in order now
        data.pack(coco_folder, "train", SIZE, **options)


def test_nothing_left_is_an_error(coco_folder, tmp_path):
    for path in (coco_folder / "train2017").iterdir():
        path.write_bytes(b"no picture")
    options = {"cache": tmp_path / "cache", "progress": False, "on_bad_image": "skip"}
    with pytest.raises(ValueError, match="cannot be read"):
        data.pack(coco_folder, "train", SIZE, **options)
    for path in (coco_folder / "train2017").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no image of .*captions_train2017\.json can be used"):
        data.pack(coco_folder, "train", SIZE, **options)
    assert cache_files(tmp_path / "cache") == []


def test_wrong_folders_are_named(coco_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data folder .*nowhere"):
        data.resolve_data(tmp_path / "nowhere")
    file = tmp_path / "file.zip"
    file.write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"file\.zip is a file"):
        data.resolve_data(file)
    with pytest.raises(FileNotFoundError, match="not in COCO's layout"):
        data.resolve_data(tmp_path)
    (coco_folder / "annotations" / "captions_train2017.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"train2017 has no captions: .*train2017\.json"):
        data.resolve_data(coco_folder)


def test_unknown_choices_are_errors(coco_folder, packed):
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        data.load_split(coco_folder, "dev")
    with pytest.raises(ValueError, match="unknown on_bad_image 'ignore'"):
        data.load_split(coco_folder, "train", on_bad_image="ignore")
    with pytest.raises(ValueError, match="unknown on_bad_image 'ignore'"):
        data.pack(coco_folder, "train", SIZE, packed.path.parent, on_bad_image="ignore")
    with pytest.raises(ValueError, match="0 pixels"):
        data.pack(coco_folder, "train", 0)
