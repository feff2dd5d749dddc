"""Captions on disk behave as the lists that they stand for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from t2i_course import caption_file
from t2i_course.caption_file import Captions, GroupedCaptions, write_captions

TEXTS = [
    "a red bus",
    "un chat près d'une fenêtre",
    "",
    "猫が窓辺に座っている",
    "\N{CAT FACE} and\nline\0zero\u2028",
    "a red bus",
    "\ud800 alone",
]
STARTS = np.array([0, 2, 2, 3, 7])  # the second image has no caption
GROUPS = [TEXTS[0:2], [], TEXTS[2:3], TEXTS[3:7]]
SLICES = [
    slice(None),
    slice(2, 5),
    slice(-3, None),
    slice(0, 0),
    slice(5, 2),
    slice(100, 200),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(np.int64(1), np.int64(3)),
]


@pytest.fixture
def captions(tmp_path: Path) -> Captions:
    write_captions(tmp_path / "c", TEXTS)
    return Captions(tmp_path / "c")


def test_every_letter_comes_back(captions):
    assert len(captions) == len(TEXTS)
    assert list(captions) == TEXTS
    assert [captions[i] for i in range(len(TEXTS))] == TEXTS
    assert [captions[i] for i in range(-len(TEXTS), 0)] == TEXTS
    assert captions[np.int64(1)] == TEXTS[1]


@pytest.mark.parametrize("part", SLICES)
def test_slices_are_lists(captions, part):
    assert captions[part] == TEXTS[part] and type(captions[part]) is list
    grouped = GroupedCaptions(captions, STARTS)
    assert grouped[part] == GROUPS[part] and type(grouped[part]) is list


def test_groups_are_lists_of_captions(captions):
    grouped = GroupedCaptions(captions, STARTS)
    assert len(grouped) == 4
    assert list(grouped) == GROUPS
    assert [grouped[i] for i in (-1, -2, 0, 1)] == [GROUPS[i] for i in (-1, -2, 0, 1)]


def test_they_equal_lists_both_ways_and_nothing_else(captions):
    grouped = GroupedCaptions(captions, STARTS)
    for lazy, whole in ((captions, TEXTS), (grouped, GROUPS)):
        assert lazy == whole and whole == lazy and lazy == lazy
        assert lazy != whole[:-1] and lazy != whole[::-1]
        assert lazy != None and lazy != "text"  # noqa: E711
    assert TEXTS[3] in captions and "no such" not in captions
    assert captions.index("") == 2 and captions.count("a red bus") == 2
    assert set(captions) == set(TEXTS)
    assert "7 of Captions: 'a red bus'" in repr(captions)


@pytest.mark.parametrize("index", [7, -8, 10**9])
def test_rows_outside_are_errors(captions, index):
    with pytest.raises(IndexError, match=f"{index} of 7"):
        captions[index]
    with pytest.raises(IndexError, match=f"{index} of 4"):
        GroupedCaptions(captions, STARTS)[index]


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""]])
def test_no_captions_and_empty_ones(tmp_path, texts):
    write_captions(tmp_path / "c", iter(texts))
    captions = Captions(tmp_path / "c")
    assert captions == texts and list(captions) == texts and captions[:] == texts


def test_iteration_crosses_its_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_file, "CHUNK", 3)
    texts = [f"caption {number} é" for number in range(10)]
    write_captions(tmp_path / "c", texts)
    assert list(Captions(tmp_path / "c")) == texts


def test_they_travel_as_a_path(captions):
    travelled = pickle.dumps(captions)
    assert len(travelled) < 400 and b"fen" not in travelled
    assert pickle.loads(travelled) == TEXTS
    assert pickle.loads(pickle.dumps(GroupedCaptions(captions, STARTS))) == GROUPS


def test_files_are_memory_mapped_and_read_only(captions):
    assert isinstance(captions._bytes.base, np.memmap)
    assert not captions._bytes.flags.writeable


@pytest.mark.parametrize("name", ["captions", "offsets"])
def test_cut_files_are_errors(captions, name):
    file = Path(f"{captions.path}.{name}.npy")
    data = file.read_bytes()
    path = captions.path.with_name("cut")
    os.link(f"{captions.path}.captions.npy", f"{path}.captions.npy")
    os.link(f"{captions.path}.offsets.npy", f"{path}.offsets.npy")
    cut = Path(f"{path}.{name}.npy")
    cut.unlink()
    cut.write_bytes(data[:-3])
    with pytest.raises(ValueError):
        Captions(path)


def test_files_that_do_not_belong_together_are_named(tmp_path):
    write_captions(tmp_path / "a", TEXTS)
    write_captions(tmp_path / "b", TEXTS[:3])
    os.replace(tmp_path / "b.offsets.npy", tmp_path / "a.offsets.npy")
    with pytest.raises(ValueError, match=r"a\.captions\.npy does not fit .*a\.offsets\.npy"):
        Captions(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        Captions(tmp_path / "absent")
