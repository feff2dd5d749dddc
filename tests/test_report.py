import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import pytest

from t2i_course import report
from t2i_course.evaluation import Estimate
from t2i_course.report import REAL, SHUFFLED, Evaluation, Measure, read_lines, write_line

CHECKOUT = Path(__file__).resolve().parents[1]

ROW = report.Row(
    id="mse-scene-accuracy", metric="scene accuracy, share of scenes", value=0.125,
    interval=(0.11, 0.14), samples=2000, seeds=(0, 1, 2), split="val_unseen", extractor="oracle",
    data="scenes", hardware="2-core x86_64, no GPU", seconds=12.5,
    command="python -m t2i_course evaluate", date="2026-01-31",
)  # fmt: skip


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    return tmp_path


def test_rows_come_back_as_they_were_written_and_the_same_id_is_replaced(home):
    other = replace(ROW, id="speed", interval=None, seeds=(), value=3)
    path = report.add_rows("training.json", [other, ROW])
    assert path == home.resolve() / "results" / "training.json"
    assert report.read_rows() == [ROW, other] and report.find_row("speed") == other
    before = path.read_bytes()
    with pytest.raises(ValueError, match="same id"):
        report.add_rows("training.json", [ROW, ROW])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    report.add_rows("training.json", [replace(ROW, value=0.13)])
    assert [row.value for row in report.read_rows()] == [0.13, 3]
    report.add_rows("training.json", [ROW])
    assert path.read_bytes() == before, "the order of writing leaves no trace"
    with pytest.raises(KeyError, match="nothing-here"):
        report.find_row("nothing-here")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "With Spaces"), ("value", float("nan")), ("value", "0.125"),
        ("interval", (0.13, 0.14)), ("interval", (0.11,)), ("interval", (0.11, float("inf"))),
        ("samples", 0), ("samples", 2.5), ("seeds", (0.5,)), ("seeds", 0), ("split", None),
        ("hardware", "  "), ("seconds", -1), ("date", "yesterday"),
    ],
)  # fmt: skip
def test_row_that_cannot_be_checked_is_refused(field, value):
    with pytest.raises(ValueError, match="ledger row"):
        replace(ROW, **{field: value})


@pytest.mark.parametrize("fault", ["not JSON", "{}", "[1]", *(k for k in asdict(ROW))])
def test_file_with_something_else_than_whole_rows_is_named(home, fault):
    path = report.add_rows("a.json", [ROW])
    text = json.dumps([{k: v for k, v in asdict(ROW).items() if k != fault}])
    path.write_text(text if fault in asdict(ROW) else fault)
    with pytest.raises(ValueError, match=rf"a\.json.*{fault if fault in asdict(ROW) else ''}"):
        report.read_rows()


def test_id_may_stand_in_one_file_only(home):
    report.add_rows("a.json", [ROW])
    report.add_rows("b.json", [ROW])
    with pytest.raises(ValueError, match=r"b\.json.*mse-scene-accuracy"):
        report.read_rows()


def test_quotes_show_the_row_in_their_own_format():
    quote = "<!-- ledger: {} {} -->0<!-- /ledger -->"
    text = f"It is {quote} right, others {quote}."
    forms = ("{value:.1%}", "{value:.2f} ({low:.2f} to {high:.2f}, {samples:,} scenes)")
    filled = report.fill_quotes(text.format(ROW.id, forms[0], ROW.id, forms[1]), [ROW])
    assert re.sub("<!--.*?-->", "", filled) == (
        "It is 12.5% right, others 0.12 (0.11 to 0.14, 2,000 scenes)."
    )
    assert report.fill_quotes(filled, [ROW]) == filled
    assert report.fill_quotes(filled, [replace(ROW, value=0.13)]) != filled


def test_quote_of_an_unknown_row_or_field_is_refused():
    quote = "<!-- ledger: {} {} -->0<!-- /ledger -->"
    with pytest.raises(KeyError, match="gone"):
        report.fill_quotes(quote.format("gone", "{value}"), [ROW])
    for form in ("{speed}", "{value:.1x}", "{0}"):
        with pytest.raises(ValueError, match="bad format"):
            report.fill_quotes(quote.format(ROW.id, form), [ROW])


def test_quotes_are_written_into_markdown_and_notebooks(home):
    report.add_rows("a.json", [ROW])
    quote = f"# Result\n\n<!-- ledger: {ROW.id} {{value:.1%}} -->0<!-- /ledger --> é\n"
    (home / "a.md").write_text(quote, encoding="utf-8")
    cells = [nbformat.v4.new_markdown_cell(quote), nbformat.v4.new_code_cell(f"'{quote!r}'")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), home / "a.ipynb")
    before = nbformat.read(home / "a.ipynb", as_version=4)
    report.write_quotes(home / "a.md")
    report.write_quotes(home / "a.ipynb")
    right = quote.replace(">0<", ">12.5%<")
    assert (home / "a.md").read_text(encoding="utf-8") == right
    after = nbformat.read(home / "a.ipynb", as_version=4)
    assert [cell.source for cell in after.cells] == [right, before.cells[1].source]
    nbformat.write(after, home / "b.ipynb")
    assert (home / "a.ipynb").read_bytes() == (home / "b.ipynb").read_bytes()


# Results of an evaluation


def measure(source: str, metric: str, value: float, share: bool = False) -> Measure:
    estimate = Estimate(value, (value - 0.01, value + 0.01), 500)
    split = "val_seen" if "seen" in metric else "val"
    return Measure(source, metric, estimate, f"{metric} in words", "oracle", split, 1.25, share)


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
    assert found.find("FD-scenes").value == 12.5 and found.find("FD-scenes", REAL).value == 0.5
    with pytest.raises(KeyError, match="no 'FID' of 'small'"):
        found.find("FID")
    first, *_, last = str(found).splitlines()
    assert first.startswith("small on scenes, val: 500 pictures, one a caption, 8 bits, seed 3;")
    assert last == "left out: FID: not asked for"
    assert found.main_figures() == "FD-scenes 12.5, scene accuracy: all 25.0%"


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


# The course's own ledger and prose


def prose():
    """Name and Markdown of every text that may quote the ledger."""
    pages = [path for folder in (".", "docs", "data") for path in CHECKOUT.glob(f"{folder}/*.md")]
    for path in sorted(pages):
        yield str(path.relative_to(CHECKOUT)), path.read_text(encoding="utf-8")
    for path in sorted(CHECKOUT.glob("notebooks/*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        yield path.name, "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def ledger():
    return report.read_rows(CHECKOUT / "data" / "results")


@pytest.mark.parametrize(("name", "text"), [pytest.param(*pair, id=pair[0]) for pair in prose()])
def test_prose_quotes_the_ledger_as_it_is(name, text):
    assert report.stale_quotes(text, ledger()) == [], f"{name}: the ledger says otherwise"
    quotes = len(report.QUOTE.findall(text))
    assert text.count("<!-- ledger") == quotes == text.count("/ledger"), "a marker is misspelt"


def test_a_stale_quote_is_shown_in_its_sentence():
    quote = f"<!-- ledger: {ROW.id} {{value:.1%}} -->12.5%<!-- /ledger -->"
    text = f"First things.\n\nSome say so. Of the scenes, {quote} are\nright. No more."
    assert report.stale_quotes(text, [ROW]) == []
    (fault,) = report.stale_quotes(text, [replace(ROW, value=0.13)])
    assert fault == f"{ROW.id}: the page says 'Of the scenes, 12.5% are right', the ledger '13.0%'"
    (fault,) = report.stale_quotes(text, [])
    assert fault.endswith(f"the ledger \"the ledger has no row '{ROW.id}', which the text quotes\"")
    table = f"| of | share |\n|---|---|\n| MSE | {quote} |\n| GAN | 0% |\n"
    (fault,) = report.stale_quotes(table, [replace(ROW, value=0.13)])
    assert "'MSE | 12.5% |'" in fault


def test_every_row_is_quoted_by_a_page_or_read_by_a_notebook():
    quoted = {match["id"] for _, text in prose() for match in report.QUOTE.finditer(text)}
    read = []  # ids and their patterns in code, f"ladder-{rung}-{metric}"
    for path in sorted(CHECKOUT.glob("notebooks/*.ipynb")):
        code = (c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        for text in re.findall(r'"([a-z][a-z0-9{}_-]*-[a-z0-9{}_-]*)"', "\n".join(code)):
            read.append(".+".join(map(re.escape, re.split(r"\{\w+\}", text))))
    pattern = re.compile("|".join(read))
    assert [r.id for r in ledger() if r.id not in quoted and not pattern.fullmatch(r.id)] == []


def test_ledger_is_complete_and_holds_no_machines_path():
    rows = ledger()
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        words = " ".join(map(str, asdict(row).values()))
        assert not re.search(r"(?<![\w.])/(home|root|tmp|Users|work|opt)/|\b[A-Z]:\\", words), (
            row.id
        )
