"""What `pytest --nbval` does not see in the notebooks.

nbval runs the cells and compares their outputs. It passes a notebook whose outputs were cleared,
whose cells were run out of order, or whose code is no longer the package's. The form that these
tests ask for:

- The first cell is Markdown: `# NN Title`, as the file is named, a sentence, a table of one row

      | Before this | Minutes (2-core CPU) | Minutes (GPU) | New here |
      |---|---|---|---|
      | [01 Data](01_data.ipynb) | 2 | 1 | masked mean, features kept on disk |

  whose minutes are those of the README's syllabus, `| [NN Title](notebooks/FILE) | ... | 2 | 1 |`.
- The first code cell imports, the package before torch; the second reads
  `settings = runtime.settings()`.
- Sections (`## `, perhaps with a number) "Where the article stops working", "Check yourself",
  "Summary" and "References"; works are cited as `[@key]`, a key of references.bib.
- The last cell links the next notebook.
- A cell that begins with `# package: t2i_course.X` holds definitions of that module, unchanged but
  for a docstring, of which a cell may show the first paragraph alone.
  One that begins with `# package: t2i_course.X.Class` holds methods of that class, `def` at the
  left edge, so that a long class is shown method by method.
"""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "notebooks"
HEADER = ["Before this", "Minutes (2-core CPU)", "Minutes (GPU)", "New here"]
# A path from the root of a machine's disk; not the path of a web address
MACHINE_PATH = re.compile(
    r"(?<![\w.:/-])/(home|root|tmp|Users|work|opt|usr|var|mnt|private)/|\b[A-Za-z]:\\(Users|Windows|Pro)"
    r"|file:///|site-packages"
)
SECTIONS = ["Where the article stops working", "Check yourself", "Summary", "References"]

every_notebook = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.ipynb"))]
)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path):
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def tags(cell):
    return set(cell.metadata.get("tags", []))


def texts(cell):
    """Every text that the outputs of a code cell hold."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        for kind, content in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield content if isinstance(content, str) else json.dumps(content)
        yield from output.get("traceback", [])


def section(path, title):
    """The cells of a section, up to the next heading of its level."""
    cells, inside = [], False
    for cell in read(path).cells:
        heading = re.match(r"##(?!#)\s+(?:\d+\.?\s+)?(.+)", cell.source)
        if cell.cell_type == "markdown" and heading:
            inside = heading[1].strip() == title
        if inside:
            cells.append(cell)
    return cells


def row_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def header_table(path):
    lines = [line for line in read(path).cells[0].source.splitlines() if line.startswith("|")]
    return [row_of(line) for line in lines]


@every_notebook
def test_the_package_comes_before_all_that_starts_threads(path):
    """It sets how idle threads wait, which torch and scikit-learn read when they are imported."""
    imports = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(code_cells(path)[0].source).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    tops = [module.partition(".")[0] for module in imports]
    assert next(top for top in tops if top not in sys.stdlib_module_names) == "t2i_course"


@every_notebook
def test_notebook_is_valid_and_small(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size <= 300_000
    assert 40 <= len(notebook.cells) <= 90
    assert b"\r" not in path.read_bytes()


@every_notebook
def test_code_cells_were_executed_once_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert any(cell.outputs for cell in code_cells(path))


@every_notebook
def test_code_cells_have_1_to_30_lines(path):
    lengths = [len(cell.source.strip().splitlines()) for cell in code_cells(path)]
    assert min(lengths) >= 1 and max(lengths) <= 30, lengths


@every_notebook
def test_most_code_cells_have_an_output_that_is_compared(path):
    cells = code_cells(path)
    compared = [cell for cell in cells if cell.outputs and "nbval-ignore-output" not in tags(cell)]
    assert len(compared) >= 0.6 * len(cells), f"{len(compared)} of {len(cells)}"


@every_notebook
def test_nothing_is_hidden_from_nbval(path):
    known = {"nbval-ignore-output", "raises-exception"}
    for cell in read(path).cells:
        assert {tag for tag in tags(cell) if "nbval" in tag or "raises" in tag} <= known
        assert not re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source)


@every_notebook
def test_ignored_output_is_followed_by_asserts_that_are_compared(path):
    cells = code_cells(path)
    for index, cell in enumerate(cells):
        if "nbval-ignore-output" in tags(cell):
            after = [
                c for c in cells[index + 1 : index + 3] if "nbval-ignore-output" not in tags(c)
            ]
            assert any("assert " in c.source for c in after), cell.source


@every_notebook
def test_outputs_hold_no_error_warning_or_moving_picture(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            if output.output_type == "error":
                assert "raises-exception" in tags(cell), cell.source
            assert output.get("name") != "stderr", f"a warning is stored:\n{output.get('text')}"
            assert not {"image/svg+xml", "image/gif"} & set(output.get("data", {}))


@every_notebook
def test_figures_have_alternative_text(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 20, cell.source


@every_notebook
def test_half_of_the_cells_have_8_lines_and_none_over_25(path):
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(path))
    assert lengths[len(lengths) // 2] <= 8 and lengths[-1] <= 25


@every_notebook
def test_no_path_of_a_machine_is_stored(path):
    for cell in read(path).cells:
        outputs = list(texts(cell)) if cell.cell_type == "code" else []
        for text in (cell.source, *outputs):
            assert not MACHINE_PATH.search(text), text


@every_notebook
def test_pages_remember_no_run(path):
    notebook = read(path)
    assert "widgets" not in notebook.metadata, "record with the README's command"
    assert all("execution" not in cell.metadata for cell in notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3", "else the reader is asked for a kernel"


@every_notebook
def test_title_is_the_file_name(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    title = first.source.splitlines()[0]
    match = re.fullmatch(r"# (\d\d) ([A-Z0-9].*)", title)
    assert match, title
    assert f"{match[1]}_{match[2].lower().replace(' ', '_')}" == path.stem


@every_notebook
def test_minutes_of_the_header_are_those_of_the_readme(path):
    names, _, row = header_table(path)
    assert names == HEADER
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    title = read(path).cells[0].source.splitlines()[0].removeprefix("# ")
    start = f"| [{title}](notebooks/{path.name}) |"
    (line,) = [line for line in readme.splitlines() if line.startswith(start)]
    assert row_of(line)[-2:] == row[1:3]
    assert all(minutes.isdecimal() for minutes in row[1:3])


@every_notebook
def test_settings_come_from_outside(path):
    first, second = code_cells(path)[:2]
    assert "import" in first.source
    assert "settings = runtime.settings()" in second.source


@every_notebook
def test_fixed_sections_are_there_with_their_asserts(path):
    for title in SECTIONS:
        assert section(path, title), f"no section {title!r}"

    def asserts(title):
        code = [cell.source for cell in section(path, title) if cell.cell_type == "code"]
        return len(re.findall(r"^\s*assert ", "\n".join(code), re.MULTILINE))

    assert asserts("Where the article stops working") >= 1
    exercises = [cell for cell in section(path, "Check yourself") if "solution" in cell.metadata]
    assert len(exercises) >= 3 or asserts("Check yourself") >= 3


@every_notebook
def test_every_citation_is_in_the_bibliography_and_the_list(path):
    keys = set(re.findall(r"@\w+\{([^,\s]+),", (CHECKOUT / "references.bib").read_text("utf-8")))
    cited = set(re.findall(r"\[@([\w-]+)\]", markdown(path)))
    assert cited and cited <= keys, sorted(cited - keys)
    listed = "\n".join(cell.source for cell in section(path, "References"))
    assert set(re.findall(r"^[-*] \[@([\w-]+)\]", listed, re.MULTILINE)) == cited


@every_notebook
def test_relative_links_lead_somewhere_and_the_last_cell_to_the_next_notebook(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(path)):
        if not re.match(r"[a-z]+:|#|attachment", target):
            assert (FOLDER / target.partition("#")[0]).exists(), target
    last = read(path).cells[-1]
    assert last.cell_type == "markdown"
    following = [other for other in sorted(FOLDER.glob("*.ipynb")) if other.name > path.name]
    if following:
        title = read(following[0]).cells[0].source.splitlines()[0].removeprefix("# ")
        assert f"[{title}]({following[0].name})" in last.source


def dump(node):
    """A definition's syntax tree as text; of docstrings the first paragraph."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner):
            inner.body[0].value.value = ast.get_docstring(inner).partition("\n\n")[0]
    return ast.dump(node)


def definitions(body):
    """Name to syntax tree of what the body of a module, a class or a cell defines."""
    found = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = dump(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update((ast.unparse(target), dump(node)) for target in targets)
    return found


def body_of(place):
    """What the package defines at `t2i_course.module` or `t2i_course.module.Class`."""
    outer, _, name = place.rpartition(".")
    if not name[0].isupper():
        return ast.parse(inspect.getsource(importlib.import_module(place))).body
    body = ast.parse(inspect.getsource(importlib.import_module(outer))).body
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
    return found.body


def drift(source):
    """Names in a cell of package code that the package defines in another way, or not at all."""
    place = re.match(r"# package: (t2i_course(?:\.\w+)+)$", source, re.M)[1]
    package = definitions(body_of(place))
    tree = ast.parse(source)
    cell = definitions(tree.body)
    others = [node for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    assert cell and len(others) == len(cell), f"more than definitions in\n{source}"
    return sorted(name for name, tree in cell.items() if package.get(name) != tree)


@every_notebook
def test_taught_code_is_the_packages_code(path):
    for cell in code_cells(path):
        if "# package:" in cell.source:
            assert cell.source.startswith("# package: t2i_course."), cell.source
            assert drift(cell.source) == [], cell.source


def test_changed_code_in_a_cell_is_noticed():
    from t2i_course import runtime
    from t2i_course.scenes import oracle

    source = f"# package: t2i_course.runtime\n{inspect.getsource(runtime.seed_everything)}"
    assert drift(source) == []
    assert drift(source.replace("    random.seed", "    # why\n    random.seed")) == []
    assert drift(source.replace("random.seed(seed)", "random.seed(1)")) == ["seed_everything"]
    assert drift(source.replace("def seed_everything", "def seed_all")) == ["seed_all"]
    with pytest.raises(AssertionError, match="more than definitions"):
        drift(source + "\nprint(seed_everything(0))")
    deeper = f"# package: t2i_course.scenes.oracle\n{inspect.getsource(oracle.check_facts)}"
    assert drift(deeper) == []


def test_changed_method_of_a_class_is_noticed():
    from t2i_course.gan import Discriminator

    method = textwrap.dedent(inspect.getsource(Discriminator.read))
    source = f"# package: t2i_course.gan.Discriminator\n{method}"
    assert drift(source) == []
    assert drift(source.replace("product / 16", "product / 8")) == ["read"]
    assert drift(source.replace("gan.Discriminator", "gan.TextGenerator")) == ["read"]
    assert drift(source.replace("gan.Discriminator", "gan")) == ["read"]
    assert drift(source + "\nDiscriminator.read = read") == ["Discriminator.read"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("'/tmp/tmpabc/x.png'", True), ("file:///tmp/x", True), (r"C:\Users\ann", True),
        ("lib/python3.11/site-packages/torch", True), ("https://example.org/home/page", False),
        ("images/pixels and/or text", False), (r"$f:\mathbb{R}^2$", False),
    ],
)  # fmt: skip
def test_paths_of_machines_are_told_from_other_slashes(text, found):
    assert bool(MACHINE_PATH.search(text)) == found


def run_nbval(path):
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", path.name]
    command += ["-c", str(CHECKOUT / "pyproject.toml"), "--rootdir", "."]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)


def test_changed_number_in_a_stored_output_makes_nbval_fail(tmp_path):
    cell = nbformat.v4.new_code_cell("print(f'{6 * 7} pictures')", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="42 pictures\n")]
    path = tmp_path / "tiny.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, path)
    passed = run_nbval(path)
    assert passed.returncode == 0 and "1 passed" in passed.stdout, passed.stdout + passed.stderr
    cell.outputs[0].text = "43 pictures\n"
    nbformat.write(notebook, path)
    failed = run_nbval(path)
    assert failed.returncode == 1 and "1 failed" in failed.stdout, failed.stdout + failed.stderr
    assert "42 pictures" in failed.stdout
