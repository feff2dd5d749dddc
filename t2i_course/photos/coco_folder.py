"""A folder in COCO's layout: where its parts lie, and whether its annotations hold together.

The layout (Lin et al., "Microsoft COCO: common objects in context", ECCV 2014):

    train2017/  val2017/                 the pictures; train/, val/ and others will do (SPLIT_NAMES)
    annotations/captions_train2017.json  {"images": [{"id", "file_name"}],
    annotations/captions_val2017.json     "annotations": [{"id", "image_id", "caption"}]}

pycocotools reads such files without a look at them: a caption of an unknown image is dropped in
silence, a missing picture shows in the middle of an epoch. Here the annotations are checked first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import CocoCaptions

from t2i_course.photos import copies
from t2i_course.photos.pictures import SKIP_HINT, Sample, decode_picture

SPLIT_NAMES = {
    "train": ("train2017", "train2014", "train"),
    "val": ("val2017", "val2014", "val", "validation", "dev"),
}


@dataclass(frozen=True)
class Split:
    """Where one part of a data set lies.

    Attributes:
        name: what the folder calls the split, such as "val2017".
        captions_file: None where `image_folder` holds shards, see `photos.shards`.
        role: "train", "val" or "test".
        divided: whether `image_folder` holds the other part, too.
        image_ids: of a part in COCO's layout, in rising order; None stands for all.
        note: what is to be said of the copies among the pictures that were divided.
    """

    folder: Path
    name: str
    image_folder: Path
    captions_file: Path | None
    role: str
    divided: bool = False
    image_ids: tuple[int, ...] | None = None
    note: str = ""


def find_data(folder: str | os.PathLike[str], split: str) -> Split:
    """Find a split in a folder of COCO's layout or of shards, which has no annotations/.

    A folder that holds only train or val, or tar files, is divided, see `copies.hold_out`. A test
    split is never made of others.

    Args:
        folder: the data set.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: the folder, or the split's pictures or captions, are missing.
        NotADirectoryError: the path is a file.
        ValueError: an unknown split, or a folder to divide that holds a single picture.
    """
    if split not in (*SPLIT_NAMES, "test"):
        raise ValueError(f'unknown split {split!r}: choose "train", "val" or "test"')
    folder = Path(folder).expanduser().resolve()
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: name the folder that holds annotations/")
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder {folder}: check the path, or use scenes")
    if split == "test":
        if (test := _whole_split(folder, "test")) is None:
            raise ValueError(f"{folder} has no split test, a folder test/ with captions: take val")
        return test
    found = {role: _whole_split(folder, role) for role in SPLIT_NAMES}
    if all(found.values()):
        return found[split]
    only = found["train"] or found["val"]
    if only is None and tar_files(folder):
        only = Split(folder, folder.name, folder, None, split)
    if only is None:
        raise FileNotFoundError(
            f"{folder} is not in COCO's layout: it needs a folder of pictures such as val2017/ "
            "and, for it, annotations/captions_val2017.json (train2017, train, val will do as "
            "well). The other layout is tar files of samples, such as train/00000.tar."
        )
    part = replace(only, role=split, divided=True)
    return part if part.captions_file is None else _divide(part)


def find_split(folder: str | os.PathLike[str], split: str) -> Split:
    """Find a split in a folder of COCO's layout.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: see `find_data`.
    """
    found = find_data(folder, split)
    if found.captions_file is None:
        raise FileNotFoundError(
            f"{found.image_folder} holds shards, not pictures: the commands train, evaluate and "
            "metric-network, and `data.pack`, read them; this needs COCO's layout"
        )
    return found


def tar_files(folder: Path) -> list[Path]:
    """Return the tar files in a folder, sorted by name; none if there is no such folder."""
    files = folder.glob("*.tar") if folder.is_dir() else ()
    return sorted(f for f in files if f.is_file() and not f.name.startswith("."))


def _whole_split(folder: Path, role: str) -> Split | None:
    """Return the first of a role's names that has pictures and captions; None without pictures."""
    annotations, without = folder / "annotations", []
    for name in SPLIT_NAMES.get(role, (role,)):
        captions = annotations / f"captions_{name}.json"
        if captions.is_file() and (folder / name).is_dir():
            return Split(folder, name, folder / name, captions, role)
        if not annotations.is_dir() and tar_files(folder / name):
            return Split(folder, name, folder / name, None, role)
        without += [name] * (folder / name).is_dir()
    if without:
        raise FileNotFoundError(
            f"{folder / without[0]} has no captions: annotations/captions_{without[0]}.json is "
            "missing. Unpack COCO's annotations archive into the data folder."
        )
    return None


def _divide(split: Split) -> Split:
    """Find the images of a part, and how many pictures are copies."""
    images = read_captions_file(split.captions_file)["images"]
    if len(images) < 2:
        raise ValueError(f"{split.captions_file} lists one image: train and val need one each")
    names = sorted({image["file_name"] for image in images})
    found = copies.find_copies(*picture_files(split.image_folder, names))
    group_of = dict(zip(names, found, strict=True))
    groups = np.array([group_of[image["file_name"]] for image in images])
    ids = copies.hold_out([image["id"] for image in images], groups, split.role)
    return replace(split, image_ids=ids, note=copies.copies_note(groups, split.image_folder))


def picture_files(
    folder: Path, names: Sequence[str]
) -> tuple[Callable[[], Iterator[Sample]], int, list[Any]]:
    """What `copies.find_copies` takes of the pictures of some names in a folder."""
    listing = list_images(folder)

    def pictures() -> Iterator[Sample]:
        for name in names:
            yield Sample(0, name, [], folder / name, str(folder / name))

    return pictures, len(names), [str(folder), [[name, listing.get(name)] for name in names]]


class CheckedCaptions(CocoCaptions):
    """`CocoCaptions` on annotations that were checked first.

    A picture that cannot be decoded raises ValueError with the file's name when it is read.

    Attributes:
        coco: pycocotools' index; its annotations keep their other keys ("facts" in the scenes).
        skipped: {file name: what is wrong with it} of the images left out.
        notes: what else is to be said of the data.
    """

    def __init__(
        self,
        split: Split,
        transform: Callable[[Any], Any] | None = None,
        on_bad_image: str = "raise",
    ) -> None:
        """Read and check the annotations; see `load_split`."""
        document = read_captions_file(split.captions_file)
        self.skipped = _leave_out(document, split, on_bad_image)
        self.notes = [split.note] if split.note else []
        document.pop("categories", None)  # with them, COCO wants a category_id in each caption
        # COCO(file) prints, and opens the file in the locale's encoding. It gets the content here.
        super().__init__(split.image_folder, annFile=None, transform=transform)
        self.coco = _index(document)
        self.ids = sorted(self.coco.imgs)

    def _load_image(self, id: int) -> Image.Image:  # torchvision's leaves a bad file open
        path = Path(self.root, self.coco.imgs[id]["file_name"])
        return decode_picture(path, str(path))

    def samples(self) -> Iterator[Sample]:
        """Yield each image, not decoded yet, with its captions."""
        for number in self.ids:
            name = self.coco.imgs[number]["file_name"]
            path = Path(self.root, name)
            texts = [entry["caption"] for entry in self.coco.imgToAnns[number]]
            yield Sample(number, name, texts, path, str(path))


def load_split(
    folder: str | os.PathLike[str],
    split: str,
    transform: Callable[[Any], Any] | None = None,
    on_bad_image: str = "raise",
) -> CheckedCaptions:
    """Open a split as a `torchvision.datasets.CocoCaptions`, with its annotations checked.

    Args:
        folder: a data set in COCO's layout.
        split: "train" or "val".
        transform: applied to each PIL image.
        on_bad_image: "raise", or "skip": leave out images that are missing, have no caption or an
            empty one. Whether a picture can be decoded shows only when it is read.

    Returns:
        Items are (image, list of captions); `.skipped` names what was left out.

    Raises:
        FileNotFoundError: a folder, an annotation file or a listed image is missing.
        NotADirectoryError: the data folder is a file.
        ValueError: the annotations are not JSON, not captions, or contradict themselves; an image
            without a caption; an empty caption; no image is left.
    """
    return CheckedCaptions(find_split(folder, split), transform, on_bad_image)


def instances(folder: str | os.PathLike[str], split: str) -> COCO:
    """Open the boxes and categories of a split: annotations/instances_<name>.json.

    Returns:
        pycocotools' index, without its printing.

    Raises:
        FileNotFoundError: the folder, the split or the file is missing.
        ValueError: the file is not JSON, or lacks one of the three lists.
    """
    found = find_split(folder, split)
    file = found.captions_file.with_name(f"instances_{found.name}.json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: unpack COCO's annotations archive there")
    return _index(_read_json(file, ("images", "annotations", "categories")))


def check_choice(on_bad_image: str) -> None:
    """Raise ValueError unless the choice is "raise" or "skip"."""
    if on_bad_image not in ("raise", "skip"):
        raise ValueError(f'unknown on_bad_image {on_bad_image!r}: choose "raise" or "skip"')


def list_images(folder: Path) -> dict[str, tuple[int, int]]:
    """Return {relative name: (bytes, time of change)} of the files in a folder and below it.

    Links are followed; a folder that is met twice is listed once.
    """
    listing, seen, start = {}, {os.path.realpath(folder)}, len(str(folder)) + 1
    for place, folders, names in os.walk(folder, followlinks=True):
        real = {os.path.realpath(os.path.join(place, name)): name for name in folders}
        folders[:] = [name for path, name in real.items() if path not in seen]
        seen.update(real)
        for path in (os.path.join(place, name) for name in names if not name.startswith(".")):
            if os.path.isfile(path):  # no link to nothing
                status = os.stat(path)
                listing[path[start:].replace(os.sep, "/")] = (status.st_size, status.st_mtime_ns)
    return listing


def _index(document: dict[str, Any]) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):  # COCO prints its progress
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
    return coco


def _read_json(file: Path, lists: tuple[str, ...]) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise ValueError(
            f"{file} is not JSON ({error}): it was cut short, or it is another kind of file. "
            "Download or unpack it again."
        ) from error
    for name in lists:
        entries = document.get(name) if isinstance(document, dict) else None
        if type(entries) is not list or not entries or any(type(e) is not dict for e in entries):
            raise ValueError(
                f'{file} has no list "{name}", or an empty one: it is not a COCO annotation file, '
                "or nobody filled it. Download or unpack it again."
            )
    return document


def _is_id(number: Any) -> bool:
    return type(number) is int and -(2**63) <= number < 2**63


def has_surrogates(text: str) -> bool:
    """Say whether a text holds half of a letter, which JSON can write and UTF-8 cannot."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def leads_out(name: str) -> bool:
    """Say whether a file name of an annotation leads out of the folder it is relative to."""
    path = PureWindowsPath(name)  # knows /, \ and drives
    return bool(path.anchor or ".." in path.parts or not path.name or "\0" in name)


def read_captions_file(file: Path) -> dict[str, Any]:
    """Read a captions file and check all of it that does not need the pictures.

    Raises:
        ValueError: the file is not JSON or not captions, ids are shared, a caption belongs to an
            image that is not listed, or a file name leads out of the picture folder.
    """
    document = _read_json(file, ("images", "annotations"))
    images, captions = set(), set()
    for image in document["images"]:
        if fault := _image_fault(image, images):
            raise ValueError(f"{file}: {fault}")
        images.add(image["id"])
    for annotation in document["annotations"]:
        if fault := _caption_fault(annotation, images, captions):
            raise ValueError(f"{file}: {fault}")
        captions.add(annotation["id"])
    return document


def _image_fault(image: dict[str, Any], known: set[int]) -> str:
    """Say what is wrong with an entry of "images"; "" if nothing."""
    number, name = image.get("id"), image.get("file_name")
    if not _is_id(number) or not isinstance(name, str) or has_surrogates(name):
        return f"an image needs a whole number id, of 64 bits, and a file_name: {image}"
    if leads_out(name):
        return (
            f"the file name {name!r} leads out of the picture folder. Write it relative to that "
            "folder, without '..'."
        )
    return f"two images have the id {number}. Give each its own." if number in known else ""


def _caption_fault(annotation: dict[str, Any], images: set[int], known: set[int]) -> str:
    """Say what is wrong with an entry of "annotations"; "" if nothing."""
    if "caption" not in annotation:
        return (
            f"it holds no captions: an annotation has {', '.join(sorted(annotation))}. Is it an "
            "instances file? Put the captions file in its place."
        )
    number, owner = annotation.get("id"), annotation.get("image_id")
    if not isinstance(annotation["caption"], str) or not _is_id(number):
        return f"a caption needs a text and an id: {annotation}"
    if not _is_id(owner):
        return (
            f"caption {number} belongs to image {owner!r}, which is no whole number. Write it as "
            'the "id" of the image is written.'
        )
    if owner not in images:
        return (
            f'caption {number} belongs to image {owner}, which "images" does not list. List the '
            "image, or remove the caption."
        )
    return f"two captions have the id {number}. Number them." if number in known else ""


def _leave_out(document: dict[str, Any], split: Split, on_bad_image: str) -> dict[str, str]:
    """Keep the split's whole images in the document; return what is wrong with the others."""
    check_choice(on_bad_image)
    chosen = None if split.image_ids is None else set(split.image_ids)
    texts: dict[int, list[str]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        texts[annotation["image_id"]].append(annotation["caption"].strip())
    file, images, skipped = split.captions_file, [], {}
    for image in document["images"]:
        path = split.image_folder / image["file_name"]
        if chosen is not None and image["id"] not in chosen:
            continue
        if not os.path.isfile(path):
            link = ", a link to a file that is not there" if os.path.islink(path) else ""
            error: Exception = FileNotFoundError(
                f"{path} is missing{link}, but {file.name} lists it. Copy it there, or {SKIP_HINT}."
            )
        elif fault := _fault(texts[image["id"]]):
            error = ValueError(f"{path} has {fault} in {file}. Mend the file, or {SKIP_HINT}.")
        else:
            images.append(image)
            continue
        if on_bad_image == "raise":
            raise error
        skipped[image["file_name"]] = str(error)
    if not images:
        raise ValueError(f"no image of {file} can be used: {next(iter(skipped.values()))}")
    kept = {image["id"] for image in images}
    document["images"] = images
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in kept]
    return skipped


def _fault(captions: list[str]) -> str:
    """Say what is wrong with the captions of an image; "" if nothing."""
    if not captions:
        return "no caption"
    if not all(captions):
        return "an empty caption"
    return "a caption with half a letter (a lone surrogate)" * any(map(has_surrogates, captions))
