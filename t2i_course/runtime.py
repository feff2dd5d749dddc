"""Where and how the course runs: settings, device, seeds, files.

Every other module and every notebook begins here. The settings come from environment variables, so
that one notebook serves a laptop without a GPU, a real data set and a GPU without an edit:

    T2I_PROFILE  fast (default) or full: how long the live training in a notebook lasts
    T2I_DATA     scenes (default), or the path of a folder in COCO's layout
    T2I_DEVICE   auto (default), cpu, cuda, cuda:1, mps
    T2I_SEED     a whole number, 0 by default
    T2I_HOME     a folder to use in place of the checkout's data/

On the command line an option goes before the variable, and the variable before the default.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import math
import os
import platform
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

try:
    import numpy as np
    import torch
except (ImportError, OSError):  # `python -m t2i_course doctor` must run without them, and say so
    np = torch = None

CHECKOUT = Path(__file__).resolve().parents[1]
PROFILES = ("fast", "full")
LEFTOVER_SECONDS = 24 * 3600

Choice = TypeVar("Choice")


# Files


def data_folder() -> Path:
    """Return the folder of everything that is not code: encoders, checkpoints, results, caches.

    Returns:
        The folder named by T2I_HOME, else `data/` of the checkout that the package runs from.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if home := os.environ.get("T2I_HOME"):
        folder = Path(home).expanduser().resolve()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"T2I_HOME names no folder: {folder}. Create it, or unset T2I_HOME."
            )
        return folder
    folder = CHECKOUT / "data"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no data folder at {folder}: the package does not run from the course's checkout. "
            "Run `python -m pip install -e .` in the checkout, or set T2I_HOME to its data folder."
        )
    return folder


def file_hash(file: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that nobody ever sees half of it.

    Args:
        path: where the file belongs. Its folder is made if missing.

    Yields:
        A free name in the same folder, with the same suffix, to write to. When the block ends it
        becomes `path`, replacing what was there; when the block raises it is removed.

    Raises:
        FileNotFoundError: the block wrote nothing.
        PermissionError: this user may not write there; with the remedy.
    """
    path = Path(path)
    partial = _partial_name(path)
    try:
        yield partial
        with open(partial, "r+b") as file:  # the name must not reach the disk before the bytes do
            os.fsync(file.fileno())
        os.replace(partial, path)
    except PermissionError as error:
        raise _forbidden(path.parent, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def atomic_array(
    path: str | os.PathLike[str], dtype: str | type, shape: tuple[int, ...]
) -> Iterator[np.memmap]:
    """Fill an array on disk, which appears as a file does by `atomic_file`.

    Yields:
        The array, mapped into memory.

    Raises:
        OSError: the disk has no room for it. This is said before any work: a write to a mapped
            file that finds no room would kill the process.
    """
    with atomic_file(path) as partial:
        needed = np.dtype(dtype).itemsize * math.prod(shape)
        if needed > shutil.disk_usage(partial.parent).free:
            text = f"{needed / 1e9:.3f} GB are needed, more than the disk has left"
            raise OSError(errno.ENOSPC, f"{text}: free some space, or set T2I_HOME", str(path))
        array = np.lib.format.open_memmap(partial, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # else the file takes its room page by page
            with open(partial, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        yield array
        array.flush()
        del array  # Windows renames no mapped file


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder so that it appears whole or not at all.

    Args:
        path: where the folder belongs.

    Yields:
        An empty folder beside it. When the block ends it becomes `path`; if `path` has appeared
        meanwhile, made by another process, that one stays and the new one is dropped.
    """
    path = Path(path)
    partial = _partial_name(path)
    try:
        partial.mkdir()
    except PermissionError as error:
        raise _forbidden(path.parent, error) from error
    try:
        yield partial
        try:
            os.rename(partial, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let one process at a time make a file, while the others wait; its folder is made if missing.

    Raises:
        PermissionError: this user may not write there; with the remedy.
    """
    import filelock  # `doctor` runs without it

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock")
        lock.acquire()
    except PermissionError as error:
        raise _forbidden(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def _forbidden(folder: Path, error: PermissionError) -> PermissionError:
    """What to do where this user may not write, such as in another user's checkout."""
    return PermissionError(
        f"{folder} cannot be written to ({error.strerror}): take a data folder of your own, "
        f"{own_folder()}"
    )


def own_folder() -> str:
    """What to type for a data folder of one's own."""
    return f"cp -r {CHECKOUT / 'data'} ~/t2i-data, and set T2I_HOME to it"


def _partial_name(path: Path) -> Path:
    """Return a free name beside `path`, and remove what killed processes left there long ago.

    The folder is made if missing.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise _forbidden(path.parent, error) from error
    for leftover in path.parent.glob(f".{path.stem}.partial-*{path.suffix}"):
        with contextlib.suppress(OSError):  # another process may be removing it, too
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return path.with_name(f".{path.stem}.partial-{secrets.token_hex(6)}{path.suffix}")


# Devices and numbers


def choose_device(name: str | None = None) -> torch.device:
    """Choose where tensors live: CUDA, then MPS, then the CPU.

    Args:
        name: "auto", "cpu", "mps", "cuda" or "cuda:1". None reads T2I_DEVICE.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    name = (name or os.environ.get("T2I_DEVICE") or "auto").strip().lower()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise ValueError(
            f"unknown device {name!r}: set T2I_DEVICE to auto, cpu, cuda, cuda:N or mps"
        )
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if int(index or 0) >= int(found[kind]):
        raise ValueError(
            f"no device {name!r} on this machine, which has {torch.cuda.device_count()} CUDA GPUs: "
            "unset T2I_DEVICE, or set it to cpu"
        )
    return torch.device(name)


def bf16_pays(device: torch.device | str) -> bool:
    """Say whether bfloat16 is faster than float32 on a device.

    It is where the hardware multiplies bfloat16 itself: CUDA GPUs since Ampere, and x86 processors
    with AVX512-BF16 or AMX. Elsewhere it is emulated, and slower.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if torch.version.hip:
            return True
        return torch.cuda.get_device_properties(device).major >= 8
    if device.type == "cpu":
        return not cpu_features().isdisjoint({"avx512_bf16", "amx_bf16"})
    return False


def most_memory() -> int | None:
    """Return the most bytes this process held: of a CUDA device if it used one, else of memory.

    None on Windows, where Python's library does not tell.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors, where the C library can be told (glibc).

    By default glibc gives every large block back at once, and the system hands out zeroed pages
    anew for the same tensor of the next step: a sixth of a training step on the CPU.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    no_mapping = mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too
    return bool(no_mapping and mallopt(-1, 2**31 - 1))  # M_TRIM_THRESHOLD: the heap stays


@functools.cache
def cpu_features() -> frozenset[str]:
    """Return the names of the processor's instruction sets, as far as they can be asked for."""
    if flags := _cpuinfo("flags") or _cpuinfo("Features"):
        return frozenset(flags.split())
    if hasattr(torch.cpu, "get_capabilities"):  # not Linux: a query that is younger than torch 2.11
        return frozenset(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    return frozenset()


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch, on every device.

    Args:
        seed: 0 to 2**32 - 1.

    Returns:
        A new generator on the CPU with the same seed, to pass to what draws random numbers.

    Raises:
        ValueError: the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed} is out of range: choose 0 to {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Settings:
    """What a run is told from outside.

    Attributes:
        profile: "fast" (minutes on two CPU cores) or "full".
        data: "scenes", or the absolute path of a folder in COCO's layout.
        device: where tensors live.
        seed: for `seed_everything`.
        autocast_dtype: `torch.bfloat16` where it is faster, else None (float32).
        memory_format: how convolutions want their images laid out on this device.
    """

    profile: str
    data: str
    device: torch.device
    seed: int
    autocast_dtype: torch.dtype | None
    memory_format: torch.memory_format

    def pick(self, *, fast: Choice, full: Choice) -> Choice:
        """Return the value for the profile: `settings.pick(fast=200, full=20_000)`."""
        return {"fast": fast, "full": full}[self.profile]


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from environment variables.

    Args:
        environment: the variables, `os.environ` if None.

    Raises:
        ValueError: a variable has a value that the course does not know.
        FileNotFoundError: T2I_DATA names no folder.
    """
    environment = os.environ if environment is None else environment
    profile = environment.get("T2I_PROFILE") or "fast"
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: set T2I_PROFILE to fast or full")
    seed = environment.get("T2I_SEED") or "0"
    if not (seed.isascii() and seed.isdecimal()) or int(seed) >= 2**32:
        raise ValueError(
            f"bad seed {seed!r}: give --seed or T2I_SEED a whole number, 0 to {2**32 - 1}"
        )
    device = choose_device(environment.get("T2I_DEVICE") or "auto")
    return Settings(
        profile=profile,
        data=_find_data(environment.get("T2I_DATA") or "scenes"),
        device=device,
        seed=int(seed),
        autocast_dtype=torch.bfloat16 if bf16_pays(device) else None,
        memory_format=torch.contiguous_format if device.type == "mps" else torch.channels_last,
    )


def _find_data(name: str) -> str:
    """Return "scenes" or an absolute path; a relative one counts from here or the checkout."""
    if name == "scenes":
        return name
    # A notebook's kernel runs in notebooks/, one below the folder where the path was typed.
    for folder in (Path.cwd(), CHECKOUT):
        if (folder / Path(name).expanduser()).is_dir():
            return str((folder / Path(name).expanduser()).resolve())
    raise FileNotFoundError(
        f"no data folder {name!r}: set T2I_DATA to scenes, or to the path of a folder with "
        "train2017/, val2017/ and annotations/captions_*.json"
    )


# The environment


@functools.cache
def hardware() -> str:
    """Describe the machine in a line, for model cards and the ledger.

    Returns:
        Such as "2-core x86_64 Intel Xeon Platinum 8488C, no GPU".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = f"{cores}-core {platform.machine()} {_processor_name()}".strip()
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {processor}"
    return f"{processor}, {'Apple GPU' if torch.backends.mps.is_available() else 'no GPU'}"


def _processor_name() -> str:
    """Return the processor's marketing name, or "" where the system does not tell."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return _cpuinfo("model name") or platform.processor()


def _cpuinfo(field: str) -> str:
    """Return a field of Linux's list of processors, "" elsewhere."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.partition(":")[0].strip() == field:
                return line.partition(":")[2].strip()
    return ""
