"""From the ledger to a thesis: a folder of tables and figures, and a document that LaTeX compiles.

write_report("my-report", report.read_rows())    # what `python -m t2i_course report` does

report.tex          the document, which takes in all the rest
tables/             each table as .tex (booktabs), .md and .csv; ledger.csv has every row
figures/            each figure as .pdf at print size and as .png of 300 dots an inch
reproducibility.md  versions, hardware, seeds, commands, licences
references.bib      the works that the course builds on
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from packaging.requirements import Requirement

from t2i_course import __version__, print_figures
from t2i_course.checkpoints import checkpoint_path, read_card
from t2i_course.print_figures import Cost, FreshPictures
from t2i_course.report import Row
from t2i_course.runtime import CHECKOUT, atomic_folder, data_folder, hardware
from t2i_course.significance import holm, paired_bootstrap
from t2i_course.thesis_tables import (
    EVALUATE,
    Table,
    ablation_tables,
    escape,
    measure_of,
    result_tables,
    source_of,
)

WORDS = {  # of the document
    "en": {
        "class": r"\documentclass[11pt]{article}" "\n" r"\usepackage[utf8]{inputenc}" "\n"
                 r"\usepackage[T1]{fontenc}" "\n" r"\usepackage{lmodern}",
        "title": "Results", "results": "Results", "ablation": "Ablation",
        "significance": "Significance", "cost": "Quality against cost", "samples": "Samples",
        "reproducibility": "Reproducibility", "headings": {},
        "about": "Every number in these tables is a row of the ledger of measurements, with the "
                 "command that measures it again. FD-scenes is a Fr\\'echet distance "
                 r"\cite{heusel2017fid} on features of a small network trained on the same data, "
                 "and no FID; precision and recall are those of "
                 r"\cite{kynkaanniemi2019precision}.",
        "samples_caption": "Samples of the first captions of fresh scenes, not chosen; the same "
                           "noise in a line.",
        "cost_caption": "Captions with everything right against minutes of training, with 95\\,\\% "
                        "intervals over captions; machines differ, see the table.",
    },
    "zh": {
        "class": r"\documentclass[UTF8,fontset=fandol]{ctexart}",
        "title": "实验结果", "results": "实验结果", "ablation": "消融实验",
        "significance": "显著性检验", "cost": "质量与代价", "samples": "生成样例",
        "reproducibility": "可复现性说明",
        "headings": {"Versions": "版本", "Hardware": "硬件", "Seeds": "随机种子", "Data": "数据",
                     "Commands": "命令", "Licences": "许可"},
        "about": "表中每个数字都是测量台账中的一行，并附有重新测量它的命令。"
                 r"FD-scenes 是在用同一数据训练的小型网络特征上计算的 Fr\'echet 距离"
                 r"\cite{heusel2017fid}，不是 FID；精确率与召回率的定义见"
                 r"\cite{kynkaanniemi2019precision}。",
        "samples_caption": "新场景的前几条描述的生成样例，未经挑选；同一行使用相同的噪声。",
        "cost_caption": r"描述全部画对的比例与训练分钟数，区间为对描述的 95\,\% 置信区间；"
                        "各模型的机器不同，见表。",
    },
}  # fmt: skip
PREAMBLE = r"""
\usepackage[a4paper,textwidth=16cm,textheight=24cm]{geometry}
\usepackage{booktabs,graphicx,float}
\usepackage[skip=4pt]{caption}
\newcommand{\pair}[2]{\begin{tabular}{@{}r@{}}#1\\[-1pt]{\scriptsize #2}\end{tabular}}
\title{%s}
\date{%s}
\begin{document}
\maketitle
"""
FIGURE = r"""\begin{figure}[H]
\centering
\includegraphics{figures/%s.pdf}
\caption{%s}
\end{figure}"""
COMPILE = {"en": "pdflatex report && bibtex report && pdflatex report && pdflatex report",
           "zh": "xelatex report && bibtex report && xelatex report && xelatex report"}  # fmt: skip
LICENCES = (
    "Code: Apache License 2.0. Text, figures, scenes and the ledger: CC BY 4.0.",
    "The small BERT has read the captions of COCO 2017 (CC BY 4.0, COCO Consortium).",
)


# What is measured beside the ledger


def costs_of(rows: Iterable[Row]) -> list[Cost]:
    """Quality and training cost of the generators that the ledger evaluates and that are here.

    Quality is that of the split test where it was measured, else of val.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row.data == "scenes" and row.split in ("val", "test") and row.interval is not None:
            if measure_of(row) == "everything right" and row.command.startswith(EVALUATE):
                name = source_of(row)
                if row.split == "test" or name not in found:
                    found[name] = row
    costs = []
    for name, row in found.items():
        if checkpoint_path(name).with_suffix(".json").is_file():
            spent = (read_card(name)[key] for key in ("seconds", "steps", "hardware"))
            costs.append(Cost(name, *spent, (row.value, *row.interval)))
    return sorted(costs, key=lambda cost: cost.seconds)


def cost_table(costs: Sequence[Cost]) -> Table:
    """The costs as a table."""
    cells = {
        cost.name: {
            "everything right": "{:.1f}% ({:.1f} to {:.1f})".format(
                *(100 * share for share in cost.share)
            ),
            "minutes": f"{cost.seconds / 60:,.0f}", "steps": f"{cost.steps:,}",
            "machine": cost.machine.removesuffix(", no GPU"),
        }
        for cost in costs
    }  # fmt: skip
    caption = (
        "Quality against cost: captions with everything right, with 95 % intervals; minutes and "
        "steps of training."
    )
    return Table("cost", caption, cells)


def significance_table(pictures: FreshPictures) -> Table:
    """Compare each two generators on the same fresh captions, by the paired bootstrap."""
    pairs = list(combinations(pictures.right, 2))
    found = [paired_bootstrap(pictures.right[a], pictures.right[b]) for a, b in pairs]
    adjusted = holm([compared.p_value for compared in found])
    cells = {}
    for (first, second), compared, p in zip(pairs, found, adjusted, strict=True):
        gap = compared.difference
        value, low, high = (f"{100 * v:+.1f}" for v in (gap.value, gap.low, gap.high))
        cells[f"{first} - {second}"] = {
            "everything right, points": f"{value} ({low} to {high})",
            "p (Holm)": f"{p:.3f}" if p >= 0.001 else "< 0.001",
        }
    seeds = len(next(iter(pictures.right.values()), ()))
    caption = (
        f"Differences on the same {len(pictures.captions)} fresh captions, {seeds} seeds of the "
        "noise: paired bootstrap over captions and seeds, 95 % intervals, p-values after Holm. "
        "One training of each: these networks are compared, not their methods."
    )
    return Table("significance", caption, cells)


# The reproducibility statement


def statement(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What somebody needs who wants to get these numbers again: heading to lines."""
    commands = Counter(row.command for row in rows)
    seconds = {c: sum({row.seconds for row in rows if row.command == c}) for c in commands}
    machines = Counter(row.hardware for row in rows)
    seeds = Counter(", ".join(map(str, row.seeds)) or "none (nothing random)" for row in rows)
    return {
        "Versions": [f"course {__version__}{_commit()}, Python {platform.python_version()}",
                     ", ".join(_versions())],
        "Hardware": [f"{name}, numbers: {count}" for name, count in machines.items()]
        + [f"{hardware()}: this report"],
        "Seeds": [f"{name}, numbers: {count}" for name, count in seeds.items()],
        "Data": [f"{name}, {split}, numbers: {count}" for (name, split), count in
                 Counter((row.data, row.split) for row in rows).items()],
        "Commands": [f"{command} (numbers: {count}; {seconds[command]:,.0f} s)"
                     for command, count in commands.items()],
        "Licences": [*LICENCES, *_weights()],
    }  # fmt: skip


def _commit() -> str:
    """The checkout's commit, where git knows it."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" at commit {found.stdout.strip()}"


def _versions() -> list[str]:
    """Versions of the packages that requirements.txt names."""
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [Requirement(line).name for line in lines if line and line[0] not in "#-"]
    return [f"{name} {importlib.metadata.version(name)}" for name in names]


def _weights() -> list[str]:
    """What is said of each shipped weight by its card."""
    lines = []
    for path in sorted((data_folder() / "checkpoints").glob("*.safetensors")):
        card = read_card(path.stem)
        lines.append(f"weights {path.stem}: {card.get('license', 'no licence stated')}, sha256 "
                     f"{card['sha256'][:16]}")  # fmt: skip
    return lines


# The folder


def write_report(
    folder: str | Path,
    rows: Sequence[Row],
    language: str = "en",
    captions: int = 100,
    device: torch.device | str | None = None,
) -> Path:
    """Write all of a report into a new or empty folder, which appears whole or not at all.

    Args:
        folder: where to.
        rows: the ledger.
        language: "en", or "zh" for a document of ctex.
        captions: fresh ones, that every generator of scenes here draws twice, to be compared.
        device: where they are drawn.

    Returns:
        The document.

    Raises:
        ValueError: another language, fewer than 10 captions, or no rows.
        NotADirectoryError, FileExistsError: there is something, and nothing is ever replaced.
    """
    folder = Path(folder).expanduser().resolve()
    if language not in WORDS or captions < 10:
        raise ValueError(f"language {language!r}, {captions} captions: give en or zh, 10 or more")
    if not rows:
        raise ValueError("the ledger is empty: there is nothing to report")
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty, and a report replaces nothing: name another folder, or move it"
        )
    pictures = print_figures.draw_fresh(print_figures.scene_generators(), captions, device=device)
    if folder.is_dir():  # and empty
        folder.rmdir()
    with atomic_folder(folder) as new:
        stated = statement(rows)
        sections = _write_parts(new, rows, pictures, stated)
        text = document(sections, stated, language, max(row.date for row in rows))
        (new / "report.tex").write_text(text, encoding="utf-8", newline="\n")
        shutil.copy(CHECKOUT / "references.bib", new / "references.bib")
    return folder / "report.tex"


def _write_parts(
    folder: Path,
    rows: Sequence[Row],
    pictures: FreshPictures,
    stated: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """Write tables, figures and the statement; say what stands in which section."""
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    costs = costs_of(rows)
    tables = {
        "results": result_tables(rows), "ablation": ablation_tables(rows),
        "significance": [significance_table(pictures)] if len(pictures.right) > 1 else [],
        "cost": [cost_table(costs)] if costs else [],
    }  # fmt: skip
    for table in (table for found in tables.values() for table in found):
        for suffix, text in (("tex", table.latex()), ("md", table.markdown()),
                             ("csv", table.csv())):  # fmt: skip
            path = folder / "tables" / f"{table.name}.{suffix}"
            path.write_text(text, encoding="utf-8", newline="\n")
    ledger = pd.DataFrame(map(asdict, rows))
    ledger.to_csv(folder / "tables" / "ledger.csv", index=False, lineterminator="\n")
    sections = {name: [f"tables/{table.name}" for table in found] for name, found in tables.items()}
    sections["samples"] = list(pictures.drawn)
    if costs:
        print_figures.save(print_figures.cost_figure(costs), folder / "figures" / "cost")
    for name, width in (("samples", print_figures.TEXT_WIDTH),
                        ("samples_column", print_figures.COLUMN_WIDTH)):  # fmt: skip
        if pictures.drawn:
            figure = print_figures.sample_grid(pictures, width)
            print_figures.save(figure, folder / "figures" / name)
    parts = (f"\n## {heading}\n\n" + "".join(f"- {line}\n" for line in lines)
             for heading, lines in stated.items())  # fmt: skip
    text = f"# Reproducibility\n{''.join(parts)}"
    (folder / "reproducibility.md").write_text(text, encoding="utf-8", newline="\n")
    return sections


def document(
    sections: Mapping[str, Sequence[str]],
    stated: Mapping[str, Sequence[str]],
    language: str,
    date: str,
) -> str:
    """The LaTeX document, of what is in each section: files of tables, names of generators."""
    words = WORDS[language]
    lines = [f"% {COMPILE[language]}", words["class"], PREAMBLE % (words["title"], date)]
    for section, tables in sections.items():
        if tables:
            lines.append(f"\\section{{{words[section]}}}")
            lines += [words["about"]] if section == "results" else []
            lines += [f"\\input{{{table}}}" for table in tables if table.startswith("tables/")]
        if tables and section in ("cost", "samples"):
            lines.append(FIGURE % (section, words[f"{section}_caption"]))
    lines.append(f"\\section{{{words['reproducibility']}}}\n{{\\footnotesize\\raggedright\\sloppy")
    for heading, items in stated.items():
        points = "\n".join(f"\\item {escape(item)}" for item in items)
        name = words["headings"].get(heading, heading)
        lines.append(f"\\subsection*{{{name}}}\n\\begin{{itemize}}\n{points}\n\\end{{itemize}}")
    lines.append("}\n\\bibliographystyle{plain}\n\\bibliography{references}\n\\end{document}\n")
    return "\n".join(lines)
