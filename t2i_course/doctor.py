"""Is everything there that the course needs? Packages, settings, the data folder and its files.

It runs without any library, and says which ones are missing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from t2i_course import runtime

DATA_GIGABYTES = 1.0
# What comes with the course and the notebooks read: folders of data/encoders, names of checkpoints
ENCODERS = ("caption-bert", "caption-bert-masked-words", "caption-bert-contrastive")
CHECKPOINTS = ("baseline", "caption-matcher", "captioner", "flow", "gan", "gan-discriminator",
               "scene-features", "shared-space", "sound-features", "style",
               "video-to-audio")  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One line of `python -m t2i_course doctor`."""

    name: str
    ok: bool
    detail: str  # what was found
    remedy: str = ""  # what to type when it is not ok
    required: bool = True


def check_environment() -> list[Check]:
    """Check everything that the course needs, without stopping at the first fault."""
    right = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "install Python 3.12 from https://www.python.org/downloads/, make a new environment"
    checks = [Check("python", right, platform.python_version(), remedy)]
    checks += [*_check_packages(), _check_torchvision()]
    if runtime.torch is not None:
        checks += _check_settings()
    try:
        return checks + _check_data(runtime.data_folder())
    except FileNotFoundError as error:
        return [*checks, Check("data folder", False, str(error), "see the message")]


def _check_packages() -> list[Check]:
    """Every line of requirements.txt: is it installed, within its bounds?"""
    try:
        from packaging.requirements import Requirement

        lines = (runtime.CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        remedy = "python -m pip install -r requirements.txt, in the course's checkout"
        return [Check("packages", False, str(error), remedy)]
    checks = []
    for text in filter(None, (line.partition("#")[0].strip() for line in lines)):
        needed = Requirement("t2i-course" if text == "-e ." else text)
        remedy = "python -m pip install " + (text if text == "-e ." else f'"{text}"')
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(needed.name, False, "not installed", remedy))
            continue
        ok = needed.specifier.contains(version, prereleases=True)
        bounds = f" (needs {needed.specifier})" if needed.specifier else ""
        checks.append(Check(needed.name, ok, version + bounds, remedy))
    return checks


def _check_torchvision() -> Check:
    """Torch and torchvision are compiled for each other, or importing the second one fails."""
    name = "torch and torchvision fit"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a mismatch shows as RuntimeError, OSError or ImportError
        remedy = "python -m pip install --force-reinstall -r requirements.txt"
        return Check(name, False, str(error).splitlines()[0], remedy)
    return Check(name, True, "imported together")


def _check_settings() -> list[Check]:
    """The T2I_ variables, and the device they lead to."""
    try:
        current = runtime.settings()
    except (ValueError, OSError) as error:
        return [Check("settings", False, str(error), "correct or unset the variable")]
    precision = "bfloat16" if current.autocast_dtype else "float32"
    return [
        Check("settings", True, f"profile {current.profile}, data {current.data}"),
        Check("device", True, f"{current.device}, {precision}, {runtime.hardware()}"),
    ]


def _check_data(folder: Path) -> list[Check]:
    """The data folder, its disk, and what the notebooks read from it."""
    restore = f"git checkout -- data, in {runtime.CHECKOUT}"
    if folder != runtime.CHECKOUT / "data":
        restore = f"cp -r {runtime.CHECKOUT / 'data'}/. {folder}"
    fault = ""
    try:
        with runtime.atomic_file(folder / "write-test.txt") as partial:
            partial.touch()
        (folder / "write-test.txt").unlink()
    except OSError as error:
        fault = str(error)
    free = shutil.disk_usage(folder).free / 1e9
    bert = [f"{name}/{file}" for name in ENCODERS for file in ("config.json", "model.safetensors")]
    weights = [name + suffix for name in CHECKPOINTS for suffix in (".safetensors", ".json")]
    results = [file.name for file in (runtime.CHECKOUT / "data" / "results").glob("*.json")]
    made = (folder / "scenes").is_dir()
    scenes = "made" if made else "not made yet: made on first use, in under 20 s"
    return [
        Check("data folder", not fault, fault or f"{folder}, writable", runtime.own_folder()),
        Check(
            "disk space",
            free >= DATA_GIGABYTES,
            f"{free:.1f} GB free (needs {DATA_GIGABYTES:g})",
            f"free {DATA_GIGABYTES:g} GB, or set T2I_HOME to a folder on another disk",
        ),
        _check_files("text encoder", folder / "encoders", bert, restore),
        _check_files("trained weights", folder / "checkpoints", weights, restore),
        _check_files("results", folder / "results", sorted(results) or ["*.json"], restore),
        Check("scenes", made, scenes, required=False),
    ]


def _check_files(name: str, folder: Path, wanted: list[str], remedy: str) -> Check:
    """Is everything there that the notebooks read, and a card beside every network?"""
    cards = [f"{file.stem}.json" for file in folder.glob("*.safetensors")]
    missing = [file for file in dict.fromkeys(wanted + cards) if not (folder / file).is_file()]
    few = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    detail = f"missing: {few}" if missing else f"{len(wanted)} files"
    return Check(name, not missing, detail, remedy)
