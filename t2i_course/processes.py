"""Where a run computes, and how it is stopped: processes, device, number format, signals, a lock.

Several processes, on several GPUs or machines, are started by `accelerate launch` or torchrun; a
single one is started like any program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.data import Batch
from t2i_course.text_cache import EmbeddedCaptions
from t2i_course.text_encoder import TextFeatures

# Ctrl-C, `kill`, the end of a terminal, and what a cluster sends before it takes the machine
STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
PATIENCE = 6  # hours that processes wait for one of them, which may be judging 30,000 pictures


@dataclass(frozen=True)
class TrainingBatch(Batch):
    """A `data.Batch` on the device, with what a generator takes."""

    text: TextFeatures | Tensor  # of the captions: sentences [B, D], float32, or with their words
    noise: Tensor | None  # [B, Z], or None for a generator without noise
    step: int  # from 1
    chance: torch.Generator | None = None  # of `draw`, on the CPU; torch's global one if None
    rank: int = 0  # of this process
    processes: int = 1  # that share the step

    def draw(self, *shape: int) -> Tensor:
        """Draw numbers in [0, 1) for each picture: [B, *shape], float64, on the CPU.

        All processes draw for all, and each takes the rows of its pictures: two processes with half
        the batch each draw what one draws with the whole.
        """
        size = (len(self.text) * self.processes, *shape)
        drawn = torch.rand(size, generator=self.chance, dtype=torch.float64)
        return drawn.chunk(self.processes)[self.rank]

    def draw_noise(self, *shape: int) -> Tensor:
        """Draw more noise for each picture, standard normal: [B, *shape], as `noise` is."""
        return torch.special.ndtri(self.draw(*shape)).to(self.noise)

    def parts(self, number: int) -> list[TrainingBatch]:
        """Divide the batch into so many of equal size, for a step that does not fit the memory."""
        size = len(self.captions) // number
        rows = [slice(start, start + size) for start in range(0, number * size, size)]
        return [
            replace(
                self, images=self.images[part], captions=self.captions[part],
                caption_rows=self.caption_rows[part], image_rows=self.image_rows[part],
                text=self.text[part], noise=None if self.noise is None else self.noise[part],
            )
            for part in rows
        ]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a run computes."""

    accelerator: Accelerator  # joins the processes; it does not choose the device of a single one
    device: torch.device  # of networks and batches
    autocast_dtype: torch.dtype | None  # of convolutions and matrix products; None for float32
    memory_format: torch.memory_format  # of images and the weights of convolutions

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return self.accelerator.process_index

    @property
    def processes(self) -> int:
        """How many processes take part."""
        return self.accelerator.num_processes

    def autocast(self) -> torch.autocast:
        """Let convolutions and matrix products run in bfloat16 where the run does so."""
        on = self.autocast_dtype is not None
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=on)

    def batch(
        self,
        batch: Batch,
        text: np.ndarray | Tensor | EmbeddedCaptions,
        noise: Tensor | None,
        step: int,
        chance: torch.Generator | None = None,
    ) -> TrainingBatch:
        """Bring a batch to the device, with its rows of the features [N, D] of all captions.

        `chance` is at the same state in every process; see `TrainingBatch.draw`.
        """
        features = text[batch.caption_rows.numpy()]  # [B, D], or TextFeatures
        if not isinstance(features, TextFeatures):
            features = torch.as_tensor(features, dtype=torch.float32)
        return TrainingBatch(
            batch.images.to(self.device, memory_format=self.memory_format),
            batch.captions,
            batch.caption_rows,
            batch.image_rows,
            text=features.to(self.device),
            noise=None if noise is None else noise.to(self.device),
            step=step,
            chance=chance,
            rank=self.rank,
            processes=self.processes,
        )

    def share(self, values: Tensor | None) -> Tensor | None:
        """Return this process's rows of a tensor for all processes; None stays None."""
        return values if values is None else values.chunk(self.processes)[self.rank]

    def any_process(self, asked: bool) -> bool:
        """Say whether any process asks; every process must come here in the same step."""
        if self.processes == 1:
            return asked
        if asked:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def mean(self, values: Tensor) -> Tensor:
        """Average a tensor over the processes."""
        if self.processes == 1:
            return values
        return self.accelerator.reduce(values.to(self.device, torch.float32), "mean")


def find_place(device_name: str | None = None, precision: str = "auto") -> Place:
    """Choose the device and the number format, and join the other processes if there are any.

    Raises:
        ValueError: an unknown device or precision, or processes that do not find each other.
    """
    device = runtime.choose_device(device_name)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        cpu=started > 1 and device.type == "cpu",
        device_placement=False,  # a single process may use any device, "cuda:1" for one
        mixed_precision="no",  # the training loop writes its autocast out
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=PATIENCE))],
    )
    if accelerator.num_processes != started:
        raise ValueError(
            f"{started} processes were started, but {accelerator.num_processes} found each other: "
            "start them with `accelerate launch` or torchrun, on the CPU with "
            "ACCELERATE_USE_CPU=true"
        )
    device = accelerator.device if started > 1 else device
    usual = runtime.settings({"T2I_DEVICE": str(device)})
    dtypes = {"auto": usual.autocast_dtype, "float32": None, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(dtypes)}")
    return Place(accelerator, device, dtypes[precision], usual.memory_format)


def without_wrapping(network: nn.Module) -> nn.Module:
    """Return the network that `distributed` may have wrapped.

    A wrapped network counts on a gradient for all its weights after every call, and a discriminator
    that only judges for the generator gets none.
    """
    return network.module if isinstance(network, DistributedDataParallel) else network


@contextlib.contextmanager
def distributed(modules: dict[str, nn.Module], place: Place) -> Iterator[None]:
    """Wrap networks so that several processes share their gradients, and unwrap them at the end.

    Meanwhile cuDNN is held to its deterministic algorithms, without which two runs would differ.
    """
    bare, deterministic = dict(modules), torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    if place.processes > 1:
        modules.update({n: place.accelerator.prepare(network) for n, network in bare.items()})
    try:
        yield
    finally:
        modules.update(bare)
        torch.backends.cudnn.deterministic = deterministic


def progress_bar(done: int, steps: int, shown: bool) -> tqdm:
    """Return a bar of steps that begins where the run does."""
    return tqdm(total=steps, initial=done, desc="training", unit="step", disable=not shown)


@contextlib.contextmanager
def no_exchange(modules: Iterable[nn.Module], place: Place, wanted: bool) -> Iterator[None]:
    """Keep the gradients of a part of a batch in each process, if wanted, until the last part."""
    with contextlib.ExitStack() as stack:
        for network in modules if wanted and place.processes > 1 else ():
            stack.enter_context(place.accelerator.no_sync(network))
        yield


@contextlib.contextmanager
def stop_signals(enabled: bool = True) -> Iterator[list[int]]:
    """Collect the signals of `STOPS` in a list, so that a step can be finished and saved.

    The second signal raises KeyboardInterrupt at once. In other threads nothing is collected.
    """
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt("stopped at once; the checkpoint before is whole")
        received.append(number)

    if not enabled or threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    if "SIGHUP" in dir(signal) and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # `nohup` has the end of a terminal ignored: so it stays
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the lock ends with this process in any case.

    Raises:
        BlockingIOError: another process has it.
    """
    file = runtime.data_folder() / "cache" / f"run-{folder.name}.lock"
    file.parent.mkdir(exist_ok=True)
    try:
        lock = filelock.FileLock(file).acquire(blocking=False)
    except filelock.Timeout:
        raise BlockingIOError(
            f"another process is at work in {folder}: wait for its end, or name another --output"
        ) from None
    with lock:
        yield
