"""The results ledger: every number that the course claims, with all that is needed to check it.

A row is one measured number. Rows stand in `data/results/*.json`, in git. Prose that shows a number
quotes its row,

    <!-- ledger: mse-scene-accuracy {value:.1%} -->12.3%<!-- /ledger -->

and a test renders every quote again and compares.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from t2i_course.runtime import atomic_file, data_folder

QUOTE = re.compile(
    r"(?P<open><!-- ledger: (?P<id>[a-z0-9-]+) (?P<form>.+?) -->)(?P<text>.*?)"
    r"(?P<close><!-- /ledger -->)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Row:
    """One measured number, and how to measure it again.

    Attributes:
        id: its name in quotes: small letters, digits and hyphens.
        metric: what was measured, with its unit.
        value: the number.
        interval: (low, high) at 95 %, or None where there is none.
        samples: how many pictures, captions or repetitions the value rests on.
        seeds: of the runs behind it; empty if nothing was random.
        split: of the data, such as "val_unseen"; "none" for a timing.
        extractor: what read the pictures, such as "oracle"; "none" if nothing did.
        data: name of the data set.
        hardware: `runtime.hardware()`.
        seconds: that the measurement took.
        command: that makes the number again, from the checkout.
        date: of the measurement, such as "2026-01-31".

    Raises:
        ValueError: a field is empty, of the wrong type, or not finite, or the interval does not
            hold the value.
    """

    id: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    samples: int
    seeds: tuple[int, ...]
    split: str
    extractor: str
    data: str
    hardware: str
    seconds: float
    command: str
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    def __post_init__(self) -> None:
        """Refuse what a reader could not check."""
        for name in ("metric", "split", "extractor", "data", "hardware", "command"):
            value = getattr(self, name)
            self._need(isinstance(value, str) and value.strip(), f"{name} is a text, not {value!r}")
        self._need(
            isinstance(self.id, str) and re.fullmatch(r"[a-z0-9-]+", self.id),
            f"id is made of small letters, digits and hyphens, not {self.id!r}",
        )
        self._need(_is_number(self.value), f"value is a finite number, not {self.value!r}")
        self._need(
            _is_number(self.seconds) and self.seconds >= 0, f"seconds: bad value {self.seconds!r}"
        )
        whole = isinstance(self.samples, int) and not isinstance(self.samples, bool)
        self._need(whole and self.samples > 0, f"samples is a count, not {self.samples!r}")
        seeds = isinstance(self.seeds, (list, tuple)) and all(type(s) is int for s in self.seeds)
        self._need(seeds, f"seeds is a list of whole numbers, not {self.seeds!r}")
        object.__setattr__(self, "seeds", tuple(self.seeds))  # JSON gives lists
        try:
            datetime.date.fromisoformat(self.date)
        except (TypeError, ValueError):
            self._need(False, f"date is written as 2026-01-31, not {self.date!r}")
        if self.interval is not None:
            pair = isinstance(self.interval, (list, tuple)) and len(self.interval) == 2
            pair = pair and all(map(_is_number, self.interval))
            self._need(pair, f"interval is two finite numbers, not {self.interval!r}")
            low, high = self.interval
            self._need(
                low <= self.value <= high,
                f"interval {low} to {high} does not hold the value {self.value}",
            )
            object.__setattr__(self, "interval", (low, high))

    def _need(self, condition: object, message: str) -> None:
        """Raise ValueError, with the row's id, unless the condition holds."""
        if not condition:
            raise ValueError(f"ledger row {self.id!r}: {message}")

    def render(self, form: str) -> str:
        """Write the row as a `str.format` template says, over its fields and `low` and `high`."""
        low, high = self.interval or (None, None)
        try:
            return form.format(**asdict(self), low=low, high=high)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"ledger row {self.id!r}: bad format {form!r} ({error})") from error


def slug(text: str) -> str:
    """Small letters, digits and hyphens: what ids of rows are made of."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def check_name(name: str | None) -> str | None:
    """Check, before the work is done, that rows can be added to a file of the ledger.

    Args:
        name: of a file in `data/results`, with .json or without; None stays None.

    Returns:
        The name without .json.

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
    """Write rows into a file of the ledger; a row with the same id is replaced.

    Args:
        file: a name such as "training.json" in `data/results`, or a path.
        rows: the new ones.

    Returns:
        The file's path.

    Raises:
        ValueError: the file holds something else, or two of the new rows have one id.
    """
    path = data_folder() / "results" / file  # an absolute path stays what it is
    rows = list(rows)
    if len({row.id for row in rows}) < len(rows):
        raise ValueError(f"{path.name}: two new rows have the same id")
    ledger = {row.id: row for row in (_read_file(path) if path.exists() else [])}
    ledger.update((row.id, row) for row in rows)
    text = json.dumps([asdict(ledger[key]) for key in sorted(ledger)], indent=1, allow_nan=False)
    with atomic_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def read_rows(folder: Path | None = None) -> list[Row]:
    """Read the whole ledger.

    Args:
        folder: of its files, `data/results` if None.

    Raises:
        ValueError: a file is not a list of complete rows, or two rows have one id.
    """
    folder = data_folder() / "results" if folder is None else folder
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.json")):
        for row in _read_file(path):
            if row.id in rows:
                raise ValueError(f"{path.name}: the ledger has a row {row.id!r} already")
            rows[row.id] = row
    return list(rows.values())


def find_row(id: str, folder: Path | None = None) -> Row:
    """Return the ledger's row of that id.

    Raises:
        KeyError: there is none.
    """
    for row in read_rows(folder):
        if row.id == id:
            return row
    raise KeyError(f"the ledger has no row {id!r}")


def fill_quotes(text: str, rows: Iterable[Row]) -> str:
    """Render every quote of the ledger in a Markdown text again.

    Args:
        text: with quotes as shown at the top of this module.
        rows: the ledger.

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
    """Read one file of the ledger."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON ({error}): restore it from git") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path.name} is not a list of ledger rows")
    return [_read_row(entry, path) for entry in entries]


def _read_row(entry: Mapping[str, Any], path: Path) -> Row:
    """Turn an entry of a file into a row; it must have every field and no other."""
    names = {item.name for item in fields(Row)}
    if not isinstance(entry, dict) or set(entry) != names:
        wrong = sorted(names ^ set(entry)) if isinstance(entry, dict) else entry
        raise ValueError(f"{path.name}: a row lacks fields, or has others: {wrong}")
    return Row(**entry)


def _is_number(value: object) -> bool:
    """Whether it is a finite number, and not True or False."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)
