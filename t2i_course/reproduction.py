"""Is the ledger sound, and does a row come out again?

    for fault in check_ledger(report.read_rows(), parse):    # none
        print(fault)
    again, seconds = rerun(report.find_row("oracle-right"))   # runs its command
    low, high, words = tolerance(row)                         # low <= again.value <= high?

`python -m t2i_course reproduce ROW` does the second. The ledger itself is never written to: what
the command measures goes into a folder of its own, by T2I_RESULTS.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path

from t2i_course.evaluation import wilson_interval
from t2i_course.report import Row, read_rows
from t2i_course.runtime import CHECKOUT

SHARE = re.compile(r"\b(share|accuracy|recall|precision|R@1)\b")
POSITIVE = re.compile(
    r"\b(FD-scenes|FID|Frechet|seconds|megabytes|MB|images a second|time of|step (with|over)|"
    r"deviation|path length|packed over plain)\b"
)
COST = re.compile(r"\b(seconds|megabytes|MB|images a second|time of|over the|step over)\b")
OLD_CODE = re.compile(r"git checkout (\w+) && (.+)")
COST_FACTOR = 2.0  # how far apart times and sizes on two machines may lie
PART_OF_VALUE = 0.05  # how far apart other numbers without an interval may lie


# The ledger


def limits(metric: str) -> tuple[float, float]:
    """Least and greatest value that a metric can have, by its name.

    A kernel distance is unbiased, so it may be negative; of an unknown metric nothing is said.
    """
    if "kernel distance" in metric:
        return -math.inf, math.inf
    if SHARE.search(metric):
        return 0.0, 1.0
    return (0.0, math.inf) if POSITIVE.search(metric) else (-math.inf, math.inf)


def check_ledger(rows: Sequence[Row], parse: Callable[[str], object] | None = None) -> list[str]:
    """Look for rows that cannot be right; that each is complete is asked when it is read.

    Args:
        rows: the ledger.
        parse: reads a command as the real parser does, and raises ValueError where that stops.

    Returns:
        A sentence for each fault: a value or an interval out of its metric's range, a command that
        cannot be parsed, twins (the same measurement of the same run under two names), and
        contradictions (two runs without chance that measured the same and differ).
    """
    faults = []
    for row in rows:
        least, greatest = limits(row.metric)
        low, high = row.interval or (row.value, row.value)
        if low < least or high > greatest:
            faults.append(f"{row.id}: {low:g} to {high:g} leaves {least:g} to {greatest:g}")
    for command in dict.fromkeys(row.command for row in rows) if parse else ():
        try:
            parse(command)
        except ValueError as error:
            faults.append(f"{command!r} cannot be run: {error}")
    return faults + _repetitions(rows)


def _repetitions(rows: Sequence[Row]) -> list[str]:
    """Twins and contradictions; see `check_ledger`."""
    faults: list[str] = []
    same: dict[tuple, list[Row]] = {}
    for row in rows:
        what = (row.metric, row.extractor, row.data, row.split, row.samples, row.seeds)
        same.setdefault(what, []).append(row)
    for first, second in (pair for group in same.values() for pair in combinations(group, 2)):
        low, high, _ = tolerance(first)
        if first.command == second.command:
            faults.append(f"{first.id} and {second.id} are twins: {first.metric}")
        elif not first.seeds and not low <= second.value <= high:
            faults.append(
                f"{first.id} and {second.id} contradict each other: "
                f"{first.value:g}, {second.value:g}"
            )
    return faults


def tolerance(row: Row) -> tuple[float, float, str]:
    """Where a row's value lies when it is measured again, and by which rule.

    Returns:
        Least and greatest value, and the rule in words: the row's interval; without one, a factor
        for times and sizes, Wilson's interval for a share of N, and a part of the value for others.
    """
    if row.interval is not None:
        return *row.interval, "its 95 % interval"
    if COST.search(row.metric):
        words = f"a factor of {COST_FACTOR:g}, for times and sizes of machines"
        return row.value / COST_FACTOR, row.value * COST_FACTOR, words
    if limits(row.metric) == (0.0, 1.0):
        return *wilson_interval(row.value, row.samples), "Wilson's interval of a share at 95 %"
    margin = PART_OF_VALUE * abs(row.value)
    return row.value - margin, row.value + margin, f"{PART_OF_VALUE:.0%} of the value"


# A row again


def seconds_of(row: Row, rows: Iterable[Row]) -> float:
    """How long a row's command measured when it was recorded: of all rows that it wrote."""
    return sum({other.seconds for other in rows if other.command == row.command} | {row.seconds})


def obstacle(row: Row, exists: Callable[[str, str], bool]) -> str | None:
    """Say why a row cannot be measured on this machine; None if nothing is known against it.

    `exists` says whether what an option names is here, such as ("--data", "flickr8k").
    """
    if old := OLD_CODE.fullmatch(row.command):
        return (
            f"the code that measured it is that of commit {old[1]}: `git worktree add ../old "
            f"{old[1]}`, and there `{old[2]}`"
        )
    words = shlex.split(row.command)
    for option, value in zip(words, words[1:], strict=False):
        if option in ("--data", "--model", "--extractor", "--matcher", "--captions"):
            if not exists(option, value):
                return f"{option} {value} is not here"
    return None


def rerun(row: Row) -> tuple[Row, float]:
    """Run a row's command, and return the row that it writes now, with the seconds it took.

    Raises:
        ValueError: the command is none of the course, failed, or wrote no such row.
    """
    program, *words = shlex.split(row.command)
    if program != "python":
        raise ValueError(f"{row.id}: {row.command!r} is no command of the course")
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *words], cwd=CHECKOUT, env=os.environ | {"T2I_RESULTS": folder},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            raise ValueError(f"{row.command!r} ended with {done.returncode}: {last}")
        found = {other.id: other for other in read_rows(Path(folder))}
    if row.id not in found:
        raise ValueError(
            f"{row.command!r} writes no row {row.id!r} now, but {', '.join(found) or 'none'}"
        )
    return found[row.id], seconds
