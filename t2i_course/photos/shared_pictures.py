"""Pictures on both sides: no model is judged on what it has learnt from.

COCO divides its pictures in two ways (lin2014coco); an image keeps its id in both:

    train2014  82,783 pictures                  val2014  40,504
    train2017 118,287, train2014 and most       val2017   5,000, the rest of val2014
              of val2014 (35,504)

So a model that learnt from train2017 has seen seven eighths of val2014, and its FID there is none
of held-out pictures. A data set of one's own may hold a picture twice as well. Three checks:

    check_splits(folder)                        # before training: do train and val share any?
    card["trained_on"] = learnt_from(train)     # what the model has seen
    check_unseen(card["trained_on"], val, "my-model")   # before its pictures are measured
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from t2i_course.photos import copies
from t2i_course.photos.coco_folder import Split, find_data, picture_files, read_captions_file
from t2i_course.photos.pictures import Sample
from t2i_course.photos.shards import ShardSamples, count_samples, data_digest, list_shards

# Which part of COCO's pictures a split holds, by its name.
TRAIN, MOST, REST = "train2014", "35,504 of val2014's 40,504", "the 5,000 of val2017"
COCO_PARTS = {
    "train2014": (TRAIN,),
    "val2014": (MOST, REST),
    "train2017": (TRAIN, MOST),
    "val2017": (REST,),
}
COCO_FILE = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})\.jpg")  # 2014 and 2017 name it so
REMEDY = (
    "Evaluate on val2017 (`python -m t2i_course download --split val`), or train on train2014, in "
    "a folder of its own (`download --split all --year 2014 --output data/coco2014`)"
)
FIELDS = {"captions": str, "sha256": str, "images": int, "divided": bool, "coco": bool}


def check_splits(folder: str | os.PathLike[str], held_out: str = "val") -> None:
    """Refuse a folder whose training and held-out pictures are partly the same.

    Args:
        folder: a data set in COCO's layout, or of shards.
        held_out: the split that is compared with train.

    Raises:
        ValueError: by COCO's names, or by their content, pictures stand in both splits.
        FileNotFoundError, NotADirectoryError: see `coco_folder.find_data`.
    """
    train, val = find_data(folder, "train"), find_data(folder, held_out)
    if train.image_folder == val.image_folder:
        return  # one split, divided
    if shared := _shared_parts(train.name, val.name):
        raise ValueError(
            f"{train.folder} would train on {train.name} and hold out {val.name}, which share "
            f"pictures: {shared}. {REMEDY}. If they are not COCO's, call the folders and their "
            "captions train and val."
        )
    if shared := shared_pictures(train, val):
        raise ValueError(
            f"{train.folder}: {len(shared):,} pictures of {val.name} stand in {train.name}, too "
            f"(the same file, or saved anew), such as {shared[0]}: a model would be judged on "
            f"what it learnt. Leave them out of one of the two, or keep {train.name} alone with "
            "all pictures: it is divided then, and copies stay together."
        )


def learnt_from(train: Split) -> list[dict[str, Any]]:
    """Describe for a model card what a model learns from.

    Returns:
        One entry. "captions": name of the captions file; "sha256" of its content, or, of shards, of
        their names and lengths; "images": how many it lists; "divided": whether a tenth of them was
        held out (`coco_folder.find_data`); "coco": whether the pictures bear COCO's names.
    """
    if train.captions_file is None:
        name, images, coco = f"{train.name}/*.tar", count_samples(train)[0], False
    else:
        names = _file_names(replace(train, image_ids=None))
        name, images = train.captions_file.name, len(names)
        coco = all(map(COCO_FILE.fullmatch, names))
    entry = {"captions": name, "sha256": data_digest(train), "images": images}
    return [entry | {"divided": train.divided, "coco": coco}]


def check_unseen(trained_on: Sequence[dict[str, Any]], held_out: Split, model: str) -> None:
    """Refuse to judge a model on pictures that it has learnt from.

    It is told by COCO's names and by the captions files, or the shards' names and lengths.

    Args:
        trained_on: of the model's card, as `learnt_from` describes it.
        held_out: the split to judge it on.
        model: its name, for the errors.

    Raises:
        ValueError: the model has seen some of them, or the card's entry is none.
    """
    _check_entries(trained_on, model)
    digest = data_digest(held_out)
    for entry in trained_on:
        name = entry["captions"].removeprefix("captions_").removesuffix(".json")
        learnt = f"{model} has learnt from {name}"
        if entry["sha256"] == digest:
            if entry["divided"] and held_out.divided:
                continue  # nine tenths, and the tenth that was held out
            same = held_out.captions_file or held_out.image_folder
            raise ValueError(
                f"{learnt}, and {same} is that very data: it would be judged on what it learnt. "
                "Name a folder with held-out pictures."
            )
        shared = _shared_parts(name, held_out.name)
        if shared and (name != held_out.name or (entry["coco"] and _coco_numbers(held_out))):
            raise ValueError(
                f"{learnt}, which shares pictures with {held_out.name}: {shared}. {REMEDY}."
            )


def _check_entries(trained_on: Any, model: str) -> None:
    """Raise ValueError unless a card's "trained_on" is what `train` writes."""
    if not isinstance(trained_on, list) or not all(
        isinstance(entry, dict) and {k: type(entry.get(k)) for k in FIELDS} == FIELDS
        for entry in trained_on
    ):
        raise ValueError(
            f"the card of {model}: trained_on must be a list of entries with {', '.join(FIELDS)}: "
            "copy the card again"
        )


def shared_pictures(first: Split, second: Split) -> list[str]:
    """Names of the second split's pictures that are pictures of the first, too, in its order.

    Data sets of one's own often number each split from 1: an equal id or file name is no proof, and
    a copy may have another name. Pictures are the same by their content (`photos.copies`), which
    need not be read where both splits are COCO's, whose numbers tell.
    """
    if first.name in COCO_PARTS and second.name in COCO_PARTS:
        numbers = [_coco_numbers(split) for split in (first, second)]
        if all(numbers) and numbers[0].isdisjoint(numbers[1]):
            return []
    (pictures, count, identity), (others, more, other_identity) = map(_pictures, (first, second))
    groups = copies.find_copies(
        lambda: itertools.chain(pictures(), others()), count + more, [identity, other_identity]
    ).tolist()
    known = set(groups[:count])
    if known.isdisjoint(groups[count:]):
        return []
    found = zip(others(), groups[count:], strict=True)
    return [sample.name for sample, group in found if group in known]


def _pictures(split: Split) -> tuple[Callable[[], Iterator[Sample]], int, list[Any]]:
    """A split's pictures, their number, and all that they depend on."""
    if split.captions_file is None:
        shards, folder = ShardSamples(split), split.image_folder
        return shards.samples, len(shards), [str(folder), list_shards(folder)]
    return picture_files(split.image_folder, _file_names(split))


def _shared_parts(first: str, second: str) -> str:
    """Which pictures two of COCO's splits share, in words; "" if none, or of other names."""
    parts = COCO_PARTS.get(second, ())
    return " and ".join(part for part in COCO_PARTS.get(first, ()) if part in parts)


def _file_names(split: Split) -> list[str]:
    """File names of a split's pictures."""
    images = read_captions_file(split.captions_file)["images"]
    chosen = {i["id"] for i in images} if split.image_ids is None else set(split.image_ids)
    return [image["file_name"] for image in images if image["id"] in chosen]


def _coco_numbers(split: Split) -> set[str]:
    """COCO's numbers of the pictures; none unless all pictures bear such names."""
    names = [] if split.captions_file is None else _file_names(split)
    found = [COCO_FILE.fullmatch(name) for name in names]
    return {match[1] for match in found} if all(found) else set()
