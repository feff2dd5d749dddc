"""The ledger is sound, and a row's command runs again."""

import argparse
import math
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from t2i_course import report, reproduction
from t2i_course.__main__ import build_parser, main
from t2i_course.commands.reproduce import is_here
from t2i_course.reproduction import check_ledger, limits, tolerance

CHECKOUT = Path(__file__).resolve().parents[1]
ROW = report.Row(
    id="mse-all", metric="mse: everything right, share, all", value=0.125, interval=(0.11, 0.14),
    samples=2000, seeds=(0,), split="val", extractor="oracle", data="scenes",
    hardware="2-core x86_64, no GPU", seconds=12.5,
    command="python -m t2i_course evaluate --model baseline --ledger mse", date="2026-01-31",
)  # fmt: skip


class ParsedError(Exception):
    """A benchmark's own parser has read its command."""


def parse(command):
    """Read a command by the parser that it would meet; ValueError where that stops."""
    if old := reproduction.OLD_CODE.fullmatch(command):
        return parse_old(old[1], shlex.split(old[2]))
    program, *words = shlex.split(command)
    if program != "python":
        raise ValueError("no command of the course")
    try:
        if words[:2] == ["-m", "t2i_course"]:
            return build_parser(words[2]).parse_args(words[2:])
        return parse_benchmark(words)
    except SystemExit as error:
        raise ValueError("its options are unknown") from error


def parse_benchmark(words):
    """Start a benchmark, and stop it when its parser has read the options."""
    file = CHECKOUT / words[0]
    if not (file.is_file() and file.parent.name == "benchmarks"):
        raise ValueError(f"there is no {words[0]}")
    real = argparse.ArgumentParser.parse_args

    def read(self, *_):
        real(self, words[1:])
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", read)
        patch.syspath_prepend(file.parent)
        patch.setattr(sys, "argv", [str(file), *words[1:]])
        with pytest.raises(ParsedError):
            runpy.run_path(str(file), run_name="__main__")
    return None


def parse_old(commit, words):
    """Whether that commit had the file; asked only where git knows the commit."""
    run = {"cwd": CHECKOUT, "capture_output": True, "check": False}
    file = f"{words[2]}/commands/{words[3]}.py" if words[1] == "-m" else words[1]
    if subprocess.run(["git", "cat-file", "-e", commit], **run).returncode == 0:
        found = subprocess.run(["git", "cat-file", "-e", f"{commit}:{file}"], **run)
        if found.returncode:
            raise ValueError(f"commit {commit} has no {file}")


def test_the_courses_ledger_is_sound():
    assert check_ledger(report.read_rows(CHECKOUT / "data" / "results"), parse) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"interval": (-0.01, 0.14)}, "mse-all: -0.01 to 0.14 leaves 0 to 1"),
        ({"value": 1.2, "interval": None}, "mse-all: 1.2 to 1.2 leaves 0 to 1"),
        ({"metric": "FD-scenes", "value": -1, "interval": None}, "-1 to -1 leaves 0 to inf"),
        ({"command": "python -m t2i_course evaluate --modle gan"}, "cannot be run: its options"),
        ({"command": "python benchmarks/gone.py"}, "cannot be run: there is no benchmarks/gone.py"),
        ({"command": "python benchmarks/packing.py --imges 3"}, "cannot be run: its options"),
        ({"command": "rm -r data"}, "cannot be run: no command of the course"),
        ({"command": "git checkout 9e7c377 && python benchmarks/gone.py"}, "cannot be run: commit"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(change, fault):
    known = ["git", "cat-file", "-e", "9e7c377"]
    if "commit" in fault and subprocess.run(known, cwd=CHECKOUT, check=False).returncode:
        pytest.skip("this clone has no history")
    faults = check_ledger([replace(ROW, **change)], parse)
    assert len(faults) == 1 and fault in faults[0], faults


def test_twins_and_contradictions_are_named():
    assert check_ledger([ROW, replace(ROW, id="other")])[0].startswith(
        "mse-all and other are twins"
    )
    later = replace(ROW, id="later", command="python -m t2i_course evaluate --ledger later")
    assert check_ledger([ROW, later]) == []  # measured twice, with chance in it
    real, other = replace(ROW, seeds=()), replace(later, seeds=())
    assert check_ledger([real, other]) == []
    other = replace(other, value=0.2, interval=(0.18, 0.22))
    assert check_ledger([real, other]) == ["mse-all and later contradict each other: 0.125, 0.2"]


def test_limits_go_by_the_metric():
    assert limits("gan: recall, k = 3") == (0, 1)
    assert limits("gan: FD-scenes, squared") == (0, math.inf)
    assert limits("gan: kernel distance, mean of the seeds")[0] == -math.inf


def test_tolerance_is_the_interval_or_a_stated_rule():
    assert tolerance(ROW) == (0.11, 0.14, "its 95 % interval")
    low, high, words = tolerance(replace(ROW, interval=None))
    assert (round(low, 3), round(high, 3)) == (0.111, 0.140) and "Wilson" in words
    speed = replace(ROW, metric="seconds of training", value=4, interval=None)
    assert tolerance(speed)[:2] == (2, 8)
    assert tolerance(replace(ROW, metric="a score", value=10, interval=None))[:2] == (9.5, 10.5)


# A row again


@pytest.fixture
def ledger(monkeypatch, tmp_path):
    """A ledger of its own with rows of a command that takes no time: packing of few pictures."""
    monkeypatch.setenv("T2I_RESULTS", str(tmp_path))
    return tmp_path


def benchmark_row(**changes):
    row = next(r for r in report.read_rows(CHECKOUT / "data/results") if r.id == "oracle-right")
    return replace(row, **changes)


@pytest.mark.slow
def test_a_row_is_measured_again_and_the_ledger_stays_as_it_was(ledger, capsys):
    path = report.add_rows("oracle.json", [benchmark_row()])
    before = path.read_bytes()
    assert main(["reproduce", "oracle-right"]) == 0
    text = capsys.readouterr().out
    assert "recorded: 1, " in text and "within 0.998" in text and "Wilson" in text
    assert path.read_bytes() == before and list(ledger.iterdir()) == [path]
    report.add_rows("oracle.json", [benchmark_row(value=0.5, interval=(0.4, 0.6))])
    assert main(["reproduce", "oracle-right"]) == 1
    assert "OUTSIDE 0.4 to 0.6, its 95 % interval" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"command": "git checkout abc1234 && python benchmarks/x.py"}, "commit abc1234: `git"),
        ({"command": "python -m t2i_course evaluate --data gone"}, "--data gone is not here"),
        ({"command": "python -m t2i_course evaluate --model gone"}, "--model gone is not here"),
        ({"seconds": 7200.0}, "it took 120 minutes on 2-core"),
        ({"command": "make"}, "'make' is no command of the course"),
        ({"command": "python benchmarks/gone.py"}, "ended with 2"),
    ],
)
def test_a_row_that_cannot_be_measured_here_says_why(ledger, capsys, change, reason):
    report.add_rows("a.json", [replace(ROW, **change)])
    assert main(["reproduce", "mse-all"]) == 2
    captured = capsys.readouterr()
    assert reason in captured.err and "recorded: 0.125 (0.11 to 0.14), 2026-01-31" in captured.out


def test_an_unknown_row_names_those_like_it(ledger, capsys):
    report.add_rows("a.json", [ROW])
    assert main(["reproduce", "mse"]) == 2
    assert "no row 'mse'; there are mse-all" in capsys.readouterr().err


def test_what_is_shipped_is_here():
    assert is_here("--model", "gan") and is_here("--data", "scenes")
    assert not is_here("--extractor", "gone")
    assert reproduction.OLD_CODE.fullmatch("git checkout 9e7 && python a.py")[1] == "9e7"
