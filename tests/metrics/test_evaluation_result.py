"""Tables, ledger rows and log lines of an evaluation."""

from __future__ import annotations

import json

import pytest

from t2i_course import report
from t2i_course.estimates import Estimate
from t2i_course.metrics.evaluation_result import (
    REAL,
    SHUFFLED,
    Evaluation,
    Measure,
    read_lines,
    write_line,
)


def measure(judged: str, metric: str, value: float, share: bool = False) -> Measure:
    estimate = Estimate(value, (value - 0.01, value + 0.01), 500)
    split = "val_seen" if "seen" in metric else "val"
    return Measure(judged, metric, estimate, f"{metric} in words", "oracle", split, 1.25, share)


@pytest.fixture
def found() -> Evaluation:
    measures = (
        measure("small", "FD-scenes", 12.5),
        measure(REAL, "FD-scenes", 0.5),
        measure("small", "scene accuracy: all", 0.25, share=True),
        measure("small", "scene accuracy: seen pairs", 0.375, share=True),
        measure(REAL, "scene accuracy: all", 0.99, share=True),
        measure(SHUFFLED, "scene accuracy: all", 0.02, share=True),
    )
    return Evaluation("small", "scenes", "val", 500, (3,), measures, ("FID: not asked for",))


def test_the_table_has_a_column_for_real_pictures_and_one_for_shuffled_captions(found):
    table = found.table()
    assert list(table.columns) == ["small", REAL, SHUFFLED]
    assert list(table.index) == ["FD-scenes", "scene accuracy: all", "scene accuracy: seen pairs"]
    assert table.loc["scene accuracy: all", SHUFFLED] == "2.0% (1.0% to 3.0%)"
    assert table.loc["FD-scenes", "small"] == "12.5 (12.49 to 12.51)"
    assert table.loc["FD-scenes", SHUFFLED] == ""


def test_the_text_states_what_was_measured_and_what_was_not(found):
    first, *_, last = str(found).splitlines()
    assert first.startswith("small on scenes, val: 500 pictures, one a caption, 8 bits, seed 3;")
    assert last == "left out: FID: not asked for"
    assert found.main_figures() == "FD-scenes 12.5, scene accuracy: all 25.0%"


def test_numbers_are_found_by_name(found):
    assert found.find("FD-scenes").value == 12.5
    assert found.find("FD-scenes", REAL).value == 0.5
    with pytest.raises(KeyError, match="no 'FID' of 'small'"):
        found.find("FID")


def test_rows_of_the_ledger_have_ids_of_their_own_and_come_back_as_they_were(found, tmp_path):
    rows = found.rows("gan", "python -m t2i_course evaluate")
    assert [row.id for row in rows][:4] == [
        "gan-small-fd-scenes-val-n500-s3",
        "gan-real-fd-scenes-val-n500",
        "gan-small-scene-accuracy-all-val-n500-s3",
        "gan-small-scene-accuracy-seen-pairs-val-n500-s3",
    ]
    assert [row.seeds for row in rows] == [(3,), (), (3,), (3,), (), (3,)]
    assert rows[3].split == "val_seen"
    report.add_rows(tmp_path / "gan.json", rows)
    assert sorted(rows, key=lambda row: row.id) == report.read_rows(tmp_path)


def test_rows_for_photos_name_the_data(found):
    photos = Evaluation("small", "My photos", "val", 500, (), found.measures)
    assert photos.rows("x", "y")[0].id == "x-small-fd-scenes-my-photos-val-n500"


def test_a_line_a_step_in_order_and_measured_again_it_is_replaced(found, tmp_path):
    file = tmp_path / "run" / "evaluations.jsonl"
    other = Evaluation("small", "scenes", "val", 500, (3,), (measure("small", "FD-scenes", 7.0),))
    for step, result in ((200, found), (100, found), (300, found), (200, other)):
        write_line(file, step, result)
    lines = read_lines(file)
    assert [line["step"] for line in lines] == [100, 200, 300]
    assert lines[1]["metrics"] == {
        "FD-scenes": {
            "value": 7.0, "interval": [6.99, 7.01], "samples": 500, "extractor": "oracle",
        }
    }  # fmt: skip
    assert set(lines[0]["metrics"]) == {
        "FD-scenes", "scene accuracy: all", "scene accuracy: seen pairs",
    }  # fmt: skip
    assert (lines[0]["samples"], lines[0]["seeds"]) == (500, [3])
    assert [json.loads(text) for text in file.read_text().splitlines()] == lines
    assert [p.name for p in file.parent.iterdir()] == ["evaluations.jsonl"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"loss": 1}'])
def test_a_log_that_is_none_is_named_and_kept(found, tmp_path, text):
    file = tmp_path / "evaluations.jsonl"
    write_line(file, 1, found)
    file.write_text(file.read_text() + text + "\n")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="line 2 is no evaluation"):
        write_line(file, 2, found)
    assert file.read_bytes() == before
