"""Tables for a thesis, from the ledger alone: Markdown, LaTeX and CSV.

    for table in result_tables(report.read_rows()):
        print(table.markdown())

No number is typed: a cell is a row of the ledger, and shows its value with its interval.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from t2i_course.report import REAL, SHUFFLED, Row
from t2i_course.reproduction import limits

HEADLINE = ("everything right", "FD-scenes", "FID", "Frechet distance", "CLIP score", "precision",
            "recall", "R@1")  # fmt: skip
EVALUATE = "python -m t2i_course evaluate"  # by the present code; rows of old code begin otherwise
PARTS = ("one object", "two objects", "three objects", "seen pairs", "unseen pairs")
ABLATION = ("everything right", "background right", "color right", "R@1", "recall", "FD-scenes")
SET = re.compile(r"-(val|test)-n(\d+)(?:-s[\d-]+)?$")  # how ids of an evaluation's rows end
USUAL = ("--model", "--samples", "--ledger", "--split", "--data", "--extractor", "--matcher")
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
           "--": "-{}-", **{c: rf"\{c}" for c in "&%$#_{}"}}  # fmt: skip


# Tables


@dataclass(frozen=True)
class Table:
    """A table that three formats come from."""

    name: str  # of its files
    caption: str  # what was measured, on what, how often, by what
    cells: Mapping[str, Mapping[str, Row | str]]  # line to column to a row of the ledger, or a text

    def columns(self) -> list[str]:
        """Names of the columns, in the order in which they first occur."""
        return list(dict.fromkeys(column for line in self.cells.values() for column in line))

    def markdown(self) -> str:
        """As Markdown, with its caption below."""
        head = ["", *self.columns()]
        lines = [head, ["---"] * len(head)]
        for name, line in self.cells.items():
            lines.append([name, *(" ".join(shown(line.get(c, ""))).strip() for c in head[1:])])
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{text}\n\n*{self.caption}*\n"

    def latex(self) -> str:
        """As a LaTeX table of booktabs and float; the interval stands below its value."""
        head = ["", *map(escape, self.columns())]
        lines = [" & ".join(head)]
        for name, line in self.cells.items():
            pairs = (shown(line.get(column, "")) for column in self.columns())
            found = [
                rf"\pair{{{escape(value)}}}{{{escape(interval)}}}"
                if interval else escape(value)
                for value, interval in pairs
            ]  # fmt: skip
            lines.append(" & ".join([escape(name), *found]))
        body = "\\\\\n\\midrule\n".join((lines[0], "\\\\[2pt]\n".join(lines[1:])))
        return (
            "\\begin{table}[H]\n\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}\n"
            f"\\caption{{{escape(self.caption)}}}\\label{{tab:{self.name}}}\n"
            f"\\begin{{tabular}}{{@{{}}l{'r' * (len(head) - 1)}@{{}}}}\n\\toprule\n"
            f"{body}\\\\\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )

    def csv(self) -> str:
        """As CSV: a line for each number, unrounded, with its interval and what it rests on."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["of", "measure", "value", "low", "high", "samples", "seeds", "row"])
        for name, line in self.cells.items():
            for column, cell in line.items():
                if isinstance(cell, str):
                    if cell:  # else the line has no such number
                        writer.writerow([name, column, cell, "", "", "", "", ""])
                    continue
                ends = cell.interval or ("", "")
                seeds = " ".join(map(str, cell.seeds))
                writer.writerow([name, column, cell.value, *ends, cell.samples, seeds, cell.id])
        return file.getvalue()


def shown(cell: Row | str) -> tuple[str, str]:
    """A cell as two texts: the value, and its interval ("" where there is none)."""
    if isinstance(cell, str):
        value, bracket, interval = cell.partition(" (")
        return value, bracket.strip() + interval
    share = limits(cell.metric) == (0.0, 1.0)
    texts = [number(v, share) for v in (cell.value, *(cell.interval or ()))]
    return (texts[0] + "%" * share, f"({texts[1]} to {texts[2]})" if cell.interval else "")


def number(value: float, share: bool) -> str:
    """Write a number with the digits that a reader needs; a share in per cent."""
    if share:
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def escape(text: str) -> str:
    """Text for LaTeX: what it takes for commands is shown as it is."""
    return re.sub(r"--|[\\~^&%$#_{}]", lambda match: SPECIAL[match[0]], text)


def measure_of(row: Row) -> str:
    """Name of what a row measured: "everything right", "FD-scenes", "color right"."""
    what = row.metric.partition(": ")[2]
    if what.startswith("everything right"):
        part = what.rpartition(", ")[2]
        return "everything right" if part == "all" else part
    name = what.partition(",")[0]
    if name.startswith("scene accuracy: "):
        part = name.removeprefix("scene accuracy: ")
        return "everything right" if part == "all" else part if part in PARTS else f"{part} right"
    return name


def source_of(row: Row) -> str:
    """Whose pictures an evaluation's row measured, with unusual options of its command."""
    words, options = shlex.split(row.command)[3:], {}
    for position, word in enumerate(words):
        if word.startswith("--"):
            value = words[position + 1 : position + 2]
            options[word] = value[0] if value and not value[0].startswith("--") else ""
    subject = row.metric.partition(": ")[0]
    if subject == REAL:
        return REAL
    name = options.get("--model", "gan")
    if subject == SHUFFLED:
        name += f", {SHUFFLED}"
    extra = [f"{option} {value}".strip() for option, value in options.items()
             if option not in USUAL]  # fmt: skip
    return f"{name} ({', '.join(extra)})" if extra else name


def result_tables(rows: Iterable[Row]) -> list[Table]:
    """Tables of what `evaluate` measured: for each data set and split, and its parts.

    Real pictures come first, the same pictures with shuffled captions last.
    """
    sets: dict[tuple[str, str, str], dict[str, dict[str, Row]]] = {}
    for row in rows:
        found = SET.search(row.id)
        if found and row.command.startswith(EVALUATE):
            lines = sets.setdefault((row.data, found[1], found[2]), {})
            lines.setdefault(source_of(row), {}).setdefault(measure_of(row), row)
    tables = []
    for (data, split, samples), lines in sets.items():
        order = sorted(lines, key=lambda name: (name != REAL, SHUFFLED in name))
        for kind, wanted in (("results", HEADLINE), ("parts", PARTS)):
            cells = chosen({name: lines[name] for name in order}, wanted)
            if cells:
                tables.append(Table(f"{kind}-{data}-{split}-n{samples}", describe(
                    f"{data}, split {split}, {int(samples):,} captions, one picture each", cells),
                    cells))  # fmt: skip
    return tables


def ablation_tables(rows: Iterable[Row]) -> list[Table]:
    """Tables of benchmarks that train several variants: a line for each, as `--rungs` has them."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if " --rungs " in row.command:
            found.setdefault(row.command, []).append(row)
    tables = []
    for command, own in found.items():
        rungs = command.partition(" --rungs ")[2].partition(" --")[0].split()
        lines = {
            rung: {measure_of(r): r for r in own if r.metric.startswith(f"{rung}: ")}
            for rung in rungs
        }
        cells = chosen(lines, ABLATION)
        if cells:
            name = re.search(r"--ledger (\S+)", command)
            after = next(row.metric for row in own if ", " in row.metric).partition(", ")[2]
            tables.append(Table(f"ablation-{name[1] if name else len(tables)}", describe(
                f"Ablation, {after}", cells, "seeds"), cells))  # fmt: skip
    return tables


def chosen(
    lines: Mapping[str, Mapping[str, Row]], wanted: Sequence[str]
) -> dict[str, dict[str, Row | str]]:
    """The wanted columns, in that order, of the lines that have any."""
    columns = [c for c in wanted if any(c in line for line in lines.values())]
    return {
        name: {column: line.get(column, "") for column in columns}
        for name, line in lines.items()
        if any(column in line for column in columns)
    }


def describe(start: str, cells: Mapping[str, Mapping[str, Row]], over: str = "captions") -> str:
    """A caption: on what, with which seeds, read by what."""
    rows = [cell for line in cells.values() for cell in line.values() if isinstance(cell, Row)]
    seeds = sorted({seed for row in rows for seed in row.seeds})
    readers = dict.fromkeys(row.extractor.partition(" (")[0] for row in rows)
    seed = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"{start}; {seed if seeds else 'no seed'}. In brackets: 95 % intervals over {over}. "
        f"Read by: {', '.join(readers)}."
    )
