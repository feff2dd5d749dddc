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
    """Return the folder of all that is not code: T2I_HOME, else `data/` of the checkout.

    Raises:
        FileNotFoundError: it does not exist.
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
    """Write a file so that nobody ever sees half of it; its folder is made if missing.

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
        with _remedy(path.parent):
            yield partial
            with open(partial, "r+b") as file:  # the name must not reach the disk before the bytes
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def atomic_array(
    path: str | os.PathLike[str], dtype: str | type, shape: tuple[int, ...]
) -> Iterator[np.memmap]:
    """Fill an array on disk, mapped into memory, which appears as a file does by `atomic_file`.

    Raises:
        OSError: the disk has no room for it: a write to a mapped file would kill the process.
    """
    with atomic_file(path) as partial:
        needed = np.dtype(dtype).itemsize * math.prod(shape)
        if needed > shutil.disk_usage(partial.parent).free:
            text = f"{needed / 1e9:.3f} GB are needed, more than the disk has left"
            raise OSError(errno.ENOSPC, f"{text}: free some space, or set T2I_HOME", str(path))
        array = np.lib.format.open_memmap(partial, "w+", dtype, shape)
        yield array
        array.flush()
        del array  # Windows renames no mapped file


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder so that it appears whole or not at all.

    Yields:
        An empty folder beside `path`. When the block ends it becomes `path`; if that has appeared
        meanwhile, made by another process, the new one is dropped.
    """
    path = Path(path)
    partial = _partial_name(path)
    with _remedy(path.parent):
        partial.mkdir()
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
    with _remedy(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock").acquire()
    with lock:
        yield


@contextlib.contextmanager
def _remedy(folder: Path) -> Iterator[None]:
    """Say what to do where this user may not write, such as in another user's checkout."""
    try:
        yield
    except PermissionError as error:
        raise PermissionError(
            f"{folder} cannot be written to ({error.strerror}): take a data folder of your own, "
            f"{own_folder()}"
        ) from error


def own_folder() -> str:
    """What to type for a data folder of one's own."""
    return f"cp -r {CHECKOUT / 'data'} ~/t2i-data, and set T2I_HOME to it"


def _partial_name(path: Path) -> Path:
    """A free name in the folder, which is made; what killed processes left there long ago goes."""
    with _remedy(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.stem}.partial-*{path.suffix}"):
        with contextlib.suppress(OSError):  # another process may be removing it, too
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return path.with_name(f".{path.stem}.partial-{secrets.token_hex(6)}{path.suffix}")


# Devices and numbers


def choose_device(name: str | None = None) -> torch.device:
    """Choose where tensors live: "auto" is CUDA, then MPS, then the CPU; None reads T2I_DEVICE.

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
    with AVX512-BF16 or AMX (asked on Linux alone). Elsewhere it is emulated, and slower.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= 8
    return device.type == "cpu" and not cpu_features().isdisjoint({"avx512_bf16", "amx_bf16"})


def most_memory() -> int | None:
    """Return the most bytes this process held, on CUDA or in memory; None on Windows."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors, where the C library is glibc.

    By default it gives every large block back at once, and the system hands out zeroed pages anew
    for the same tensor of the next step: a sixth of a training step on the CPU.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap stays


def cpu_features() -> set[str]:
    """Return the names of the processor's instruction sets; none where Linux does not tell."""
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


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
    """What a run is told from outside."""

    profile: str  # "fast" (minutes on two CPU cores) or "full"
    data: str  # "scenes", or the absolute path of a folder in COCO's layout
    device: torch.device
    seed: int
    autocast_dtype: torch.dtype | None  # `torch.bfloat16` where it is faster, else None (float32)
    memory_format: torch.memory_format  # how convolutions want their images on this device

    def pick(self, *, fast: Choice, full: Choice) -> Choice:
        """Return the value for the profile: `settings.pick(fast=200, full=20_000)`."""
        return {"fast": fast, "full": full}[self.profile]


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from environment variables, those of `os.environ` if None are given.

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
    """Describe the machine: "2-core x86_64 Intel Xeon Platinum 8488C, no GPU"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _cpuinfo("model name") or platform.processor()
    processor = f"{cores}-core {platform.machine()} {name}".strip()
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {processor}"
    return f"{processor}, {'Apple GPU' if torch.backends.mps.is_available() else 'no GPU'}"


@functools.cache
def _cpuinfo(field: str) -> str:
    """Return a field of Linux's list of processors, "" elsewhere."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            if line.partition(":")[0].strip() == field:
                return line.partition(":")[2].strip()
    return ""
