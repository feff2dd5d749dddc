"""An array on disk that grows row by row, and goes on where a killed process left it.

What takes minutes or hours to make is written in one stream to a part file. A journal beside it
says, every so many rows, how many of them are whole. Whoever asks for the same array later goes on
from there; what was written after the journal is written again, byte for byte.

    with GrowingArray(path, (3, 64, 64), np.uint8, len(pictures), {"key": key}) as array:
        for index in range(array.position, len(pictures)):
            array.append(pixels_of(pictures[index]))
            array.mark(index + 1)
        array.finish()  # now it is at `path`, for np.load
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from t2i_course import runtime

EVERY = 512  # rows between two journals
BLOCK = 1 << 20  # bytes read at once


class GrowingArray:
    """A file in NumPy's format that rows are appended to; use it in a `with` block.

    The block leaves nothing when it ends without `finish`, or with an error. When it is killed, or
    stopped by Ctrl-C, the part file and the journal stay. One process at a time: hold a lock.

    Attributes:
        rows: number of rows that are written.
        position: what `mark` was last told in this run or, at first, in the one before; from 0.
        state: what `mark` was last told beside it; {} at first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        row_shape: Sequence[int],
        dtype: DTypeLike,
        capacity: int,
        identity: dict[str, Any],
        every: int = EVERY,
    ) -> None:
        """Open the part file, or begin one; a part that does not fit its journal is thrown away.

        Args:
            path: where the whole array belongs, NAME.npy, in a folder that exists.
            row_shape: shape of a row, such as (3, 64, 64); () for numbers.
            dtype: of the elements.
            capacity: the most rows that there may be.
            identity: all that the rows depend on, for JSON; another one begins anew.
            every: positions between two journals.

        Raises:
            OSError: the files cannot be written.
        """
        self.path, self.every = Path(path), every
        self.row_shape, self.dtype = tuple(row_shape), np.dtype(dtype)
        self.row_bytes = self.dtype.itemsize * math.prod(self.row_shape)
        self.part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        self.journal = self.path.with_name(f".{self.path.stem}.journal.json")
        shape = [capacity, *self.row_shape]
        self.identity = {"array": [self.dtype.str, shape], **identity}
        self.rows, self.position, self.state = 0, 0, {}
        self._finished = False
        for leftover in self.path.parent.glob(f".{self.journal.stem}.partial-*"):
            leftover.unlink()  # a journal that a killed process was writing
        if not self._reopen():
            self._begin(capacity)
        self._marked = self.position

    def _reopen(self) -> bool:
        """Go on with the part file if its journal fits; say whether it does."""
        try:
            found = json.loads(self.journal.read_text(encoding="utf-8"))
            if found["identity"] != json.loads(json.dumps(self.identity)):
                return False
            rows, position, state = int(found["rows"]), int(found["position"]), found["state"]
            self._file: BinaryIO = open(self.part, "r+b")
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self._start = _header_length(self._file)
        self._checksum = self._checksum_of(rows)
        if self._checksum != found.get("crc32"):
            self._file.close()
            return False
        self._file.truncate(self._file.tell())  # what came after the journal is not vouched for
        self.rows, self.position, self.state = rows, position, state
        return True

    def _begin(self, capacity: int) -> None:
        self.journal.unlink(missing_ok=True)  # before the part that it vouches for
        self._file = open(self.part, "w+b")
        self._checksum = 0
        write_header(self._file, (capacity, *self.row_shape), self.dtype)
        self._start = self._file.tell()

    def _checksum_of(self, rows: int) -> int:
        """Read so many rows of the file; return their CRC-32, or -1 if they are not all there."""
        left, checksum = rows * self.row_bytes, 0
        self._file.seek(self._start)
        while left:
            block = self._file.read(min(left, BLOCK))
            if not block:
                return -1
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        return checksum

    def __enter__(self) -> GrowingArray:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the file; after Ctrl-C keep it, with its journal, else leave nothing."""
        with contextlib.suppress(OSError):  # a full disk fails here once more
            self._file.close()
        stopped = kind is not None and not issubclass(kind, Exception)
        if not self._finished and not stopped:
            self.journal.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)

    def append(self, values: np.ndarray) -> None:
        """Write rows [K, *row_shape], or one row without its first dimension.

        Raises:
            ValueError: they have another shape or type.
            OSError: the disk is full.
        """
        row_shape = values.shape[values.ndim - len(self.row_shape) :]
        if values.dtype != self.dtype or row_shape != self.row_shape:
            raise ValueError(f"{values.dtype} {values.shape} does not fit {self.identity['array']}")
        data = np.ascontiguousarray(values).data
        self._file.write(data)
        self._checksum = zlib.crc32(data, self._checksum)
        self.rows += values.nbytes // self.row_bytes

    def mark(self, position: int, state: dict[str, Any] | None = None, now: bool = False) -> None:
        """Tell how far the work has come; every `every` positions it is written down.

        Args:
            position: where to go on, in the work's own count.
            state: what else is needed to go on, for JSON.
            now: write it down at once.

        Raises:
            OSError: the disk is full.
        """
        self.position, self.state = position, {} if state is None else state
        if not now and position - self._marked < self.every:
            return
        self._file.flush()
        os.fsync(self._file.fileno())  # the journal must not reach the disk before the rows do
        told = {"identity": self.identity, "position": position, "state": self.state}
        with runtime.atomic_file(self.journal) as file:
            text = json.dumps(told | {"rows": self.rows, "crc32": self._checksum})
            file.write_text(text, encoding="utf-8")
        self._marked = position

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows back by their numbers [K], in any order; returns [K, *row_shape].

        Not through a map: its pages would count as this process's memory.
        """
        result = np.empty((len(rows), self.row_bytes), np.uint8)
        for row, target in zip(rows.tolist(), result, strict=True):
            self._file.seek(self._start + row * self.row_bytes)
            self._file.readinto(target.data)
        self._file.seek(0, os.SEEK_END)
        return result.view(self.dtype).reshape(len(rows), *self.row_shape)

    def finish(self) -> None:
        """Give the file the number of its rows, and its name.

        Raises:
            OSError: the disk is full.
        """
        self._file.seek(0)
        write_header(self._file, (self.rows, *self.row_shape), self.dtype)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.part, self.path)
        self._finished = True
        self.journal.unlink(missing_ok=True)


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Write NumPy's header; it is as long for any number of rows, so it can be written again."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _header_length(file: BinaryIO) -> int:
    """Return where the rows begin: after the magic, a length of two bytes, and that many more."""
    start = file.read(10)
    return 10 + int.from_bytes(start[8:10], "little")
