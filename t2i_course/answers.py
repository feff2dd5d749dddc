"""The answers of a user study: one line of JSON for each, on disk before the next is asked.

A kernel may die, a laptop may run out of power; then at most the line that was being written is
lost. It is found by its missing end, reported, and asked again. The lines hold the names of the
models, so raters should not open the file before they have finished.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

QUESTIONS = ("quality", "fit")
POINTS = (1, 2, 3, 4, 5)
SIMULATED = "simulated"


@dataclass(frozen=True)
class Answer:
    """One rater's answer to one trial.

    Attributes:
        study: the study's id; it changes when a picture, caption or source does.
        rater: the name that the rater gave.
        trial: number of the trial in the study, the same for all raters.
        item: number of the caption.
        sources: of the picture shown; or of the two pictures shown, the left one first.
        scores: {"quality": 1 to 5, "fit": 1 to 5}; for two pictures {"choice": 0}, the left one, or
            {"choice": 1}.
        seconds: from the showing of the trial to the answer.
        time: of the answer, in ISO 8601; "simulated" if nobody gave it.

    Raises:
        ValueError: a field is of the wrong type or out of its range.
    """

    study: str
    rater: str
    trial: int
    item: int
    sources: tuple[str, ...]
    scores: dict[str, int]
    seconds: float
    time: str

    def __post_init__(self) -> None:
        """Refuse what no form would have written."""
        for name in ("study", "rater", "time"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} is a text, not {value!r}")
        for name in ("trial", "item"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is a number from 0, not {value!r}")
        if type(self.seconds) not in (int, float) or not 0 <= self.seconds < float("inf"):
            raise ValueError(f"seconds is a number from 0, not {self.seconds!r}")
        sources = self.sources
        if not isinstance(sources, (list, tuple)) or not all(type(s) is str for s in sources):
            raise ValueError(f"sources are one or two names, not {sources!r}")
        object.__setattr__(self, "sources", tuple(sources))  # JSON gives lists
        ranges = {1: dict.fromkeys(QUESTIONS, POINTS), 2: {"choice": (0, 1)}}.get(len(sources))
        if ranges is None or len(set(sources)) < len(sources):
            raise ValueError(f"sources are one or two names, not {sources!r}")
        if not isinstance(self.scores, dict) or set(self.scores) != set(ranges):
            raise ValueError(f"scores are for {' and '.join(ranges)}, not {self.scores!r}")
        for question, allowed in ranges.items():
            score = self.scores[question]
            if type(score) is not int or score not in allowed:
                raise ValueError(f"{question} is one of {allowed}, not {score!r}")


# The file


def append_answer(path: str | Path, answer: Answer) -> None:
    """Write an answer to the end of a file and wait until it is on the disk.

    A last line that was cut short, by a kernel that died or a full disk, is removed first, with a
    warning.

    Raises:
        ValueError: nobody gave the answer: simulated ones have no place among people's.
        OSError: the file cannot be written.
    """
    if answer.time == SIMULATED:
        raise ValueError("a simulated answer has no place in a file of people's answers")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if removed := cut_half_line(path):
        warnings.warn(f"{path.name}: removed a line that was cut short: {removed}", stacklevel=2)
    line = json.dumps(asdict(answer), ensure_ascii=False, allow_nan=False) + "\n"
    with open(path, "ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new and os.name == "posix":  # the file's name has to reach the disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_answers(path: str | Path) -> list[Answer]:
    """Read all answers of a file.

    A last line without its end was cut short when it was written: a warning says so, and it does
    not count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not an answer, or a rater has answered a trial twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no answers at {path}: the form writes them as they are given")
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        warnings.warn(
            f"{path.name}: line {len(lines) + 1}, the last, was cut short and does not count",
            stacklevel=2,
        )
    answers, first_line = [], {}
    for number, line in enumerate(lines, start=1):
        answer = _read_line(line, f"{path.name}, line {number}")
        key = (answer.study, answer.rater, answer.trial)
        if key in first_line:
            raise ValueError(
                f"{path.name}: lines {first_line[key]} and {number} are answers of the same rater, "
                f"{answer.rater!r}, to the same trial. If they are two people, rename one of them "
                "in the file; if not, delete one of the lines"
            )
        first_line[key] = number
        answers.append(answer)
    return answers


def cut_half_line(path: str | Path) -> str:
    """Remove a last line that was cut short, so that the next answer begins on a line of its own.

    Returns:
        What was removed; an empty text if the file ends as it should, or does not exist.
    """
    path = Path(path)
    if not path.exists():
        return ""
    with open(path, "r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
            os.fsync(file.fileno())
    return content[end:].decode(errors="replace")


def _read_line(line: bytes, place: str) -> Answer:
    """Turn a line into an answer; it must have every field and no other."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}): mend or delete the line") from error
    names = {field.name for field in fields(Answer)}
    if not isinstance(entry, dict) or set(entry) != names:
        raise ValueError(f"{place} is no answer, which has the fields {', '.join(sorted(names))}")
    try:
        return Answer(**entry)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


# Tables for `rating_statistics`


def rating_table(answers: Iterable[Answer], question: str, source: str | None = None) -> np.ndarray:
    """Lay ratings out as a table.

    Args:
        answers: to single pictures.
        question: "quality" or "fit".
        source: whose pictures; None is all, each picture a column of its own, as
            `krippendorff_alpha` wants them.

    Returns:
        [raters, captions], or [raters, pictures] if source is None; NaN where there is no answer.
        Tables of two sources have the same rows and columns, so that they may be subtracted.

    Raises:
        ValueError: no such ratings, or answers to several studies.
    """
    answers = _of_one_study(answers, sources=1)
    if question not in QUESTIONS:
        raise ValueError(f"question is one of {', '.join(QUESTIONS)}, not {question!r}")
    known = sorted({answer.sources[0] for answer in answers})
    if source is not None and source not in known:
        raise ValueError(f"no ratings of {source!r}; there are some of {', '.join(known)}")
    raters = sorted({answer.rater for answer in answers})
    columns = sorted({_column(answer, source) for answer in answers})
    table = np.full((len(raters), len(columns)), np.nan)
    for answer in answers:
        if source in (None, answer.sources[0]):
            column = columns.index(_column(answer, source))
            table[raters.index(answer.rater), column] = answer.scores[question]
    return table


def _column(answer: Answer, source: str | None) -> tuple:
    """Return what the column of an answer stands for: a caption, or a caption and a source."""
    return (answer.item,) if source is not None else (answer.item, answer.sources[0])


def wins_tables(answers: Iterable[Answer]) -> tuple[tuple[str, ...], np.ndarray]:
    """Count who was chosen over whom, rater by rater.

    Args:
        answers: choices between two pictures.

    Returns:
        The sources' names (S), and how often each rater chose the row over the column [R, S, S].
        The sum over raters goes into `bradley_terry`, the whole into `bootstrap_raters`.

    Raises:
        ValueError: no choices, or answers to several studies.
    """
    answers = _of_one_study(answers, sources=2)
    sources = sorted({source for answer in answers for source in answer.sources})
    tables: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(sources),) * 2, dtype=int))
    for answer in answers:
        chosen, other = answer.sources[:: 1 if answer.scores["choice"] == 0 else -1]
        tables[answer.rater][sources.index(chosen), sources.index(other)] += 1
    return tuple(sources), np.stack([tables[rater] for rater in sorted(tables)])


def _of_one_study(answers: Iterable[Answer], sources: int) -> list[Answer]:
    """Return the answers as a list; they belong to one study and have that many pictures."""
    answers = list(answers)
    if not answers:
        raise ValueError("there are no answers yet")
    if len({answer.study for answer in answers}) > 1:
        raise ValueError("these are answers to several studies: keep those of one `study`")
    if any(len(answer.sources) != sources for answer in answers):
        wanted = "ratings of single pictures" if sources == 1 else "choices between two pictures"
        raise ValueError(f"need {wanted}, and these answers are not")
    return answers
