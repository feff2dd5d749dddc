import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from t2i_course import report
from t2i_course.thesis_tables import (
    ablation_tables,
    escape,
    measure_of,
    result_tables,
    source_of,
)

LEDGER = report.read_rows(Path(__file__).resolve().parents[1] / "data" / "results")
ROW = report.Row(
    id="a-gan-scene-accuracy-all-val-n2000", value=0.903, interval=(0.89, 0.916), samples=2000,
    metric="gan: everything right that the caption states, share, all", seeds=(0,), split="val",
    extractor="oracle", data="scenes", hardware="2-core x86_64, no GPU", seconds=12.5,
    command="python -m t2i_course evaluate --model gan --samples 2000 --ledger a",
    date="2026-01-31",
)  # fmt: skip
DISTANCE = replace(
    ROW, id="a-gan-fd-scenes-val-n2000", metric="gan: FD-scenes, squared Frechet distance to",
    value=1234.5, interval=(1000.0, 1500.0), extractor="scene-features a4 (a4)",
)  # fmt: skip


def test_a_table_holds_value_interval_and_what_they_rest_on():
    (table,) = result_tables([ROW, DISTANCE])
    assert table.name == "results-scenes-val-n2000"
    assert table.columns() == ["everything right", "FD-scenes"]
    assert "| gan | 90.3% (89.0 to 91.6) | 1,234 (1,000 to 1,500) |" in table.markdown()
    for stated in ("2,000 captions", "seed 0", "95 % intervals", "oracle, scene-features a4."):
        assert stated in table.caption
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert lines[0]["row"] == ROW.id and float(lines[0]["low"]) == 0.89
    assert float(lines[1]["value"]) == 1234.5
    latex = table.latex()
    assert r"\toprule" in latex and r"\pair{90.3\%}{(89.0 to 91.6)}" in latex
    assert r"\label{tab:results-scenes-val-n2000}" in latex


def test_sets_and_splits_are_tables_of_their_own_and_real_pictures_come_first():
    real = replace(ROW, id="a-real-all-val-n2000", metric=ROW.metric.replace("gan", "real"))
    other = replace(ROW, id="a-shuffled-captions-all-val-n2000", value=0.0, interval=None,
                    metric=ROW.metric.replace("gan", report.SHUFFLED))  # fmt: skip
    test = replace(ROW, id="a-gan-scene-accuracy-all-test-n2000-s1", split="test")
    tables = result_tables([other, ROW, real, test])
    assert [t.name for t in tables] == ["results-scenes-val-n2000", "results-scenes-test-n2000"]
    assert list(tables[0].cells) == ["real", "gan", "gan, shuffled captions"]


def test_unusual_options_are_named_beside_the_model():
    longer = replace(ROW, command=ROW.command + " --truncation 0.5 --seed 3")
    assert source_of(longer) == "gan (--truncation 0.5, --seed 3)"
    assert source_of(ROW) == "gan"


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("gan: everything right that the caption states, share, one object", "one object"),
        ("gan: recall, k = 3, against 2,000 real pictures of val", "recall"),
        ("averaged: scene accuracy: color, mean of the seeds", "color right"),
        ("averaged: scene accuracy: all, mean of the seeds", "everything right"),
        ("averaged: scene accuracy: two objects, mean of the seeds", "two objects"),
    ],
)
def test_columns_are_named_by_what_was_measured(metric, name):
    assert measure_of(replace(ROW, metric=metric, value=0.5, interval=None)) == name


def test_ablations_are_in_the_order_of_their_command():
    command = "python benchmarks/x.py --ledger mine --rungs bare full full-again"
    rows = [
        replace(ROW, id=f"mine-{rung}-r", metric=f"{rung}: R@1, mean of the seeds, after 9 steps",
                seeds=(0, 1, 2), command=command)
        for rung in ("full-again", "bare", "full")
    ]  # fmt: skip
    (table,) = ablation_tables(rows)
    assert table.name == "ablation-mine" and list(table.cells) == ["bare", "full", "full-again"]
    assert "mean of the seeds, after 9 steps; seeds 0, 1, 2" in table.caption
    assert "over seeds" in table.caption


def test_the_courses_ledger_gives_tables_with_every_evaluated_model():
    names = [table.name for table in [*result_tables(LEDGER), *ablation_tables(LEDGER)]]
    assert len(set(names)) == len(names) and "ablation-ladder" in names
    table = next(t for t in result_tables(LEDGER) if t.name.startswith("results-scenes"))
    assert {"real", "baseline", "gan"} <= set(table.cells)


def test_what_latex_takes_for_commands_is_escaped():
    assert escape(r"50% of a_b & c#1 {x} ~ ^ \ --all") == (
        r"50\% of a\_b \& c\#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} -{}-all"
    )
