"""What the tests of the command line share; the fixtures stand in conftest.py."""

from __future__ import annotations

import os
import subprocess
import sys

from t2i_course.__main__ import main

CAPTIONS = ("two dogs run on the green grass", "a man rides a wave", "people at a table with food")
TRAIN = ("train", "--data", "photos", "--size", "16", "--steps", "6", "--batch-size", "4",
         "--precision", "float32", "--output", "tiny", "--device", "cpu")  # fmt: skip
PROMPT = "a large red circle on a white background"


def error_line(capsys, argv: list[str]) -> str:
    """Run a command that must fail with one line on stderr and status 2."""
    capsys.readouterr()
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if ": note: " not in line]
    assert len(lines) == 1 and lines[0].startswith("t2i_course: error: "), captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def command(*argv: str, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "t2i_course", *argv],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
