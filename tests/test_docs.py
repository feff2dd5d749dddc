"""The pages say what the command line, the ledger and the folders say.

`python tests/test_docs.py` writes docs/command-line.md again from the parser, and fills the quotes
of the ledger in every page.
"""

import argparse
import ast
import graphlib
import re
import shlex
from pathlib import Path

import pytest

from t2i_course import report
from t2i_course.__main__ import COMMANDS, build_parser

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "t2i_course"
PACKAGE_PAGE = CHECKOUT / "docs/package.md"
PAGES = [CHECKOUT / "README.md", *sorted(CHECKOUT.glob("docs/*.md")), CHECKOUT / "data/README.md"]
MARKER = "<!-- What follows is written by `python tests/test_docs.py`. -->\n"
COMMAND = re.compile(r"(?:python|launch .*|torchrun .*) -m t2i_course (.+)")
# What a measured claim looks like: a share, a decimal fraction, a ratio; and what only looks so
MEASURED = re.compile(r"\d ?%|\d\.\d|\d times")
NOT_MEASURED = re.compile(r"95 % interval|CC BY 4\.0|License 2\.0|\b3\.1[1-4]\b|`[^`]*`")

every_page = pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES[:-1]])


def read(page):
    return page.read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# The command line


def parser_of(name: str) -> argparse.ArgumentParser:
    (commands,) = (a for a in build_parser(name)._actions if a.dest == "command")
    return commands.choices[name]


def options_of(parser: argparse.ArgumentParser) -> str:
    """A line for each option, with its values and its help."""
    lines = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        values = action.metavar or "|".join(map(str, action.choices or [action.dest.upper()]))
        names = ", ".join(action.option_strings)
        shown = names if action.nargs == 0 else f"{names} {values}".strip()
        lines.append(f"- `{shown}`: {(action.help or '') % (vars(action) | {'prog': parser.prog})}")
    return "\n".join(lines)


def command_line_page() -> str:
    """The part of docs/command-line.md that the parser determines."""
    return "".join(
        f"\n## {name}\n\nTo {told}.\n\n{options_of(parser_of(name))}".rstrip() + "\n"
        for name, told in COMMANDS.items()
    )


def test_command_line_page_is_what_the_parser_says():
    written = read(CHECKOUT / "docs/command-line.md").partition(MARKER)[2]
    assert written == command_line_page(), "write it again: python tests/test_docs.py"


@every_page
def test_every_command_of_a_page_can_be_parsed(page):
    for line in "\n".join(blocks(read(page), "bash")).splitlines():
        if found := COMMAND.search(line):
            words = shlex.split(found[1])
            build_parser(words[0]).parse_args(words)


def test_every_command_is_a_file_and_every_folder_is_in_the_distribution():
    files = {path.stem for path in (PACKAGE / "commands").glob("*.py")}
    assert {name.replace("-", "_") for name in COMMANDS} <= files
    folders = {path.parent for path in PACKAGE.glob("**/*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders), "setuptools needs it"
    assert 'include = ["t2i_course*"]' in read(CHECKOUT / "pyproject.toml")


# Numbers and links


def unquoted_claims(text: str) -> list[str]:
    """Lines with a measured number that quotes no row of the ledger; code is left out."""
    prose = re.sub(r"^```.*?^```|^    .*?$", "", report.QUOTE.sub("", text), flags=re.S | re.M)
    return [line for line in prose.splitlines() if MEASURED.search(NOT_MEASURED.sub("", line))]


@every_page
def test_measured_numbers_come_from_the_ledger(page):
    assert page.name == "command-line.md" or unquoted_claims(read(page)) == []


def test_a_number_without_a_row_is_noticed():
    claims = ["right in 40% of cases", "a distance of 71.2", "467 times faster"]
    assert unquoted_claims("\n".join([*claims, "with 95 % intervals, at 64 x 64"])) == claims


def headings(page):
    titles = re.findall(r"^#+ (.+)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(CHECKOUT))) for p in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            other = (page.parent / file).resolve() if file else page
            assert other.exists(), target
            assert not anchor or anchor in headings(other), target


def test_data_page_names_every_encoder_that_is_shipped():
    named = re.findall(r"^\| `encoders/([\w-]+)/`", read(CHECKOUT / "data/README.md"), re.MULTILINE)
    folders = {file.parent.name for file in CHECKOUT.glob("data/encoders/*/config.json")}
    assert set(named) == {name for name in folders if not name.startswith("my-")}


def test_settings_table_lists_every_variable_that_the_package_reads():
    listed = set(re.findall(r"^\| `(T2I_\w+)`", read(CHECKOUT / "docs/faq.md"), re.MULTILINE))
    source = "\n".join(map(read, PACKAGE.glob("**/*.py")))
    assert listed == set(re.findall(r"T2I_[A-Z]+", source))


def test_recording_command_keeps_times_and_widgets_out():
    (block,) = [b for b in blocks(read(PACKAGE_PAGE), "bash") if "--inplace" in b]
    assert "record_timing=False" in block and "store_widget_state=False" in block


# The layout of docs/package.md


def modules_in_order() -> list[str]:
    """The modules of the package as the layout lists them: "runtime", ..., "scenes/oracle", ...

    A row begins with a name, or with names of a folder that stands above them, and goes on with
    what they are for.
    """
    layout = re.search(r"^    t2i_course/\n(.*?)^    tests/", read(PACKAGE_PAGE), re.S | re.M)[1]
    names, folder = [], ""
    for indent, row, slash in re.findall(r"^( {8}| {12})(\w[\w, ]*?)(/?)(?: {2}|$)", layout, re.M):
        if len(indent) == 8:
            folder = f"{row}/" if slash else ""
        if not slash:
            names += [folder + name for name in row.split(", ")]
    return names


def imported(source: str, known: set[str]) -> set[str]:
    """Modules among the known ones that a source text imports, in whichever way."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    inside = {name.removeprefix("t2i_course.").replace(".", "/") for name in found}
    return inside & known


def test_layout_lists_every_module_once():
    files = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.glob("**/*.py")}
    names = [file.as_posix() for file in files if file.name not in ("__init__", "__main__")]
    assert sorted(modules_in_order()) == sorted(n for n in names if not n.startswith("commands/"))


def test_modules_in_front_import_from_those_above_and_no_module_in_a_circle():
    order = modules_in_order()
    sources = {name: read(PACKAGE / f"{name}.py") for name in order}
    graph = {name: imported(source, set(order)) for name, source in sources.items()}
    for name in order:
        assert "t2i_course.commands" not in sources[name], f"{name} imports from commands"
        above = order[: order.index(name)]
        for other in graph[name]:
            if "/" not in name + other:
                assert other in above, f"{name} imports {other}"
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_modules_that_the_flow_of_train_names_are_there():
    flow = re.search(r"^    options  .*?^    rows.*?$", read(PACKAGE_PAGE), re.S | re.M)[0]
    named = re.findall(r"^ {4} *[a-z|].*? {2}([a-z_/]+) {2}", flow, re.MULTILINE)
    assert len(named) >= 10
    assert [name for name in named if not (PACKAGE / f"{name}.py").is_file()] == []


if __name__ == "__main__":
    path = CHECKOUT / "docs/command-line.md"
    path.write_text(read(path).partition(MARKER)[0] + MARKER + command_line_page(), "utf-8")
    for page in PAGES:
        report.write_quotes(page)
