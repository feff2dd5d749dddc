"""Exercises: solutions pass, stubs do not, and both come from one source.

An exercise is a code cell of a notebook with `answer = ...`, whose metadata hold the same cell
solved, under "solution". `python tests/test_exercises.py` writes `notebooks/solutions/` anew: the
imports, the settings and the solved cells of each notebook, executed. An exercise therefore uses
what these cells make and nothing else.
"""

import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert.preprocessors import ExecutePreprocessor

from t2i_course.exercises import check

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def exercises(path):
    """The exercise cells of a notebook, each as (stub, solution)."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        (cell.source, cell.metadata["solution"]) for cell in cells if "solution" in cell.metadata
    ]


def solved(path):
    """The notebook of solutions that belongs to a notebook, not executed."""
    notebook = nbformat.read(path, as_version=4)
    title = notebook.cells[0].source.splitlines()[0]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = f"{title}: solutions\n\nThe exercises of [{path.stem}](../{path.name}), solved."
    cells = [nbformat.v4.new_markdown_cell(text)]
    cells += [nbformat.v4.new_code_cell(cell.source) for cell in code[:2]]
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if "solution" in cell.metadata:
            cells.append(nbformat.v4.new_markdown_cell(before.source))
            cells.append(nbformat.v4.new_code_cell(cell.metadata["solution"]))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": notebook.metadata.kernelspec}
    )


WITH_EXERCISES = [path for path in sorted(FOLDER.glob("*.ipynb")) if exercises(path)]


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_stubs_and_solutions_come_from_one_source(path):
    assert len(exercises(path)) >= 3
    for stub, solution in exercises(path):
        assert "answer = ..." in stub and "answer = ..." not in solution
        assert "check(" in stub and stub.split("check(")[-1] == solution.split("check(")[-1]
    stored = nbformat.read(FOLDER / "solutions" / path.name, as_version=4)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in solved(path).cells]


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_stubs_fail_and_solutions_pass(path):
    stubs = {stub for stub, _ in exercises(path)}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.source in stubs:
            assert last_line(cell) == "Not answered yet."
    stored = nbformat.read(FOLDER / "solutions" / path.name, as_version=4)
    solutions = {solution for _, solution in exercises(path)}
    assert all(last_line(cell) == "Right." for cell in stored.cells if cell.source in solutions)


def last_line(cell):
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    return "".join(texts).strip().splitlines()[-1]


def test_check_says_what_is_missing(capsys):
    check(..., lambda answer: True, "Think.")
    check(3, lambda answer: answer == 3, "Think.")
    check(2, lambda answer: answer == 3, "Think.")
    check("a", lambda answer: answer + 1 == 3, "Think.")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Not answered yet.", "Right.", "Not yet. Think."]
    assert lines[3].startswith("Not yet: TypeError") and lines[3].endswith("Think.")


if __name__ == "__main__":
    chosen = sys.argv[1:]
    for path in WITH_EXERCISES:
        if not chosen or path.stem in chosen:
            notebook = solved(path)
            (FOLDER / "solutions").mkdir(exist_ok=True)
            place = {"metadata": {"path": str(FOLDER / "solutions")}}
            ExecutePreprocessor(record_timing=False, store_widget_state=False).preprocess(
                notebook, place
            )
            nbformat.write(notebook, FOLDER / "solutions" / path.name)
            print(f"notebooks/solutions/{path.name}")
