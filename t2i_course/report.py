"""What was measured: the results of an evaluation, and the ledger of all that the course claims.

A row of the ledger is one measured number with all that is needed to check it. Rows stand in
`data/results/*.json`, in git. Prose that shows a number quotes its row,

    <!-- ledger: mse-scene-accuracy {value:.1%} -->12.3%<!-- /ledger -->

and a test renders every quote again and compares.

    print(found)                                       # an `Evaluation`, of `metrics.protocol`
    add_rows("gan.json", found.rows("gan", command))
    write_line(run_folder / LOG_FILE, step, found)     # while a model trains
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from t2i_course.evaluation import Estimate
from t2i_course.runtime import atomic_file, data_folder, hardware

REAL, SHUFFLED = "real", "shuffled captions"  # sources of pictures that no model is called
LOG_FILE = "evaluations.jsonl"
MAIN_FIGURES = ("FD-scenes", "FID", "Frechet distance", "scene accuracy: all", "R@1", "CLIP score")

QUOTE = re.compile(
    r"(?P<open><!-- ledger: (?P<id>[a-z0-9-]+) (?P<form>.+?) -->)(?P<text>.*?)"
    r"(?P<close><!-- /ledger -->)",
    re.DOTALL,
)


# The ledger


@dataclass(frozen=True)
class Row:
    """One measured number, and how to measure it again.

    Raises:
        ValueError: a field is empty, of the wrong type, or not finite, or the interval does not
            hold the value.
    """

    id: str  # its name in quotes: small letters, digits and hyphens
    metric: str  # what was measured, with its unit
    value: float
    interval: tuple[float, float] | None  # at 95 %
    samples: int  # how many pictures, captions or repetitions the value rests on
    seeds: tuple[int, ...]  # of the runs behind it; empty if nothing was random
    split: str  # of the data, such as "val_unseen"; "none" for a timing
    extractor: str  # what read the pictures, such as "oracle"; "none" if nothing did
    data: str
    hardware: str  # `runtime.hardware()`
    seconds: float  # that the measurement took
    command: str  # that makes the number again, from the checkout
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    def __post_init__(self) -> None:
        """Refuse what a reader could not check."""
        try:
            low, high = self.interval or (self.value, self.value)
            named = re.fullmatch(r"[a-z0-9-]+", self.id)
            texts = self.metric, self.split, self.extractor, self.data, self.hardware, self.command
            finite = map(math.isfinite, (low, self.value, high, self.seconds))
            faults = {
                "id has other characters than small letters, digits and hyphens": not named,
                "a text is empty": not all(text.strip() for text in texts),
                "a number is not finite": not all(finite),
                "samples are no count": not isinstance(self.samples, int) or self.samples < 1,
                "seeds are not whole": not all(isinstance(seed, int) for seed in self.seeds),
                "seconds are below 0": self.seconds < 0,
                f"interval {low} to {high} lacks {self.value}": not low <= self.value <= high,
            }
            datetime.date.fromisoformat(self.date)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"ledger row {self.id!r}: {error}") from error
        if wrong := [fault for fault, found in faults.items() if found]:
            raise ValueError(f"ledger row {self.id!r}: {', '.join(wrong)}")
        object.__setattr__(self, "seeds", tuple(self.seeds))  # JSON gives lists
        object.__setattr__(self, "interval", self.interval and (low, high))

    def render(self, form: str) -> str:
        """Write the row as a `str.format` template says, over its fields and `low` and `high`."""
        low, high = self.interval or (None, None)
        try:
            return form.format(**asdict(self), low=low, high=high)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"ledger row {self.id!r}: bad format {form!r} ({error})") from error


def results_folder() -> Path:
    """The ledger's folder: the one named by T2I_RESULTS, else `results` in the data folder."""
    return Path(os.environ.get("T2I_RESULTS") or data_folder() / "results").expanduser()


def slug(text: str) -> str:
    """Small letters, digits and hyphens: what ids of rows are made of."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def check_name(name: str | None) -> str | None:
    """Check, before the work, that rows can be added to a file of the ledger; return its stem.

    Raises:
        ValueError: it has other characters than small letters, digits and hyphens, or the ledger
            is damaged.
    """
    if name is None:
        return None
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name.removesuffix(".json")):
        raise ValueError(f"--ledger {name!r}: small letters, digits and hyphens only")
    read_rows()
    return name.removesuffix(".json")


def add_rows(file: str | Path, rows: Iterable[Row]) -> Path:
    """Write rows into a file of the ledger, and return its path; the same id is replaced.

    Raises:
        ValueError: the file holds something else, or two of the new rows have one id.
    """
    path, rows = results_folder() / file, list(rows)  # an absolute path stays what it is
    if len({row.id for row in rows}) < len(rows):
        raise ValueError(f"{path.name}: two new rows have the same id")
    ledger = {row.id: row for row in (_read_file(path) if path.exists() else [])}
    ledger.update((row.id, row) for row in rows)
    text = json.dumps([asdict(ledger[key]) for key in sorted(ledger)], indent=1, allow_nan=False)
    with atomic_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def read_rows(folder: Path | None = None) -> list[Row]:
    """Read the whole ledger, in `results_folder()` unless another is given.

    Raises:
        ValueError: a file is not a list of complete rows, or two rows have one id.
    """
    folder = results_folder() if folder is None else folder
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.json")):
        for row in _read_file(path):
            if row.id in rows:
                raise ValueError(f"{path.name}: the ledger has a row {row.id!r} already")
            rows[row.id] = row
    return list(rows.values())


def find_row(id: str) -> Row:
    """Return the ledger's row of that id, or raise KeyError."""
    for row in read_rows():
        if row.id == id:
            return row
    raise KeyError(f"the ledger has no row {id!r}")


def fill_quotes(text: str, rows: Iterable[Row]) -> str:
    """Render every quote of the ledger in a Markdown text again.

    Raises:
        KeyError: a quote names a row that is not there.
        ValueError: its format does not fit the row.
    """
    ledger = {row.id: row for row in rows}

    def rendered(match: re.Match[str]) -> str:
        if match["id"] not in ledger:
            raise KeyError(f"the ledger has no row {match['id']!r}, which the text quotes")
        return match["open"] + ledger[match["id"]].render(match["form"]) + match["close"]

    return QUOTE.sub(rendered, text)


def stale_quotes(text: str, rows: Iterable[Row]) -> list[str]:
    """Say of each quote that the ledger does not bear out the row, the sentence, and the value."""
    ledger, faults = list(rows), []
    for match in QUOTE.finditer(text):
        try:
            now = QUOTE.sub(r"\g<text>", fill_quotes(match[0], ledger))
        except (KeyError, ValueError) as error:
            now = str(error.args[0])
        if now != match["text"]:
            before = re.split(r"\n\n|\n\||\. ", QUOTE.sub(r"\g<text>", text[: match.start()]))[-1]
            after = re.split(r"\n\n|\n\||\. ", QUOTE.sub(r"\g<text>", text[match.end() :]))[0]
            sentence = " ".join(f"{before}{match['text']}{after}".split())
            faults.append(f"{match['id']}: the page says {sentence!r}, the ledger {now!r}")
    return faults


def write_quotes(path: str | Path) -> None:
    """Fill the quotes of a Markdown file, or of a notebook's Markdown cells, from the ledger."""
    path, rows = Path(path), read_rows()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                filled = fill_quotes("".join(cell["source"]), rows)
                cell["source"] = filled.splitlines(keepends=True)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    else:
        text = fill_quotes(text, rows)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def _read_file(path: Path) -> list[Row]:
    """Read one file of the ledger: a list of rows, with every field and no other."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise TypeError("it is something else")
        return [Row(**entry | {"date": entry["date"]}) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name} is no list of ledger rows ({error}): restore it from git"
        ) from error


# The results of an evaluation


@dataclass(frozen=True)
class Measure:
    """One number of one set of pictures."""

    source: str  # of the set: a model's name, `REAL`, or `SHUFFLED`
    metric: str  # such as "FD-scenes"
    estimate: Estimate
    what: str  # the metric in words, with what it was measured against
    extractor: str  # what read the pictures, with its fingerprint
    split: str  # of the captions that this number is about
    seconds: float  # that it took, together with those measured at once with it
    share: bool  # to be shown in per cent

    def __str__(self) -> str:
        """The number with its interval, as the table shows it."""
        values = [self.estimate.value, *(self.estimate.interval or ())]
        value, *interval = (f"{100 * v:.1f}%" if self.share else f"{v:.4g}" for v in values)
        return f"{value} ({interval[0]} to {interval[1]})" if interval else value


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one evaluation."""

    name: str  # of what drew the pictures
    data: str
    split: str  # of the captions
    samples: int  # number of pictures
    seeds: tuple[int, ...]  # of the noise
    measures: tuple[Measure, ...]
    left_out: tuple[str, ...] = ()  # what was not measured, and why
    notes: tuple[str, ...] = ()  # what the numbers are about, and may not be compared with
    each: int = 1  # pictures of a caption

    def find(self, metric: str, source: str | None = None) -> Estimate:
        """Return a number by the name of its metric; of the generated pictures by default.

        Raises:
            KeyError: it was not measured.
        """
        source = self.name if source is None else source
        for measure in self.measures:
            if (measure.source, measure.metric) == (source, metric):
                return measure.estimate
        raise KeyError(f"no {metric!r} of {source!r} was measured")

    def table(self) -> pd.DataFrame:
        """Return the numbers with their intervals, as texts: a row a metric, a column a set."""
        cells: dict[str, dict[str, str]] = {}
        for measure in self.measures:
            cells.setdefault(measure.source, {})[measure.metric] = str(measure)
        metrics = list(dict.fromkeys(measure.metric for measure in self.measures))
        return pd.DataFrame(cells, index=metrics).fillna("")

    def __str__(self) -> str:
        """Say what was measured on what, then the table, then notes and what was left out."""
        seeds = f", seed {', '.join(map(str, self.seeds))}" if self.seeds else ""
        each = "one" if self.each == 1 else self.each
        lines = [
            f"{self.name} on {self.data}, {self.split}: {self.samples:,} pictures, {each} a "
            f"caption, 8 bits{seeds}; intervals at 95 %",
            self.table().to_string(),
            *(f"note: {note}" for note in self.notes),
            *(f"left out: {reason}" for reason in self.left_out),
        ]
        return "\n".join(lines)

    def rows(self, prefix: str, command: str) -> list[Row]:
        """Return rows of the ledger.

        An id is made of a prefix (the name of the ledger's file: an id may stand in one only), set,
        metric, data, split, number of samples and seeds: "gan-real-fd-scenes-val-n2000".
        """
        data, rows = "" if self.data == "scenes" else self.data, []
        for m in self.measures:
            seeds = () if m.source == REAL else self.seeds
            named = "".join(f" s{seed}" for seed in seeds if seed)
            words = f"{prefix} {m.source} {m.metric} {data} {self.split} n{self.samples}{named}"
            rows.append(
                Row(
                    id=slug(words), metric=f"{m.source}: {m.what}", value=m.estimate.value,
                    interval=m.estimate.interval, samples=m.estimate.samples, seeds=seeds,
                    split=m.split, extractor=m.extractor, data=self.data,
                    hardware=hardware(), seconds=round(m.seconds, 1), command=command,
                )
            )  # fmt: skip
        return rows

    def main_figures(self) -> str:
        """Return the few numbers that one follows while a model trains, in a line."""
        found = [m for m in self.measures if m.source == self.name and m.metric in MAIN_FIGURES]
        return ", ".join(f"{m.metric} {str(m).split(' (')[0]}" for m in found)


def write_line(file: str | Path, step: int, found: Evaluation) -> None:
    """Write an evaluation into a run's log, one line of JSON a step, in the steps' order.

    A run that is resumed from before its last evaluation measures once more what it has measured:
    that line is replaced.
    """
    lines = {line["step"]: line for line in read_lines(file)} if Path(file).exists() else {}
    metrics = {
        m.metric: {"value": m.estimate.value, "interval": m.estimate.interval,
                   "samples": m.estimate.samples, "extractor": m.extractor}
        for m in found.measures if m.source == found.name
    }  # fmt: skip
    lines[step] = {"step": step, "data": found.data, "split": found.split,
                   "samples": found.samples, "seeds": found.seeds, "metrics": metrics}  # fmt: skip
    text = "".join(json.dumps(lines[key], allow_nan=False) + "\n" for key in sorted(lines))
    with atomic_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def read_lines(file: str | Path) -> list[dict[str, Any]]:
    """Read a run's log, in the steps' order."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
