"""An array that grows on disk: whole or not there, and the same bytes after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from t2i_course.growing_array import GrowingArray, write_header

SHAPE = (3, 4)
ROWS = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)


def grow(path: Path, stop: int | None = None, every: int = 4, kind: type = KeyboardInterrupt):
    """Write ROWS; at row `stop` raise an error of that kind. Return where the work began."""
    with GrowingArray(path, SHAPE, np.uint8, len(ROWS), {"of": "test"}, every) as array:
        begun = array.position
        for index in range(begun, len(ROWS)):
            if index == stop:
                raise kind
            array.append(ROWS[index])
            array.mark(index + 1, {"last": index})
        array.finish()
    return begun


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_finished_array_is_what_was_appended(tmp_path):
    assert grow(tmp_path / "a.npy") == 0
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), ROWS)
    assert files(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 11, 19])
def test_stopped_work_goes_on_from_the_journal_with_the_same_bytes(tmp_path, stop):
    grow(tmp_path / "whole.npy")
    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path / "a.npy", stop)
    assert not (tmp_path / "a.npy").exists()
    assert grow(tmp_path / "a.npy") == stop // 4 * 4
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert files(tmp_path) == ["a.npy", "whole.npy"]


def test_work_that_is_stopped_again_and_again_comes_to_its_end(tmp_path):
    grow(tmp_path / "whole.npy")
    for stop in (5, 9, 13, 18):
        with pytest.raises(KeyboardInterrupt):
            grow(tmp_path / "a.npy", stop)
    assert grow(tmp_path / "a.npy") == 16
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_state_and_position_come_back(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path / "a.npy", 11)
    with GrowingArray(tmp_path / "a.npy", SHAPE, np.uint8, len(ROWS), {"of": "test"}) as array:
        assert (array.rows, array.position, array.state) == (8, 8, {"last": 7})


def every_third(path: Path, stop: int | None = None) -> None:
    """Append every third row; the others are looked at and left out."""
    with GrowingArray(path, SHAPE, np.uint8, len(ROWS), {}, 2) as array:
        for index in range(array.position, len(ROWS)):
            if index == stop:
                raise KeyboardInterrupt
            if index % 3 == 0:
                array.append(ROWS[index])
            array.mark(index + 1)
        array.finish()


def test_rows_may_be_fewer_than_positions(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        every_third(tmp_path / "a.npy", 9)
    every_third(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), ROWS[::3])


@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_an_error_leaves_nothing(tmp_path, kind):
    with pytest.raises(kind):
        grow(tmp_path / "a.npy", 11, kind=kind)
    assert files(tmp_path) == []


def test_a_block_without_finish_leaves_nothing(tmp_path):
    with GrowingArray(tmp_path / "a.npy", SHAPE, np.uint8, 20, {}, 1) as array:
        array.append(ROWS[:3])
        array.mark(3)
    assert files(tmp_path) == []


def other_identity(part: Path, journal: Path) -> None:
    journal.write_text(journal.read_text().replace('"of": "test"', '"of": "rest"'))


def other_byte(part: Path, journal: Path) -> None:
    data = bytearray(part.read_bytes())
    data[-20] ^= 1
    part.write_bytes(data)


def cut_part(part: Path, journal: Path) -> None:
    part.write_bytes(part.read_bytes()[:150])


def empty_part(part: Path, journal: Path) -> None:
    part.write_bytes(b"")


def no_part(part: Path, journal: Path) -> None:
    part.unlink()


def no_journal(part: Path, journal: Path) -> None:
    journal.unlink()


def cut_journal(part: Path, journal: Path) -> None:
    journal.write_text(journal.read_text()[:40])


def wrong_journal(part: Path, journal: Path) -> None:
    found = json.loads(journal.read_text())
    journal.write_text(json.dumps(found | {"rows": None}))


def journal_of_more_rows(part: Path, journal: Path) -> None:
    found = json.loads(journal.read_text())
    journal.write_text(json.dumps(found | {"rows": 12}))


FAULTS = [
    other_identity, other_byte, cut_part, empty_part, no_part, no_journal, cut_journal,
    wrong_journal, journal_of_more_rows,
]  # fmt: skip


@pytest.mark.parametrize("damage", FAULTS)
def test_part_that_does_not_fit_its_journal_is_thrown_away(tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path / "a.npy", 8)
    part, journal = tmp_path / ".a.part.npy", tmp_path / ".a.journal.json"
    assert files(tmp_path) == [".a.journal.json", ".a.part.npy"]
    damage(part, journal)
    assert grow(tmp_path / "a.npy") == 0
    assert np.array_equal(np.load(tmp_path / "a.npy"), ROWS)
    assert files(tmp_path) == ["a.npy"]


def test_part_of_another_type_or_size_is_thrown_away(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path / "a.npy", 8)
    with GrowingArray(tmp_path / "a.npy", SHAPE, np.int8, len(ROWS), {"of": "test"}) as array:
        assert array.position == 0


def test_rows_are_read_back_in_any_order(tmp_path):
    values = np.arange(60, dtype=np.float16).reshape(20, 3)
    with GrowingArray(tmp_path / "a.npy", (3,), np.float16, 20, {}) as array:
        array.append(values[:15])
        asked = np.array([14, 0, 0, 7])
        assert np.array_equal(array.read(asked), values[asked])
        assert array.read(asked[:0]).shape == (0, 3)
        array.append(values[15:])
        array.finish()
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)


def test_rows_may_be_numbers(tmp_path):
    with GrowingArray(tmp_path / "a.npy", (), np.int64, 100, {}) as array:
        array.append(np.arange(5))
        assert array.read(np.array([3])).tolist() == [3]
        array.finish()
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


def test_other_shapes_and_types_are_refused(tmp_path):
    with GrowingArray(tmp_path / "a.npy", SHAPE, np.uint8, 20, {}) as array:
        for wrong in (ROWS[0].T, ROWS[0].astype(np.int16), ROWS[:, :2]):
            with pytest.raises(ValueError, match="does not fit"):
                array.append(wrong)


def test_header_is_as_long_for_any_number_of_rows(tmp_path):
    lengths = set()
    for number in (0, 1, 118_287, 10**9):
        with open(tmp_path / "header", "wb") as file:
            write_header(file, (number, 3, 64, 64), np.uint8)
            lengths.add(file.tell())
    assert len(lengths) == 1
