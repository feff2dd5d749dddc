"""The training loop, to be read in one sitting.

`train` runs any objective: something with networks, optimizers and a `step` that turns a batch into
updates. The baseline is `MeanSquaredError`; a GAN is another objective in the same loop. Text
features come from an array with a row for each caption, so that no BERT runs here.

A run that was stopped, by Ctrl-C or by a power cut, goes on from its last checkpoint: networks,
optimizers, averages, schedules, batches and random generators are saved, and the resumed run ends
with the very weights of one that was not interrupted.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from t2i_course import checkpoints, runtime
from t2i_course.checkpoints import History, RunState, load_generator, save_weights
from t2i_course.data import Batch, CaptionBatches, PackedCaptions, to_float
from t2i_course.processes import (
    Place,
    TrainingBatch,
    distributed,
    find_place,
    no_exchange,
    progress_bar,
    stop_signals,
)

__all__ = [
    "History", "MeanSquaredError", "Objective", "STATE_FILE", "TrainingBatch", "TrainingConfig",
    "load_generator", "save_weights", "train", "validation_loss",
]  # fmt: skip

STATE_FILE = "training_state.pt"
READ_EVERY = 10  # steps between two looks at the losses: each look waits for the device
CHOICES = {"schedule": ("constant", "cosine"), "precision": ("auto", "float32", "bf16")}


@dataclass(frozen=True)
class TrainingConfig:
    """The plain numbers of a run. Where something happens every N steps, 0 is at the end only."""

    steps: int = 2000  # updates in all
    batch_size: int = 64  # images a step, over all processes
    accumulate: int = 1  # parts that each process takes its share of a step in, to save memory
    learning_rate: float = 1e-3  # the highest; the schedule multiplies it
    beta1: float = 0.9  # Adam's memory of the gradient
    beta2: float = 0.99  # Adam's memory of its square
    weight_decay: float = 0.0  # AdamW's
    warmup_steps: int = 50  # in which the rate rises from 0
    schedule: str = "cosine"  # then: "constant", or "cosine" down to 0 at the last step
    clip_norm: float = 1.0  # longer gradients are shortened to this; 0 for off
    average_decay: float = 0.999  # share of the old in averaged weights, at most; 0 for off
    seed: int = 0
    precision: str = "auto"  # "float32", "bf16", or "auto": bf16 where it is faster
    compile: bool = False  # by torch.compile, which takes minutes before the first step
    validate_every: int = 500
    validation_images: int = 512  # evenly spaced over the held-out images
    checkpoint_every: int = 500
    checkpoint_minutes: float = 0.0  # and whenever so many have passed; 0 for off
    draw_every: int = 0
    evaluate_every: int = 0
    flips: bool = False  # mirror pictures whose captions allow it

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that no run can be made of."""
        for name in ("steps", "batch_size", "accumulate", "validation_images", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("warmup_steps", "clip_norm", "validate_every", "checkpoint_every",
                     "checkpoint_minutes", "evaluate_every"):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0 to {2**32 - 1}, not {self.seed}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must be in [0, 1), not {self.average_decay}")
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")


class Objective(Protocol):
    """What the loop trains.

    Attributes:
        modules: name to network; "generator" is the one that draws.
        optimizers: name to optimizer.
        averaged: names of the modules of which averaged weights are kept.
        identity: numbers and texts that must be the same when a run is resumed.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averaged: tuple[str, ...]
    identity: dict[str, Any]

    def step(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Learn from a batch: call update(optimizer's name, loss); return the losses to record.

        It runs under autocast and returns the same names, of single numbers, at every step. With
        `accumulate` it is called for each part of a batch, and the optimizers move at the last.
        """

    def validate(self, batch: TrainingBatch, networks: dict[str, nn.Module]) -> Tensor:
        """Return the loss of each image, [B]; `networks` are in eval mode, averaged where kept."""


class MeanSquaredError:
    """The baseline: the picture should equal the training picture, pixel by pixel.

    L = mean (G(t) - x)^2. Its best answer to a caption is the mean of all pictures that fit it.
    """

    averaged = ("generator",)

    def __init__(self, generator: nn.Module, config: TrainingConfig) -> None:
        """Give the generator an AdamW optimizer (Loshchilov and Hutter, ICLR 2019)."""
        self.modules = {"generator": generator}
        self.optimizers = {
            "generator": torch.optim.AdamW(
                generator.parameters(),
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                weight_decay=config.weight_decay,
            )
        }
        self.identity = {"objective": "mean squared error"}

    def step(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Go one step down the gradient of the mean squared error."""
        images = self.modules["generator"](batch.text, batch.noise)  # [B, 3, S, S]
        loss = functional.mse_loss(images.float(), batch.images)
        update("generator", loss)
        return {"mse": loss.detach()}

    def validate(self, batch: TrainingBatch, networks: dict[str, nn.Module]) -> Tensor:
        """Return the mean squared error of each image, [B]."""
        images = networks["generator"](batch.text, batch.noise)  # [B, 3, S, S]
        return (images.float() - batch.images).square().mean(dim=(1, 2, 3))


def rate_factor(config: TrainingConfig, step: int) -> float:
    """Return what the learning rate is multiplied by in a step, counted from 0; in [0, 1]."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def averaged_copy(network: nn.Module, decay: float) -> AveragedModel:
    """Copy a network to keep averaged weights in: w' <- d w' + (1 - d) w.

    At step n, d = min(decay, (1 + n) / (10 + n)): with `decay` from the start, the average would
    show the first, random weights for a thousand steps.
    """

    @torch.no_grad()
    def blend(averages: list[Tensor], weights: list[Tensor], step: Tensor | int) -> None:
        d = min(decay, (1 + int(step)) / (10 + int(step)))
        torch._foreach_lerp_(averages, weights, 1 - d)

    return AveragedModel(network, multi_avg_fn=blend).eval()


def begin(
    objective: Objective, config: TrainingConfig, data: PackedCaptions, place: Place
) -> RunState:
    """Seed everything and put the parts of a new run together, on the device."""
    runtime.seed_everything(config.seed + place.rank)  # what networks draw differs by process,
    shared = torch.Generator().manual_seed(config.seed)  # what the run draws does not
    for network in objective.modules.values():
        network.to(place.device, memory_format=place.memory_format).train()
    kept = objective.averaged if config.average_decay else ()
    factor = lambda step: rate_factor(config, step)  # noqa: E731
    return RunState(
        networks=dict(objective.modules),
        averages={n: averaged_copy(objective.modules[n], config.average_decay) for n in kept},
        optimizers=objective.optimizers,
        schedules={name: LambdaLR(o, factor) for name, o in objective.optimizers.items()},
        batches=CaptionBatches(
            data, config.batch_size, shared, place.rank, place.processes, config.flips
        ),
        noise=shared,
        history=History(),
    )


def descend(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    clip_norm: float,
    place: Place,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Take one step of an optimizer down the gradient of a loss, clipped to a norm.

    With several parts of a batch, the gradients add up to their mean, and the last part moves.
    """
    if part == 0:
        optimizer.zero_grad()
    with torch.autocast(place.device.type, enabled=False):
        place.accelerator.backward(loss / parts)
    if part < parts - 1:
        return
    if clip_norm:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        nn.utils.clip_grad_norm_(weights, clip_norm)
    optimizer.step()
    torch.clear_autocast_cache()  # it holds bf16 copies of the weights as they were before


def learn(
    objective: Objective, batch: TrainingBatch, config: TrainingConfig, place: Place
) -> dict[str, Tensor]:
    """Let an objective learn from a batch, part by part; return the mean of its losses."""
    found, parts = [], config.accumulate
    for number, part in enumerate(batch.parts(parts)):

        def update(name: str, loss: Tensor, number: int = number) -> None:
            descend(objective.optimizers[name], loss, config.clip_norm, place, number, parts)

        more = number < parts - 1
        with no_exchange(objective.modules.values(), place, more), place.autocast():
            found.append(objective.step(part, update))
    return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}


def draw_noise(run: RunState, number: int, generator: torch.Generator) -> Tensor | None:
    """Draw noise [number, Z] for the generator; None if it takes none."""
    width = getattr(run.networks["generator"], "noise_dim", 0)
    return torch.randn(number, width, generator=generator) if width else None


@contextmanager
def judged(run: RunState) -> Iterator[dict[str, nn.Module]]:
    """Yield the networks to judge a run by, without gradients: averaged if kept, in eval mode."""
    networks = run.networks | {name: kept.module for name, kept in run.averages.items()}
    training = {name: network.training for name, network in networks.items()}
    with torch.no_grad():
        yield {name: network.eval() for name, network in networks.items()}
    for name, network in networks.items():
        network.train(training[name])


def validation_loss(
    objective: Objective,
    run: RunState,
    config: TrainingConfig,
    place: Place,
    data: PackedCaptions,
    text: np.ndarray | Tensor,
) -> float:
    """Average `Objective.validate` over a fixed part of the held-out images.

    The images are evenly spaced, each with one caption and one noise vector, the same every time.
    Each counts once, so that the result does not depend on the batch size.
    """
    number = min(config.validation_images, len(data))
    rows = torch.linspace(0, len(data) - 1, number, dtype=torch.float64).long()  # [N]
    generator = torch.Generator().manual_seed(0)
    first = torch.from_numpy(data.caption_starts)[rows]  # [N]
    count = torch.from_numpy(data.caption_starts)[rows + 1] - first  # [N]
    captions = first + (torch.rand(number, generator=generator) * count).long()  # [N]
    noise = draw_noise(run, number, generator)  # [N, Z]
    total = 0.0
    with judged(run) as networks, place.autocast():
        for part in torch.arange(number)[place.rank :: place.processes].split(config.batch_size):
            if not len(part):  # fewer images than processes
                continue
            images = to_float(torch.from_numpy(data.images[rows[part].numpy()]))
            texts = [data.all_captions[row] for row in captions[part].tolist()]
            batch = Batch(images, texts, captions[part], rows[part])
            part_noise = None if noise is None else noise[part]
            losses = objective.validate(place.batch(batch, text, part_noise, run.step), networks)
            total += losses.cpu().double().sum().item()
    return place.mean(torch.tensor(total)).item() * place.processes / number


def check_fit(generator: nn.Module, data: PackedCaptions, text: np.ndarray | Tensor) -> None:
    """Raise ValueError unless data, text features and generator fit each other."""
    rows, width = text.shape
    for what, found, needed in (
        (f"rows of text features for {data.key}", rows, len(data.all_captions)),
        ("width of the text features", width, generator.text_dim),
        ("side of the images", data.size, generator.image_size),
    ):
        if found != needed:
            raise ValueError(f"{what}: {found}, but {needed} are needed")


def record(
    run: RunState,
    config: TrainingConfig,
    losses: list[dict[str, Tensor]],
    seconds: float,
    place: Place,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Write the steps since the last look into the history, and empty the list of losses.

    Raises:
        FloatingPointError: a loss is infinite or not a number.
    """
    history, number = run.history, len(losses)
    first = run.step - number + 1
    for name in losses[0]:
        values = place.mean(torch.stack([loss[name].float() for loss in losses])).tolist()
        for step, value in enumerate(values, start=first):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss {name} became {value} at step {step}: lower the learning rate, or "
                    "take precision float32"
                )
        history.losses.setdefault(name, []).extend(values)
    base = next(iter(run.schedules.values())).base_lrs[0]
    history.steps += range(first, run.step + 1)
    history.learning_rates += [base * rate_factor(config, s - 1) for s in history.steps[-number:]]
    history.images_per_second += [number * config.batch_size / seconds] * number
    history.seconds += seconds
    losses.clear()
    if log is not None and place.rank == 0:
        for row in range(-number, 0):
            values = {name: found[row] for name, found in history.losses.items()}
            values["learning rate"] = history.learning_rates[row]
            log(history.steps[row], values | {"images per second": history.images_per_second[row]})


def show(
    draw: Callable[[int, nn.Module], None] | None,
    run: RunState,
    place: Place,
    everywhere: bool = False,
) -> None:
    """Let a callback draw or evaluate, and put the random generators back as they were.

    It is called in the first process only, unless `everywhere`.
    """
    if draw is None or (place.rank > 0 and not everywhere):
        return
    before = checkpoints.random_state(place.device)
    with judged(run) as networks:
        draw(run.step, networks["generator"])
    checkpoints.set_random_state(before, place.device)


def train(
    objective: Objective,
    config: TrainingConfig,
    train_data: PackedCaptions,
    val_data: PackedCaptions,
    train_text: np.ndarray | Tensor,
    val_text: np.ndarray | Tensor,
    *,
    run_folder: str | Path | None = None,
    resume: bool = False,
    encoder: str = "",
    draw: Callable[[int, nn.Module], None] | None = None,
    evaluate: Callable[[int, nn.Module], None] | None = None,
    log: Callable[[int, dict[str, float]], None] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> History:
    """Train, and leave the averaged weights in the objective's networks, in eval mode.

    Args:
        objective: networks and their losses, such as `MeanSquaredError(generator, config)`; a new
            one for each run.
        config: the numbers of the run.
        train_data: packed images and captions to learn from.
        val_data: packed held-out ones, for the validation loss.
        train_text: [N, D], features of train_data.all_captions, row by row.
        val_text: [M, D], features of val_data.all_captions.
        run_folder: where the checkpoint goes; None for none. With it, Ctrl-C and SIGTERM finish
            the step and save before KeyboardInterrupt is raised.
        resume: go on from the checkpoint in run_folder; if there is none, begin.
        encoder: fingerprint of what made the features; a run is not resumed with another.
        draw: called with (step, generator) before the first step, every `draw_every` steps and at
            the end. The generator has averaged weights and is in eval mode; what is drawn at
            random there does not touch the run.
        evaluate: called in the same way every `evaluate_every` steps and at the end, each time
            before the step's checkpoint: a run that is resumed leaves no evaluation out. Every
            process calls it, so that they can share the work.
        log: called in the first process with (step, {"mse": ..., ...}) for every step, some steps
            late, and with {"validation": ...}. A run that is resumed calls it again for the steps
            since its checkpoint.
        device: as `runtime.choose_device` takes it.
        progress: show a bar.

    Returns:
        What was measured, the resumed parts included.

    Raises:
        FileExistsError: run_folder holds a checkpoint, and `resume` was not asked for.
        ValueError: data, features and networks do not fit each other, a batch cannot be divided
            into equal parts, or the checkpoint belongs to another run or is cut short.
        FloatingPointError: a loss is no longer finite.
        KeyboardInterrupt: stopped; the message says what was saved.
    """
    file = None if run_folder is None else Path(run_folder) / STATE_FILE
    if file is not None and file.exists() and not resume:
        raise FileExistsError(f"{file} holds a run: resume it, or remove it to begin anew")
    check_fit(objective.modules["generator"], train_data, train_text)
    check_fit(objective.modules["generator"], val_data, val_text)
    place = find_place(device, config.precision)
    if place.device.type == "cpu":
        runtime.keep_freed_memory()
    if config.batch_size % (place.processes * config.accumulate):
        raise ValueError(
            f"a batch of {config.batch_size} cannot be shared by {place.processes} processes that "
            f"take it in {config.accumulate} parts: choose a multiple of their product"
        )
    run = begin(objective, config, train_data, place)
    data = {"training data": train_data.key, "validation data": val_data.key, "encoder": encoder}
    identity = checkpoints.run_identity(config, objective.modules, data | objective.identity)
    if file is not None and file.exists():
        checkpoints.resume_run(file, run, identity, place)

    if config.compile:
        for network in run.networks.values():
            network.compile()

    def due(every: int) -> bool:
        return run.step == config.steps or (every > 0 and run.step % every == 0)

    occasions = (READ_EVERY, config.validate_every, config.draw_every, config.evaluate_every,
                 config.checkpoint_every)  # fmt: skip
    losses: list[dict[str, Tensor]] = []  # of the steps since the last look
    with (
        warnings.catch_warnings(),
        distributed(objective.modules, place),
        stop_signals(file is not None) as received,
        progress_bar(run.step, config.steps, progress and place.rank == 0) as bar,
    ):
        # An optimizer may rest for some steps; the schedule is the run's, not the optimizer's.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        if run.step == 0:
            show(draw, run, place)
        last_look = last_save = time.perf_counter()
        while run.step < config.steps:
            asked = time.perf_counter()
            noise = place.share(draw_noise(run, config.batch_size, run.noise))  # drawn for all
            batch = place.batch(next(run.batches), train_text, noise, run.step + 1, run.noise)
            run.history.waiting += time.perf_counter() - asked
            losses.append(learn(objective, batch, config, place))
            for schedule in run.schedules.values():
                schedule.step()
            for name, kept in run.averages.items():
                kept.update_parameters(run.networks[name])
            run.step += 1
            bar.update()

            stopping = place.any_process(bool(received))
            if not (stopping or any(map(due, occasions))):
                continue
            record(run, config, losses, time.perf_counter() - last_look, place, log)
            bar.set_postfix({n: f"{values[-1]:.4f}" for n, values in run.history.losses.items()})
            if due(config.validate_every):
                value = validation_loss(objective, run, config, place, val_data, val_text)
                run.history.validation_steps.append(run.step)
                run.history.validation_losses.append(value)
                if log is not None and place.rank == 0:
                    log(run.step, {"validation": value})
            if due(config.draw_every):
                show(draw, run, place)
            if due(config.evaluate_every):
                show(evaluate, run, place, everywhere=True)
            minutes, passed = config.checkpoint_minutes, time.perf_counter() - last_save
            late = place.any_process(0 < 60 * minutes <= passed)
            if file is not None and (stopping or late or due(config.checkpoint_every)):
                checkpoints.save_run(file, run, identity, place)
                last_save = time.perf_counter()
            if stopping and run.step < config.steps:
                raise KeyboardInterrupt(f"stopped after step {run.step}, saved in {file}")
            last_look = time.perf_counter()
    for name, kept in run.averages.items():
        run.networks[name].load_state_dict(kept.module.state_dict())
    for network in run.networks.values():
        network.eval()
    return run.history
