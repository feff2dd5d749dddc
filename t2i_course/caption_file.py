"""Captions on disk, mapped into memory: opened at once, however many there are.

Two files with one name: NAME.captions.npy, uint8 [bytes], all captions in UTF-8, one after the
other; NAME.offsets.npy, int64 [M + 1], where each of the M captions begins, and where the last one
ends. A caption becomes a Python string when it is asked for.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import index as whole_number
from pathlib import Path
from typing import Any

import numpy as np

from t2i_course import runtime
from t2i_course.growing_array import write_header

CHUNK = 4096  # captions decoded at once by an iterator


def write_captions(path: str | os.PathLike[str], captions: Iterable[str]) -> None:
    """Write `path` + ".captions.npy" and ".offsets.npy".

    Raises:
        OSError: the disk is full.
    """
    offsets = array("q", [0])
    with runtime.atomic_file(f"{path}.captions.npy") as unfinished:
        with open(unfinished, "wb") as file:
            write_header(file, (0,), np.uint8)
            for caption in captions:
                # A lone surrogate, which JSON may hold, has no place in strict UTF-8.
                data = caption.encode("utf-8", "surrogatepass")
                file.write(data)
                offsets.append(offsets[-1] + len(data))
            file.seek(0)
            write_header(file, (offsets[-1],), np.uint8)
    with runtime.atomic_file(f"{path}.offsets.npy") as unfinished:
        np.save(unfinished, np.asarray(offsets, dtype=np.int64))


class _Lazy(Sequence):
    """A sequence that equals any other with the same elements, a list for one."""

    __hash__ = None  # as a list's

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        if len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", ..." if len(self) > 3 else "")
        return f"<{len(self)} of {type(self).__name__}: {shown}>"


class Captions(_Lazy):
    """M captions as a sequence of strings; a slice is a list."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the files that `write_captions` wrote.

        Raises:
            FileNotFoundError: there are no such files.
            ValueError: they are cut short, or do not belong together.
        """
        self.path = Path(path)
        files = [f"{self.path}.{name}.npy" for name in ("captions", "offsets")]
        # Plain views of the maps: indexing a np.memmap makes another one each time.
        self._bytes, self._offsets = (np.asarray(np.load(f, mmap_mode="r")) for f in files)
        if not len(self._offsets) or self._offsets[-1] != len(self._bytes):
            raise ValueError(f"{files[0]} does not fit {files[1]}: delete both")

    def __len__(self) -> int:
        """Return M."""
        return len(self._offsets) - 1

    def __getitem__(self, index: int | slice) -> Any:
        """Return a caption, or a list of them."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self._text(row, row + 1)[0] for row in range(start, stop, step)]
            return self._text(start, stop) if start < stop else []
        row = whole_number(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"caption {row} of {len(self)}")
        return self._text(row % len(self), row % len(self) + 1)[0]

    def _text(self, start: int, stop: int) -> list[str]:
        """Decode captions that stand one after the other; start < stop."""
        offsets = self._offsets[start : stop + 1].tolist()
        data = self._bytes[offsets[0] : offsets[-1]].tobytes()
        ends = [offset - offsets[0] for offset in offsets]
        pairs = zip(ends[:-1], ends[1:], strict=True)
        return [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairs]

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Travel to another process as a path."""
        return Captions, (self.path,)


class GroupedCaptions(_Lazy):
    """The captions of N images as a sequence of lists; a slice is a list of lists."""

    def __init__(self, captions: Captions, starts: np.ndarray) -> None:
        """Group captions: image i has captions[starts[i] : starts[i + 1]]; starts is [N + 1]."""
        self.all, self.starts = captions, starts

    def __len__(self) -> int:
        """Return N."""
        return len(self.starts) - 1

    def __getitem__(self, index: int | slice) -> Any:
        """Return the captions of an image, or of several."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1 or start >= stop:
                return [self[row] for row in range(start, stop, step)]
            bounds = self.starts[start : stop + 1].tolist()
            texts, first = self.all[bounds[0] : bounds[-1]], bounds[0]
            pairs = zip(bounds[:-1], bounds[1:], strict=True)
            return [texts[a - first : b - first] for a, b in pairs]
        row = whole_number(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"image {row} of {len(self)}")
        start, stop = self.starts[row % len(self)], self.starts[row % len(self) + 1]
        return self.all[start:stop]
