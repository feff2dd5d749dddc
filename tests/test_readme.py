"""The front page, and the files of the set-up, say the same thing."""

import ast
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import t2i_course

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
# Import name to package, where they differ
PACKAGES = {"IPython": "ipython", "PIL": "pillow", "pytorch_fid": "pytorch-fid",
            "torch_fidelity": "torch-fidelity"}  # fmt: skip


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)[1]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def requirements():
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("title", "command", "windows"),
    [
        # not `jupyter lab notebooks`, where links to README and docs lead out of what is served
        ("Start the walkthrough", "jupyter lab", "jupyter lab"),
        ("Run all tests", "pytest --nbval", "pytest --nbval-lax"),
    ],
)
def test_both_commands_are_complete_from_a_fresh_clone(title, command, windows):
    install = "python -m pip install -r requirements.txt"
    steps = blocks(section(title), "bash")[0].strip().split(" &&\n")
    assert steps == ["python3 -m venv .venv", ". .venv/bin/activate", install, command]
    steps = blocks(section(title), "powershell")[0].strip().splitlines()
    activate = r".venv\Scripts\Activate.ps1"
    assert steps == ["py -3.12 -m venv .venv", activate, install, windows]


def test_ci_runs_the_readmes_test_command_in_a_fresh_environment():
    script = (CHECKOUT / ".ci" / "run").read_bytes()
    assert b"\r" not in script and script.startswith(b"#!")
    lines = script.decode().strip().splitlines()
    assert lines[-1] == blocks(section("Run all tests"), "bash")[0].strip().split(" &&\n")[-1]
    assert any("-m venv" in line for line in lines)
    assert "python -m pip install -r requirements.txt" in lines


@pytest.mark.skipif(sys.platform == "win32", reason="a Unix script")
def test_ci_script_is_executable_and_parses():
    script = CHECKOUT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_workflow_runs_the_same_on_linux_and_the_lax_form_elsewhere():
    text = (CHECKOUT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    commands = re.findall(r"- run: (.+)", text)
    assert ".ci/run" in commands and "pytest --nbval-lax" in commands
    assert {"ubuntu-latest", "macos-latest", "windows-latest"} <= set(
        re.findall(r"\w+-latest", text)
    )


def test_requirements_are_bounded_on_both_sides_and_end_with_the_package():
    lines = requirements()
    assert lines[-1] == "-e ."
    for line in lines[:-1]:
        operators = {specifier.operator for specifier in Requirement(line).specifier}
        assert operators == {">=", "<"}, line
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"^dependencies", project, re.MULTILINE), "bounds stand in one place"


def test_every_imported_package_is_required():
    required = {Requirement(line).name for line in requirements()[:-1]}
    files = [*CHECKOUT.glob("t2i_course/**/*.py"), *CHECKOUT.glob("tests/**/*.py")]
    own = {"t2i_course", *(file.stem for file in [*files, *CHECKOUT.glob("benchmarks/*.py")])}
    own.add("conftest")
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name not in own:
                    assert PACKAGES.get(name, name) in required, f"{file.name} imports {name}"


def test_syllabus_has_a_row_for_every_notebook_and_links_those_that_exist():
    rows = re.findall(r"^\| (?:\[)?(\d\d) ([^|\]]+?)(?:\]\((\S+)\))? \|", section("Syllabus"), re.M)
    assert [number for number, *_ in rows] == [f"{number:02}" for number in range(15)]
    for number, title, target in rows:
        assert target.startswith(f"notebooks/{number}_") or title.endswith("(planned)")
    linked = {Path(target).name for *_, target in rows if target}
    assert linked == {path.name for path in CHECKOUT.glob("notebooks/*.ipynb")}


def test_front_page_is_short_and_its_picture_small():
    assert len(README.split()) <= 1200
    (picture,) = re.findall(r"^!\[[^\]]+\]\((\S+)\)$", README, re.MULTILINE)
    assert (CHECKOUT / picture).stat().st_size < 150_000


def test_citation_gives_the_packages_version():
    text = (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == t2i_course.__version__


def test_every_reference_has_author_title_year_and_place():
    text = (CHECKOUT / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{(\S+),\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    keys = [key for key, _ in entries]
    assert len(keys) == len(set(keys)) == text.count("\n@") > 0
    for key, body in entries:
        names = set(re.findall(r"^  (\w+) = \{", body, re.MULTILINE))
        assert {"author", "title", "year"} <= names, key
        assert names & {"booktitle", "journal", "publisher", "eprint", "howpublished"}, key
        assert body.count("{") == body.count("}"), key
        assert re.search(r"year = \{(19|20)\d\d\}", body)[0][-5:-1] in key, (
            f"year in the key: {key}"
        )


def test_every_citation_has_a_reference_and_none_two():
    places = ["notebooks/*.ipynb", "docs/*.md", "t2i_course/**/*.py", "benchmarks/*.py"]
    text = "".join(file.read_text("utf-8") for place in places for file in CHECKOUT.glob(place))
    bibliography = (CHECKOUT / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{(\S+),", bibliography, re.MULTILINE))
    assert set(re.findall(r"\b[a-z]+(?:19|20)\d\d[a-z]\w*", text)) - keys == set()
    titles = re.findall(r"^  title = \{(.+)\}", bibliography, re.MULTILINE)
    assert len({re.sub(r"\W", "", title).lower() for title in titles}) == len(titles), "twins"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_what_the_course_makes_is_kept_out_of_git_and_what_it_ships_is_not():
    if not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    made = ["data/scenes/x.bmp", "data/cache/a.npy", "data/runs/a.pt", "pages/a.html", ".venv/x"]
    made += ["data/encoders/my-caption-bert/card.json"]
    made += ["data/checkpoints/my-baseline.json", "data/results/.a.partial-0123456789ab.json"]
    kept = ["data/encoders/a.safetensors", "data/checkpoints/a.json", "data/results/a.json"]
    command = ["git", "check-ignore", *made, *kept]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.stdout.split() == made
