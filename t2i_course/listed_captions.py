"""COCO's captions in little memory, for packing: they are read as a stream and kept as bytes.

pycocotools holds each annotation as a dictionary: 400 MB for the 591,753 captions of COCO 2017,
which are 35 MB of text. What is out of order is not explained here: `CheckedCaptions` reads the
file again, and names the fault or leaves the image out.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from t2i_course.coco_folder import (
    CheckedCaptions,
    Split,
    decode_picture,
    leads_out,
    list_images,
)

CHUNK = 1 << 20  # letters read at once


def open_captions(
    split: Split, transform: Callable[[Any], Any] | None = None, on_bad_image: str = "raise"
) -> ListedCaptions | CheckedCaptions:
    """Open a split for packing, in little memory if nothing is wrong with it.

    Args:
        split: from `find_split`.
        transform: applied to each RGB PIL image.
        on_bad_image: "raise" or "skip", see `load_split`.

    Raises:
        FileNotFoundError, ValueError: see `load_split`.
    """
    try:
        return ListedCaptions(split, transform)
    except (ValueError, KeyError, TypeError, OverflowError):
        return CheckedCaptions(split, transform, on_bad_image)


class ListedCaptions:
    """The images of a split whose annotations and files are all in order.

    Items are (image, list of captions), as those of `CheckedCaptions`.

    Attributes:
        ids: the images' ids in rising order.
        skipped: {}, as nothing is left out.
    """

    def __init__(self, split: Split, transform: Callable[[Any], Any] | None = None) -> None:
        """Read the annotations; ValueError, KeyError or TypeError if anything is out of order."""
        self.folder, self.transform, self.skipped = split.image_folder, transform, {}
        ids, names, self._texts = array("q"), [], bytearray()
        numbers, owners, ends = array("q"), array("q"), array("q", [0])
        for name, entry in stream_lists(split.captions_file):
            if name == "images":
                ids.append(_whole(entry["id"]))
                names.append(entry["file_name"])
                if not isinstance(names[-1], str) or leads_out(names[-1]):
                    raise ValueError("a file name leads out of the folder")
            elif name == "annotations":
                numbers.append(_whole(entry["id"]))
                owners.append(_whole(entry["image_id"]))
                caption = entry["caption"]
                if not isinstance(caption, str) or not caption.strip():
                    raise ValueError("no caption, or an empty one")
                self._texts += caption.encode("utf-8", "surrogatepass")
                ends.append(len(self._texts))
        # [N] ids of the images in the file's order; [M] of the captions, and of their images
        image_ids, caption_ids, owner_ids = (np.array(part) for part in (ids, numbers, owners))
        if not len(image_ids) or not _unique(image_ids) or not _unique(caption_ids):
            raise ValueError("no image, or an id twice")
        if not np.isin(owner_ids, image_ids).all():
            raise ValueError("a caption of no image")
        rows = np.argsort(image_ids)
        if split.image_ids is not None:
            rows = rows[np.isin(image_ids[rows], split.image_ids)]
        listing = list_images(split.image_folder)
        self._names = [names[row] for row in rows.tolist()]
        if not all(name in listing for name in self._names):
            raise ValueError("a picture is missing, or a link")
        sorted_ids = image_ids[rows]
        self.ids = sorted_ids.tolist()
        self._ends = np.array(ends)
        self._order = np.argsort(owner_ids, kind="stable")  # [M] captions, image after image
        in_order = owner_ids[self._order]
        self._first = np.searchsorted(in_order, sorted_ids, side="left")
        self._last = np.searchsorted(in_order, sorted_ids, side="right")
        if (self._first == self._last).any():
            raise ValueError("an image without a caption")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, list[str]]:
        """Return (image, captions).

        Raises:
            ValueError: the picture cannot be decoded.
        """
        path = self.folder / self._names[index]
        image = decode_picture(path, str(path))
        return image if self.transform is None else self.transform(image), self.captions(index)

    def captions(self, index: int) -> list[str]:
        """Return an image's captions."""
        rows = self._order[self._first[index] : self._last[index]]
        spans = zip(self._ends[rows].tolist(), self._ends[rows + 1].tolist(), strict=True)
        return [self._texts[a:b].decode("utf-8", "surrogatepass") for a, b in spans]

    def file_name(self, index: int) -> str:
        """Return the name of an image's file, as the annotations write it."""
        return self._names[index]


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError("not a whole number")
    return number


def _unique(ids: np.ndarray) -> bool:
    return len(np.unique(ids)) == len(ids)


def stream_lists(file: Path) -> Iterator[tuple[str, Any]]:
    """Read the lists of a JSON object entry by entry, never the whole file.

    Yields:
        (name of the list, entry), in the file's order.

    Raises:
        ValueError: the file is not UTF-8, not a JSON object, or has a name twice.
    """
    with open(file, encoding="utf-8-sig") as source:
        text, names = _Window(source), set()
        text.expect("{")
        another = text.letter() != "}"
        while another:
            name = text.value()
            if not isinstance(name, str) or name in names:
                raise ValueError(f"bad or repeated name {name!r}")
            names.add(name)
            text.expect(":")
            if text.letter() != "[":
                text.value()
            else:
                for entry in _entries(text):
                    yield name, entry
            another = text.another("}")
        text.expect("}")
        if text.letter():
            raise ValueError("something follows the object")


def _entries(text: _Window) -> Iterator[Any]:
    """Yield the entries of a list."""
    text.expect("[")
    another = text.letter() != "]"
    while another:
        yield text.value()
        another = text.another("]")
    text.expect("]")


class _Window:
    """A part of a JSON text that moves along the file."""

    def __init__(self, source: Any) -> None:
        self.source, self.text, self.at = source, "", 0
        self.decode = json.JSONDecoder().raw_decode

    def fill(self, letters: int = CHUNK) -> bool:
        """Read on; say whether there was anything."""
        chunk = self.source.read(letters)
        self.text, self.at = self.text[self.at :] + chunk, 0
        return bool(chunk)

    def letter(self) -> str:
        """Return the next letter that is no space, "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\n\r":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.fill():
                return ""

    def expect(self, mark: str) -> None:
        """Pass over a mark, or raise ValueError."""
        if self.letter() != mark:
            raise ValueError(f"{mark} expected")
        self.at += 1

    def another(self, end: str) -> bool:
        """Pass over a comma before the next entry; False at the end mark."""
        if self.letter() == end:
            return False
        self.expect(",")
        return True

    def value(self) -> Any:
        """Return the next value, reading on until it is whole."""
        self.letter()
        letters = CHUNK
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except json.JSONDecodeError:
                whole = False
            else:
                whole = end < len(self.text)  # else a number may go on
            if whole:
                self.at = end
                return value
            if not self.fill(letters):
                value, self.at = self.decode(self.text, self.at)
                return value
            letters *= 2  # a large value is not tried again and again
