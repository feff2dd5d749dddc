import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from t2i_course import runtime

CHECKOUT = Path(__file__).resolve().parents[1]


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_data_folder_is_the_checkouts_own_unless_t2i_home_names_another(monkeypatch, tmp_path):
    monkeypatch.delenv("T2I_HOME", raising=False)
    assert runtime.data_folder() == CHECKOUT / "data"
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    assert runtime.data_folder() == tmp_path.resolve()


def test_missing_data_folder_is_named_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"T2I_HOME.*gone.*unset"):
        runtime.data_folder()
    monkeypatch.delenv("T2I_HOME")
    monkeypatch.setattr(runtime, "CHECKOUT", tmp_path)
    with pytest.raises(FileNotFoundError, match="pip install -e"):
        runtime.data_folder()


def test_atomic_file_replaces_the_old_one_only_at_the_end_and_keeps_its_suffix(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with runtime.atomic_file(target) as partial:
        assert partial.parent == target.parent and partial.suffix == ".txt"
        partial.write_text("old")
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), runtime.atomic_file(target) as partial:
        partial.write_text("new")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and names(target.parent) == ["a.txt"]


def test_atomic_array_appears_filled_or_not_at_all(tmp_path, monkeypatch):
    with runtime.atomic_array(tmp_path / "a.npy", "float16", (3, 2)) as array:
        array[:] = 7
        assert not (tmp_path / "a.npy").exists()
    assert np.load(tmp_path / "a.npy").tolist() == [[7, 7]] * 3
    with pytest.raises(ZeroDivisionError), runtime.atomic_array(tmp_path / "b.npy", "u1", (9,)):
        1 / 0  # noqa: B018
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match="0.001 GB are needed, more than the disk has left"):
        with runtime.atomic_array(tmp_path / "c.npy", "u1", (1_000_000,)):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]


def test_lock_keeps_others_out_and_makes_the_folder(tmp_path):
    path = tmp_path / "cache" / "a.npy"
    other = FileLock(f"{path}.lock", timeout=0)
    with runtime.locked(path), pytest.raises(Timeout):
        other.acquire()
    with other:
        assert not path.exists()


def test_writer_killed_in_the_middle_leaves_no_target(tmp_path):
    code = (
        "import os, sys; from t2i_course.runtime import atomic_file\n"
        "with atomic_file(sys.argv[1]) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    target = tmp_path / "a.txt"
    if sys.platform == "win32":
        code = code.replace("os.kill(os.getpid(), 9)", "os._exit(9)")
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert not target.exists()
    (leftover,) = tmp_path.iterdir()
    with runtime.atomic_file(target) as partial:
        partial.write_text("whole")
    assert leftover.exists(), "a fresh leftover may belong to a running process"
    long_ago = time.time() - 2 * runtime.LEFTOVER_SECONDS
    os.utime(leftover, (long_ago, long_ago))
    with runtime.atomic_file(target) as partial:
        partial.write_text("whole")
    assert names(tmp_path) == ["a.txt"]


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "scenes"
    with pytest.raises(OSError, match="disk full"), runtime.atomic_folder(target) as partial:
        (partial / "one").touch()
        raise OSError("disk full")
    assert names(tmp_path) == []
    with runtime.atomic_folder(target) as partial:
        (partial / "one").touch()
        assert not target.exists()
    with runtime.atomic_folder(target) as partial:  # another process was faster
        (partial / "two").touch()
    assert names(tmp_path) == ["scenes"] and names(target) == ["one"]


def test_best_device_is_chosen_and_a_name_overrides_it(monkeypatch):
    monkeypatch.delenv("T2I_DEVICE", raising=False)
    best = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.backends.mps.is_available():
        best = "mps"
    assert runtime.choose_device().type == best
    assert runtime.choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("T2I_DEVICE", "cpu")
    assert runtime.choose_device() == torch.device("cpu")
    assert runtime.choose_device("auto").type == best


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "cuda:99"])
def test_unknown_or_absent_device_is_refused_with_a_remedy(name):
    with pytest.raises(ValueError, match="T2I_DEVICE"):
        runtime.choose_device(name)


def test_bfloat16_pays_exactly_where_the_processor_multiplies_it(monkeypatch):
    for features, pays in (({"avx2"}, False), ({"avx512_bf16"}, True), ({"amx_bf16"}, True)):
        monkeypatch.setattr(runtime, "cpu_features", lambda features=features: features)
        assert runtime.bf16_pays("cpu") is pays
        dtype = runtime.settings({"T2I_DEVICE": "cpu"}).autocast_dtype
        assert dtype == (torch.bfloat16 if pays else None)
    assert runtime.bf16_pays("mps") is False


def test_same_seed_same_numbers_in_every_library():
    def draw(seed):
        generator = runtime.seed_everything(seed)
        drawn = torch.rand(()), torch.rand((), generator=generator)
        return random.random(), np.random.rand(), *map(float, drawn)

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="out of range"):
        runtime.seed_everything(seed)


def test_settings_have_defaults_and_read_every_variable(tmp_path):
    default = runtime.settings({})
    assert (default.profile, default.data, default.seed) == ("fast", "scenes", 0)
    told = runtime.settings({"T2I_PROFILE": "full", "T2I_DATA": str(tmp_path), "T2I_SEED": "7",
                             "T2I_DEVICE": "cpu"})  # fmt: skip
    assert (told.profile, told.data, told.seed) == ("full", str(tmp_path.resolve()), 7)
    assert told.device == torch.device("cpu") and told.memory_format == torch.channels_last
    assert default.pick(fast=1, full=2) == 1 and told.pick(fast=1, full=2) == 2
    assert "\n" not in runtime.hardware() and "-core" in runtime.hardware()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("T2I_PROFILE", "quick"), ("T2I_SEED", "-1"), ("T2I_SEED", str(2**32)), ("T2I_DEVICE", "gpu")],
)
def test_unknown_value_of_a_variable_is_named(variable, value):
    with pytest.raises(ValueError, match=variable) as caught:
        runtime.settings({variable: value})
    assert value in str(caught.value)


def test_missing_data_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data folder.*T2I_DATA"):
        runtime.settings({"T2I_DATA": str(tmp_path / "coco")})


def test_relative_data_path_counts_from_the_checkout_in_a_notebook(monkeypatch):
    monkeypatch.chdir(CHECKOUT / "tests")  # a notebook's kernel runs in notebooks/
    assert runtime.settings({"T2I_DATA": "data"}).data == str(CHECKOUT / "data")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's threads are Linux's")
def test_idle_threads_sleep_soon_where_the_package_is_imported_before_torch():
    """GNU's library tells what it has read; in a process of its own, as a kernel is."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    variables = {name: value for name, value in os.environ.items() if name not in names}
    code = [sys.executable, "-c", "import t2i_course, torch"]
    told = subprocess.run(
        code, env=variables | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True
    ).stderr
    if "GOMP_SPINCOUNT" not in told:
        pytest.skip("torch brings other threads than GNU's")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told and "GOMP_SPINCOUNT = '20000'" in told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_memory_is_used_again():
    """In a process of its own: the page faults of a tensor that is made again and again."""
    code = (
        "import resource, sys, torch\n"
        "from t2i_course import runtime\n"
        "if sys.argv[1] == 'keep': runtime.keep_freed_memory()\n"
        "torch.zeros(12_000_000).add_(1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.zeros(12_000_000).add_(1)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {
        how: int(subprocess.run([sys.executable, "-c", code, how], check=True,
                                capture_output=True, text=True).stdout)
        for how in ("keep", "default")
    }  # fmt: skip
    assert faults["keep"] < faults["default"] / 4


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
@pytest.mark.parametrize("write", [runtime.atomic_file, runtime.atomic_folder, runtime.locked])
def test_who_may_not_write_is_told_to_take_a_folder_of_their_own(tmp_path, write):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for place in (closed / "a", closed / "new" / "a"):
        with pytest.raises(PermissionError, match="set T2I_HOME"), write(place) as partial:
            partial.touch()
