"""Whether pictures stand on both sides, on small folders of real picture files."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from t2i_course.photos.coco_folder import find_split
from t2i_course.photos.shared_pictures import (
    check_splits,
    check_unseen,
    learnt_from,
    shared_pictures,
)

YEARS = {"2014": "COCO_{split}_{number:012d}.jpg", "2017": "{number:012d}.jpg"}


def write_split(folder: Path, split: str, numbers: range, form: str | None = None) -> Path:
    """A split of pictures, each of its own colour by its number and the folder's name."""
    form = form or YEARS.get(split[-4:], "{number}.png")
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in numbers:
        name = form.format(split=split, number=number)
        shade = (11 * number, 20 * len(split), sum(map(ord, str(folder.name))) % 256)
        Image.new("RGB", (9, 9), shade).save(folder / split / name)
        images.append({"id": number, "file_name": name})
        annotations.append({"id": number, "image_id": number, "caption": f"number {number}"})
    file = folder / "annotations" / f"captions_{split}.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of one's own: each split is numbered from 1, as `convert` and others do."""
    folder = write_split(tmp_path / "photos", "train", range(1, 9))
    return write_split(folder, "val", range(1, 5))


@pytest.fixture
def coco(tmp_path) -> Path:
    """COCO in small, all four splits: 1 to 10 train2014, 11 to 20 val2014, 19 and 20 val2017."""
    folder = write_split(tmp_path / "coco", "train2014", range(1, 11))
    write_split(folder, "val2014", range(11, 21))
    write_split(folder, "train2017", range(1, 19))
    return write_split(folder, "val2017", range(19, 21))


def only(coco: Path, *splits: str) -> Path:
    """A folder of some of COCO's splits."""
    folder = coco.with_name("-".join(splits))
    for split in splits:
        shutil.copytree(coco / split, folder / split)
        file = Path("annotations", f"captions_{split}.json")
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(coco / file, folder / file)
    return folder


# Before training


def test_equal_names_and_ids_of_different_pictures_are_no_fault(photos):
    check_splits(photos)
    write_split(photos, "test", range(20, 22))
    check_splits(photos, "test")
    shutil.copy(photos / "train" / "3.png", photos / "test" / "20.png")
    with pytest.raises(ValueError, match="1 pictures of test stand in train"):
        check_splits(photos, "test")


def test_a_copy_under_another_name_or_saved_anew_is_named(photos):
    names = ["1.png", "2.png", "3.png"]
    shutil.copy(photos / "train" / names[0], photos / "val" / names[1])
    with Image.open(photos / "train" / names[1]) as image:
        image.resize((50, 50)).save(photos / "val" / names[2], "JPEG", quality=80)
    split = [find_split(photos, name) for name in ("train", "val")]
    assert shared_pictures(*split) == names[1:]
    with pytest.raises(ValueError, match=r"2 pictures of val .* such as 2\.png.*keep train alone"):
        check_splits(photos)


def test_a_sample_of_both_folders_of_shards_is_named(tmp_path):
    for split, names in (("train", "abc"), ("val", "de")):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0.tar", "w") as tar:
            for name in names:
                file = io.BytesIO()
                shade = 40 * ("abcd".find(name) if name != "e" else 1) + 40
                Image.new("RGB", (30, 20), (shade, 0, 0)).save(file, "PNG")
                for suffix, content in (("png", file.getvalue()), ("txt", name.encode())):
                    entry = tarfile.TarInfo(f"{name}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match="1 pictures of val stand in train.* such as 0.tar: e"):
        check_splits(tmp_path)


@pytest.mark.parametrize(
    "splits", [("train2014", "val2014"), ("train2014", "val2017"), ("train2017", "val2017")]
)
def test_cocos_own_pairs_are_taken(coco, splits):
    check_splits(only(coco, *splits))


def test_train2017_with_val2014_is_refused_with_the_reason_and_the_remedy(coco):
    folder = only(coco, "train2017", "val2014")
    with pytest.raises(ValueError, match="35,504 of val2014's 40,504") as error:
        check_splits(folder)
    assert "val2017" in str(error.value) and "--year 2014" in str(error.value)


# Before evaluation


@pytest.mark.parametrize(
    ("learnt", "judged"),
    [(("train2017", "val2017"), "val2017"), (("train2014", "val2014"), "val2014"),
     (("train2014", "val2014"), "val2017")],
)  # fmt: skip
def test_a_model_of_coco_is_judged_on_what_it_has_not_seen(coco, learnt, judged):
    card = learnt_from(find_split(only(coco, *learnt), "train"))
    check_unseen(card, find_split(only(coco, judged, "train2014"), "val"), "mine")


@pytest.mark.parametrize(
    ("learnt", "judged", "words"),
    [
        ("train2017", "val2014", "35,504 of val2014's 40,504"),
        ("val2014", "val2017", "the 5,000 of val2017"),  # a folder that was divided
        ("val2017", "val2014", "the 5,000 of val2017"),
    ],
)
def test_a_model_of_coco_is_not_judged_on_what_it_has_seen(coco, learnt, judged, words):
    (card,) = learnt_from(find_split(only(coco, learnt), "train"))
    assert card["coco"] and card["divided"]
    with pytest.raises(ValueError, match=f"mine has learnt from {learnt}, which shares.*{words}"):
        check_unseen([card], find_split(only(coco, judged, "train2014"), "val"), "mine")


def test_a_part_of_cocos_val_is_no_training_set_for_all_of_it(coco, tmp_path):
    part = write_split(tmp_path / "part", "val2017", range(18, 21))
    (card,) = learnt_from(find_split(part, "train"))
    with pytest.raises(ValueError, match="learnt from val2017, which shares pictures with val2017"):
        check_unseen([card], find_split(coco, "val"), "mine")
    check_unseen([card | {"coco": False}], find_split(coco, "val"), "mine")  # someone else's photos


def test_a_divided_folder_is_judged_on_its_tenth_and_not_on_all(photos, tmp_path):
    shutil.rmtree(photos / "val")
    check_splits(photos)
    card = learnt_from(find_split(photos, "train"))
    assert (card[0]["divided"], card[0]["images"], card[0]["captions"]) == (
        True, 8, "captions_train.json",
    )  # fmt: skip
    check_unseen(card, find_split(photos, "val"), "mine")
    whole = tmp_path / "whole"
    shutil.copytree(photos / "train", whole / "val")
    (whole / "annotations").mkdir()
    shutil.copy(photos / "annotations/captions_train.json", whole / "annotations/captions_val.json")
    write_split(whole, "train", range(20, 24))
    with pytest.raises(ValueError, match="captions_val.json is that very data"):
        check_unseen(card, find_split(whole, "val"), "mine")


@pytest.mark.parametrize("entry", ["captions_train.json", ["x"], [{"captions": "x"}], {}])
def test_a_card_that_says_something_else_is_refused(photos, entry):
    with pytest.raises(ValueError, match="the card of mine: trained_on must be a list"):
        check_unseen(entry, find_split(photos, "val"), "mine")
