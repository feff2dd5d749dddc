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
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from t2i_course import checkpoints, runtime
from t2i_course.checkpoints import History, RunState
from t2i_course.data import CaptionBatches, PackedCaptions
from t2i_course.monitoring import Watch, draw_noise, show
from t2i_course.processes import (
    Place,
    TrainingBatch,
    distributed,
    find_place,
    no_exchange,
    progress_bar,
    stop_signals,
)

STATE_FILE = "training_state.pt"


def option(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field of a configuration that is an option of the command line, too.

    Its type is that of the default; of the choices, () means any.
    """
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class TrainingConfig:
    """The plain numbers of a run. Where something happens every N steps, 0 is at the end only."""

    steps: int = option(2000, "updates in all")
    batch_size: int = option(64, "images a step, over all processes")
    accumulate: int = option(1, "parts that each process takes its share of a step in, for memory")
    learning_rate: float = option(1e-3, "the highest; the schedule multiplies it")
    beta1: float = option(0.9, "Adam's memory of the gradient")
    beta2: float = option(0.99, "Adam's memory of its square")
    weight_decay: float = option(0.0, "AdamW's")
    warmup_steps: int = option(50, "in which the rate rises from 0")
    schedule: str = option("cosine", "then: down to 0 at the last step", ("constant", "cosine"))
    clip_norm: float = option(1.0, "longer gradients are shortened to this; 0 for off")
    average_decay: float = option(0.999, "share of the old in averaged weights; 0 for off")
    seed: int = 0
    precision: str = option("auto", "auto: bf16 where it is faster", ("auto", "float32", "bf16"))
    compile: bool = option(False, "by torch.compile, which takes minutes before the first step")
    validate_every: int = option(500, "steps between two validation losses")
    validation_images: int = option(512, "evenly spaced over the held-out images")
    checkpoint_every: int = option(500, "steps between two checkpoints")
    checkpoint_minutes: float = option(0.0, "and whenever so many have passed; 0 for off")
    draw_every: int = 0  # steps between two calls of `draw`
    evaluate_every: int = option(0, "steps between two evaluations of the pictures; 0 for none")
    flips: bool = option(False, "mirror every other photo, unless its caption says left or right")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that no run can be made of."""
        above = ("steps", "batch_size", "accumulate", "validation_images", "learning_rate")
        for entry in fields(self):
            name, value = entry.name, getattr(self, entry.name)
            known = entry.metadata.get("choices")
            if known and value not in known:
                raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
            if name in above and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
            if not known and not value >= 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
            if name in ("average_decay", "beta1", "beta2") and not value < 1:
                raise ValueError(f"{name} must be below 1, not {value}")

    def is_due(self, every: int, step: int) -> bool:
        """Say whether what happens every so many steps does after this one."""
        return step == self.steps or (every > 0 and step % every == 0)


class Objective(Protocol):
    """What the loop trains."""

    modules: dict[str, nn.Module]  # "generator" is the one that draws
    optimizers: dict[str, torch.optim.Optimizer]
    averaged: tuple[str, ...]  # names of the modules of which averaged weights are kept
    identity: dict[str, Any]  # numbers and texts that must be the same when a run is resumed

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


def next_batch(
    run: RunState, config: TrainingConfig, place: Place, text: np.ndarray | Tensor
) -> TrainingBatch:
    """Get a batch of pictures with their text features and noise, and note how long it took."""
    asked = time.perf_counter()
    noise = place.share(draw_noise(run, config.batch_size, run.noise))  # drawn for all
    batch = place.batch(next(run.batches), text, noise, run.step + 1, run.noise)
    run.history.waiting += time.perf_counter() - asked
    return batch


def take_step(
    objective: Objective,
    run: RunState,
    config: TrainingConfig,
    place: Place,
    text: np.ndarray | Tensor,
) -> dict[str, Tensor]:
    """Get a batch, learn from it, and bring schedules and averages up to date."""
    losses = learn(objective, next_batch(run, config, place, text), config, place)
    run.history.learning_rates += next(iter(run.schedules.values())).get_last_lr()[:1]
    for schedule in run.schedules.values():
        schedule.step()
    for name, kept in run.averages.items():
        kept.update_parameters(run.networks[name])
    run.step += 1
    return losses


def open_run(
    objective: Objective,
    config: TrainingConfig,
    data: PackedCaptions,
    watch: Watch,
    place: Place,
    resume: bool,
) -> RunState:
    """Begin a run, or go on with the one in the watch's file if there is one.

    Raises:
        FileExistsError: there is one, and `resume` was not asked for.
        ValueError: it is another one, or a batch cannot be divided into equal parts.
    """
    file = watch.file
    if file is not None and file.exists() and not resume:
        raise FileExistsError(f"{file} holds a run: resume it, or remove it to begin anew")
    if config.batch_size % (place.processes * config.accumulate):
        raise ValueError(
            f"a batch of {config.batch_size} cannot be shared by {place.processes} processes that "
            f"take it in {config.accumulate} parts: choose a multiple of their product"
        )
    if place.device.type == "cpu":
        runtime.keep_freed_memory()
    run = begin(objective, config, data, place)
    keys = {"training data": data.key, "validation data": watch.val_data.key}
    more = watch.identity | keys | objective.identity
    watch.identity = checkpoints.run_identity(config, objective.modules, more)
    if file is not None and file.exists():
        checkpoints.resume_run(file, run, watch.identity, place)
    if config.compile:
        for network in run.networks.values():
            network.compile()
    return run


def keep_averages(run: RunState) -> None:
    """Give the networks their averaged weights, at the end of a run, and leave training mode."""
    for name, network in run.networks.items():
        if name in run.averages:
            network.load_state_dict(run.averages[name].module.state_dict())
        network.eval()


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
        objective: networks and their losses, a new one for each run.
        config: the numbers of the run.
        train_data: packed images and captions to learn from.
        val_data: held-out ones, for the validation loss.
        train_text: [N, D], features of train_data.all_captions, row by row.
        val_text: [M, D], features of val_data.all_captions.
        run_folder: where the run is saved, regularly and when it is stopped; None for nowhere.
        resume: go on from what is saved there; if there is nothing, begin.
        encoder: fingerprint of what made the features; a run is not resumed with another.
        draw: called with (step, generator) now and then, as `monitoring.Watch` says.
        evaluate: the same.
        log: called with (step, losses), as it says there.
        device: as `runtime.choose_device` takes it.
        progress: show a bar.

    Raises:
        FileExistsError, ValueError, FloatingPointError: as `check_fit`, `open_run`, `record`.
        KeyboardInterrupt: stopped, by a signal of `processes.STOPS`, and saved.
    """
    for data, text in ((train_data, train_text), (val_data, val_text)):
        check_fit(objective.modules["generator"], data, text)
    place = find_place(device, config.precision)
    file = None if run_folder is None else Path(run_folder) / STATE_FILE
    watch = Watch(val_data, val_text, draw, evaluate, log, file, {"encoder": encoder})
    run = open_run(objective, config, train_data, watch, place, resume)
    with (
        distributed(objective.modules, place),
        stop_signals(file is not None) as received,
        progress_bar(run.step, config.steps, progress and place.rank == 0) as bar,
    ):
        show(draw if run.step == 0 else None, run, place)
        while run.step < config.steps:
            watch.losses.append(take_step(objective, run, config, place, train_text))
            stop = place.any_process(bool(received))
            watch.after_step(objective, run, config, place, bar, stop)
    keep_averages(run)
    return run.history
