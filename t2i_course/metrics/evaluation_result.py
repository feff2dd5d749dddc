"""What an evaluation found: a table to read, rows for the ledger, a line for a run's log.

print(found)                                       # the table
report.add_rows("gan.json", found.rows("gan", command))
write_line(run_folder / LOG_FILE, step, found)     # while a model trains
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from t2i_course import runtime
from t2i_course.estimates import Estimate
from t2i_course.report import Row, slug

REAL, SHUFFLED = "real", "shuffled captions"
LOG_FILE = "evaluations.jsonl"
MAIN_FIGURES = ("FD-scenes", "FID", "Frechet distance", "scene accuracy: all", "R@1", "CLIP score")


@dataclass(frozen=True)
class Measure:
    """One number of one set of pictures.

    Attributes:
        judged: the set: a model's name, `REAL`, or `SHUFFLED`.
        metric: such as "FD-scenes".
        estimate: value, interval, number of samples.
        what: the metric in words, with what it was measured against.
        extractor: what read the pictures, with its fingerprint.
        split: of the captions that this number is about.
        seconds: that it took, together with those measured at once with it.
        share: whether it is a share, to be shown in per cent.
    """

    judged: str
    metric: str
    estimate: Estimate
    what: str
    extractor: str
    split: str
    seconds: float
    share: bool

    def __str__(self) -> str:
        """The number with its interval, as the table shows it."""
        values = [self.estimate.value, *(self.estimate.interval or ())]
        value, *interval = (f"{100 * v:.1f}%" if self.share else f"{v:.4g}" for v in values)
        return f"{value} ({interval[0]} to {interval[1]})" if interval else value


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one evaluation.

    Attributes:
        name: of what drew the pictures.
        data: name of the data set.
        split: of its captions.
        samples: N, one a caption.
        seeds: of the noise.
        measures: the numbers.
        left_out: what was not measured, and why.
        notes: what the numbers are about, and what they may not be compared with.
    """

    name: str
    data: str
    split: str
    samples: int
    seeds: tuple[int, ...]
    measures: tuple[Measure, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def find(self, metric: str, judged: str | None = None) -> Estimate:
        """Return a number by the name of its metric; of the judged pictures by default.

        Raises:
            KeyError: it was not measured.
        """
        judged = self.name if judged is None else judged
        for measure in self.measures:
            if (measure.judged, measure.metric) == (judged, metric):
                return measure.estimate
        raise KeyError(f"no {metric!r} of {judged!r} was measured")

    def table(self) -> pd.DataFrame:
        """Return the numbers with their intervals, as texts: a row a metric, a column a set."""
        cells: dict[str, dict[str, str]] = {}
        for measure in self.measures:
            cells.setdefault(measure.judged, {})[measure.metric] = str(measure)
        metrics = list(dict.fromkeys(measure.metric for measure in self.measures))
        return pd.DataFrame(cells, index=metrics).fillna("")

    def __str__(self) -> str:
        """Say what was measured on what, then the table, then notes and what was left out."""
        seeds = f", seed {', '.join(map(str, self.seeds))}" if self.seeds else ""
        lines = [
            f"{self.name} on {self.data}, {self.split}: {self.samples:,} pictures, one a caption, "
            f"8 bits{seeds}; intervals at 95 %",
            self.table().to_string(),
            *(f"note: {note}" for note in self.notes),
            *(f"left out: {reason}" for reason in self.left_out),
        ]
        return "\n".join(lines)

    def rows(self, prefix: str, command: str) -> list[Row]:
        """Return rows of the ledger.

        Args:
            prefix: of their ids, such as the name of the ledger's file: an id may stand in one
                file of the ledger only. The rest is made of set, metric, data, split, number of
                samples and seeds, as in "gan-real-fd-scenes-val-n2000".
            command: that makes the numbers again.

        Raises:
            ValueError: see `report.Row`.
        """
        data = "" if self.data == "scenes" else self.data
        rows = []
        for measure in self.measures:
            seeds = () if measure.judged == REAL else self.seeds
            named = "".join(f" s{seed}" for seed in seeds if seed)
            words = f"{prefix} {measure.judged} {measure.metric} {data} {self.split}"
            rows.append(
                Row(
                    id=slug(f"{words} n{self.samples}{named}"),
                    metric=f"{measure.judged}: {measure.what}",
                    value=measure.estimate.value,
                    interval=measure.estimate.interval,
                    samples=measure.estimate.samples,
                    seeds=seeds,
                    split=measure.split,
                    extractor=measure.extractor,
                    data=self.data,
                    hardware=runtime.hardware(),
                    seconds=round(measure.seconds, 1),
                    command=command,
                )
            )
        return rows

    def main_figures(self) -> str:
        """Return the few numbers that one follows while a model trains, in a line."""
        found = [m for m in self.measures if m.judged == self.name and m.metric in MAIN_FIGURES]
        return ", ".join(f"{m.metric} {str(m).split(' (')[0]}" for m in found)


# The log of a run


def write_line(file: str | Path, step: int, found: Evaluation) -> None:
    """Write an evaluation into a run's log, one line of JSON a step, in the steps' order.

    The file is replaced as a whole, so that half a line is never seen. A run that is resumed from
    before its last evaluation measures once more what it has measured: that line is replaced.

    Args:
        file: the log; made if missing.
        step: of the run.
        found: its evaluation.

    Raises:
        ValueError: the file holds something else.
    """
    file = Path(file)
    lines = {line["step"]: line for line in read_lines(file)} if file.exists() else {}
    metrics = {
        measure.metric: {
            "value": measure.estimate.value,
            "interval": measure.estimate.interval,
            "samples": measure.estimate.samples,
            "extractor": measure.extractor,
        }
        for measure in found.measures
        if measure.judged == found.name
    }
    lines[step] = {
        "step": step, "data": found.data, "split": found.split, "samples": found.samples,
        "seeds": found.seeds, "metrics": metrics,
    }  # fmt: skip
    text = "".join(json.dumps(lines[key], allow_nan=False) + "\n" for key in sorted(lines))
    with runtime.atomic_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def read_lines(file: str | Path) -> list[dict[str, Any]]:
    """Read a run's log, in the steps' order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not what `write_line` writes.
    """
    lines = []
    for number, text in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not {"step", "metrics"} <= line.keys():
            raise ValueError(f"{file}, line {number} is no evaluation: mend or remove the file")
        lines.append(line)
    return lines
