import csv
import shutil
import subprocess
from pathlib import Path

import pytest

from t2i_course import print_figures, report, thesis
from t2i_course.__main__ import main

CHECKOUT = Path(__file__).resolve().parents[1]
LEDGER = report.read_rows(CHECKOUT / "data" / "results")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole report, of few captions."""
    return thesis.write_report(
        tmp_path_factory.mktemp("thesis") / "report", LEDGER, "en", 12
    ).parent


def test_a_report_holds_every_row_and_whatever_its_document_takes_in(folder):
    with (folder / "tables" / "ledger.csv").open(encoding="utf-8", newline="") as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    values = {name: float(line["value"]) for name, line in lines.items()}
    assert values == {row.id: row.value for row in LEDGER}
    text = (folder / "report.tex").read_text(encoding="utf-8")
    taken = [part.partition("}")[0] for part in text.split("\\input{")[1:]]
    assert {"tables/significance", "tables/cost", "tables/ablation-ladder"} <= set(taken)
    for name in taken:
        assert all((folder / f"{name}.{kind}").stat().st_size for kind in ("tex", "md", "csv"))
    for name in ("samples", "samples_column", "cost"):
        assert all((folder / "figures" / f"{name}.{kind}").is_file() for kind in ("pdf", "png"))
    assert (folder / "references.bib").read_bytes() == (CHECKOUT / "references.bib").read_bytes()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], (
        "nothing half-written is left"
    )


def test_the_statement_names_versions_hardware_seeds_commands_and_licences(folder):
    text = (folder / "reproducibility.md").read_text(encoding="utf-8")
    for row in LEDGER:
        assert row.command in text and row.hardware in text
    for stated in ("torch 2", "Python 3", "Apache License 2.0", "CC BY 4.0", "0, 1, 2, numbers: "):
        assert stated in text
    assert all(f"weights {name}: " in text for name in ("gan", "caption-matcher"))


def test_each_pair_of_generators_is_compared():
    pictures = print_figures.draw_fresh(["baseline", "gan", "style"], 12, (0, 1))
    table = thesis.significance_table(pictures)
    assert list(table.cells) == ["baseline - gan", "baseline - style", "gan - style"]
    gap = 100 * (pictures.right["baseline"].mean() - pictures.right["gan"].mean())
    assert table.cells["baseline - gan"]["everything right, points"].startswith(f"{gap:+.1f} (")
    assert "12 fresh captions, 2 seeds" in table.caption


def test_costs_are_those_of_evaluated_generators_the_cheapest_first():
    costs = thesis.costs_of(LEDGER)
    assert {"baseline", "gan"} <= {cost.name for cost in costs}
    old = [row for row in LEDGER if row.command.startswith("git checkout")]
    assert old and thesis.costs_of(old) == [], "rows of another GAN are not the GAN's"
    assert [c.seconds for c in costs] == sorted(c.seconds for c in costs)
    table = thesis.cost_table(costs)
    assert all("% (" in line["everything right"] for line in table.cells.values())


def compile_document(folder, program, copy):
    """Compile as the document's first line says; return the log."""
    if shutil.which(program) is None or shutil.which("bibtex") is None:
        pytest.skip(f"there is no {program}, or no bibtex: the document is not compiled here")
    shutil.copytree(folder, copy)
    first = (copy / "report.tex").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"% {program} report && bibtex report")
    for name in first.removeprefix("% ").replace(" report", "").split(" && "):
        words = [name, "report"] if name == "bibtex" else [
            name, "-interaction=nonstopmode", "-halt-on-error", "report"
        ]  # fmt: skip
        done = subprocess.run(words, cwd=copy, capture_output=True, text=True, errors="replace",
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
    return (copy / "report.log").read_text(encoding="utf-8", errors="replace")


def test_the_document_compiles(folder, tmp_path):
    log = compile_document(folder, "pdflatex", tmp_path / "copy")
    assert (tmp_path / "copy" / "report.pdf").stat().st_size > 50_000
    assert "undefined" not in log and "Overfull" not in log


def test_the_chinese_document_compiles(folder, tmp_path):
    asked = ["kpsewhich", "ctexart.cls"]
    if shutil.which(asked[0]) is None or subprocess.run(asked, check=False).returncode:
        pytest.skip("there is no ctex: the Chinese document is not compiled here")
    sections = {"results": [f"tables/{p.stem}" for p in folder.glob("tables/results-*.tex")],
                "samples": ["gan"]}  # fmt: skip
    text = thesis.document(sections, thesis.statement(LEDGER), "zh", "2026-01-31")
    shutil.copytree(folder, tmp_path / "zh")
    (tmp_path / "zh" / "report.tex").write_text(text, encoding="utf-8")
    log = compile_document(tmp_path / "zh", "xelatex", tmp_path / "copy")
    assert "undefined" not in log and "Missing character" not in log


# The folder


def test_nothing_that_is_there_is_replaced(tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "report.tex").write_text("my own words")
    assert main(["report", "--output", str(mine)]) == 2
    assert "is not empty, and a report replaces nothing" in capsys.readouterr().err
    assert (mine / "report.tex").read_text() == "my own words" and len(list(mine.iterdir())) == 1
    assert main(["report", "--output", str(mine / "report.tex")]) == 2
    assert "is a file: name a folder" in capsys.readouterr().err


def test_bad_input_is_refused_before_the_work(tmp_path):
    for rows, language, captions, message in (
        (LEDGER, "en", 3, "10 or more"), ([], "en", 10, "the ledger is empty"),
        (LEDGER, "fr", 10, "language 'fr'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            thesis.write_report(tmp_path / "other", rows, language, captions)


def test_a_ledger_without_evaluations_fills_an_empty_folder_all_the_same(tmp_path):
    (tmp_path / "report").mkdir()
    rows = [row for row in LEDGER if row.id == "oracle-right"]
    path = thesis.write_report(tmp_path / "report", rows, "zh", 10)
    text = path.read_text(encoding="utf-8")
    assert "ctexart" in text and "\\section{生成样例}" in text and "\\section{消融实验}" not in text


def test_a_report_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    (tmp_path / "report").mkdir()
    monkeypatch.setattr(print_figures, "cost_figure", broken)
    with pytest.raises(KeyboardInterrupt):
        thesis.write_report(tmp_path / "report", LEDGER, captions=10)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
