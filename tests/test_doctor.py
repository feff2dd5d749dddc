"""Tests of doctor: what the course needs, and what to type where it is not there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from t2i_course import doctor, runtime

CHECKOUT = Path(__file__).resolve().parents[1]


def check(name):
    (found,) = [check for check in doctor.check_environment() if check.name == name]
    return found


def test_every_requirement_has_a_line_and_every_failure_a_remedy():
    checks = doctor.check_environment()
    found = {check.name for check in checks}
    for line in (CHECKOUT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith(("#", "-e")):
            assert line.partition(">")[0] in found
    assert {"python", "t2i-course", "device", "disk space", "text encoder"} <= found
    assert all(check.remedy for check in checks if check.required and not check.ok)
    assert all("\n" not in check.detail for check in checks)


def test_missing_and_outdated_packages_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "CHECKOUT", tmp_path)
    lines = "# reason\nnumpy>=999,<1000\nno-such-package-here>=1,<2\npillow>=1\n"
    (tmp_path / "requirements.txt").write_text(lines)
    outdated, missing, fine = doctor._check_packages()
    assert not outdated.ok and np.__version__ in outdated.detail
    assert outdated.remedy == 'python -m pip install "numpy>=999,<1000"'
    assert not missing.ok and missing.detail == "not installed"
    assert fine.ok


def test_bad_variables_are_lines_not_a_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_PROFILE", "quick")
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "gone"))
    assert not check("settings").ok and "quick" in check("settings").detail
    assert not check("data folder").ok


def test_what_comes_with_the_course_is_what_is_asked_for():
    """`ENCODERS` and `CHECKPOINTS` are the names in the repository."""
    shipped = subprocess.run(
        ["git", "ls-files", "data"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not shipped:
        pytest.skip("no checkout of git")
    folders = {Path(file).parts[2] for file in shipped if file.startswith("data/encoders/")}
    weights = {Path(file).stem for file in shipped if file.startswith("data/checkpoints/")}
    assert folders == set(doctor.ENCODERS) and weights == set(doctor.CHECKPOINTS)


def test_an_empty_data_folder_lacks_all_that_the_notebooks_read(monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    assert check("data folder").ok and list(tmp_path.iterdir()) == []
    for name, folder in (
        ("text encoder", "encoders"), ("trained weights", "checkpoints"), ("results", "results"),
    ):  # fmt: skip
        found = check(name)
        assert not found.ok and found.remedy == f"cp -r {CHECKOUT / 'data'}/. {tmp_path}"
        shutil.copytree(CHECKOUT / "data" / folder, tmp_path / folder, copy_function=os.link)
        assert check(name).ok, check(name)
    assert not check("scenes").required
    (tmp_path / "encoders" / "caption-bert" / "config.json").unlink()
    assert check("text encoder").detail == "missing: caption-bert/config.json"
    (tmp_path / "checkpoints" / "own.safetensors").touch()
    assert check("trained weights").detail == "missing: own.json"
    (tmp_path / "checkpoints" / ".DS_Store").touch()
    (tmp_path / "checkpoints" / "own.json").touch()
    assert check("trained weights").ok


def test_environment_is_checked_even_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    (tmp_path / "torchvision.py").write_text("import torch")
    code = (
        "from t2i_course.doctor import check_environment\n"
        "print(*(c.detail for c in check_environment() if not c.ok), sep='\\n')"
    )
    path = os.pathsep.join([str(tmp_path), str(CHECKOUT)])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "no torch here" in done.stdout
