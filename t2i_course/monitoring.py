"""What is looked at between the steps of a run: losses, the validation loss, drawn pictures.

`Watch` stands beside the loop of `t2i_course.training` and says what is due. An objective and a
config are those of that module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2i_course import checkpoints
from t2i_course.checkpoints import RunState
from t2i_course.data import Batch, PackedCaptions, to_float
from t2i_course.processes import Place

READ_EVERY = 10  # steps between two looks at the losses: each look waits for the device


def draw_noise(run: RunState, number: int, generator: torch.Generator) -> Tensor | None:
    """Draw noise [number, Z] for the generator; None if it takes none."""
    width = getattr(run.networks["generator"], "noise_dim", 0)
    return torch.randn(number, width, generator=generator) if width else None


@contextmanager
def shown_networks(run: RunState) -> Iterator[dict[str, nn.Module]]:
    """Yield the networks that a run shows, without gradients: averaged if kept, in eval mode."""
    networks = run.networks | {name: kept.module for name, kept in run.averages.items()}
    training = {name: network.training for name, network in networks.items()}
    with torch.no_grad():
        yield {name: network.eval() for name, network in networks.items()}
    for name, network in networks.items():
        network.train(training[name])


def validation_loss(
    objective: Any,
    run: RunState,
    config: Any,
    place: Place,
    data: PackedCaptions,
    text: np.ndarray | Tensor,
) -> float:
    """Average `Objective.validate` over a fixed part of the held-out images, evenly spaced.

    Each counts once, with the same caption and noise every time, whatever the batch size.

    Raises:
        FloatingPointError: it is infinite or not a number.
    """
    number = min(config.validation_images, len(data))
    rows = torch.linspace(0, len(data) - 1, number, dtype=torch.float64).long()  # [N]
    generator = torch.Generator().manual_seed(0)
    first = torch.from_numpy(data.caption_starts)[rows]  # [N]
    count = torch.from_numpy(data.caption_starts)[rows + 1] - first  # [N]
    captions = first + (torch.rand(number, generator=generator) * count).long()  # [N]
    noise = draw_noise(run, number, generator)  # [N, Z]
    total = 0.0
    with shown_networks(run) as networks, place.autocast():
        for part in torch.arange(number)[place.rank :: place.processes].split(config.batch_size):
            if not len(part):  # fewer images than processes
                continue
            images = to_float(torch.from_numpy(data.images[rows[part].numpy()]))
            texts = [data.all_captions[row] for row in captions[part].tolist()]
            batch = Batch(images, texts, captions[part], rows[part])
            part_noise = None if noise is None else noise[part]
            losses = objective.validate(place.batch(batch, text, part_noise, run.step), networks)
            total += losses.cpu().double().sum().item()
    loss = place.mean(torch.tensor(total)).item() * place.processes / number
    check_finite("validation loss", loss, run.step)
    return loss


def check_finite(name: str, value: float, step: int) -> None:
    """Raise FloatingPointError, with what to do, where a loss is infinite or not a number."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} became {value} at step {step}: lower the learning rate, or take "
            "precision float32"
        )


def record(
    run: RunState,
    config: Any,
    losses: list[dict[str, Tensor]],
    seconds: float,
    place: Place,
    log: Callable[[int, dict[str, float]], None] | None,
) -> None:
    """Write the steps since the last look into the history and the log; empty the list of losses.

    Raises:
        FloatingPointError: a loss is infinite or not a number.
    """
    history, number = run.history, len(losses)
    first = run.step - number + 1
    for name in losses[0]:
        values = place.mean(torch.stack([loss[name].float() for loss in losses])).tolist()
        for step, value in enumerate(values, start=first):
            check_finite(f"loss {name}", value, step)
        history.losses.setdefault(name, []).extend(values)
    history.steps += range(first, run.step + 1)
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
    """Let a callback draw, in the first process or everywhere, without a trace in random states."""
    if draw is None or (place.rank > 0 and not everywhere):
        return
    before = checkpoints.random_state(place.device)
    with shown_networks(run) as networks:
        draw(run.step, networks["generator"])
    checkpoints.set_random_state(before, place.device)


@dataclass
class Watch:
    """What happens between steps: losses are written down, others validate, draw, and save.

    Attributes:
        val_data: packed held-out images and captions, for the validation loss.
        val_text: [M, D], features of val_data.all_captions.
        draw: called with (step, generator) before the first step, every `draw_every` steps and at
            the end. The generator has averaged weights and is in eval mode; what is drawn at
            random there does not touch the run.
        evaluate: called so every `evaluate_every` steps and at the end, by every process, before
            the step's checkpoint: a run that is resumed leaves no evaluation out.
        log: called in the first process with (step, {"mse": ..., ...}) for every step, some steps
            late, and with {"validation": ...}; after a resume again for those since the checkpoint.
        file: where the run is saved; None for nowhere.
    """

    val_data: PackedCaptions
    val_text: np.ndarray | Tensor
    draw: Callable[[int, nn.Module], None] | None
    evaluate: Callable[[int, nn.Module], None] | None
    log: Callable[[int, dict[str, float]], None] | None
    file: Path | None
    identity: dict[str, Any]  # of the run, for `checkpoints.save_run`
    losses: list[dict[str, Tensor]] = field(default_factory=list)  # since the last look
    looked: float = field(default_factory=time.perf_counter)  # when that was
    saved: float = field(default_factory=time.perf_counter)

    def after_step(
        self,
        objective: Any,
        run: RunState,
        config: Any,
        place: Place,
        bar: tqdm,
        stop: bool,
    ) -> None:
        """Do what is due after a step; to stop, save.

        Raises:
            FloatingPointError: a loss is no longer finite.
            KeyboardInterrupt: `stop`, and the run is not at its end.
        """
        bar.update()
        if not (stop or self.anything_due(config, run.step)):
            return
        record(run, config, self.losses, time.perf_counter() - self.looked, place, self.log)
        bar.set_postfix({n: f"{values[-1]:.4f}" for n, values in run.history.losses.items()})
        if config.is_due(config.validate_every, run.step):
            self.validate(objective, run, config, place)
        if config.is_due(config.draw_every, run.step):
            show(self.draw, run, place)
        if config.is_due(config.evaluate_every, run.step):
            show(self.evaluate, run, place, everywhere=True)
        if self.must_save(run, config, place, stop):
            checkpoints.save_run(self.file, run, self.identity, place)
            self.saved = time.perf_counter()
        if stop and run.step < config.steps:
            raise KeyboardInterrupt(f"stopped after step {run.step}, saved in {self.file}")
        self.looked = time.perf_counter()

    def anything_due(self, config: Any, step: int) -> bool:
        """Say whether there is anything to do after a step; every tenth, the losses are read."""
        occasions = (READ_EVERY, config.validate_every, config.draw_every, config.evaluate_every,
                     config.checkpoint_every)  # fmt: skip
        return any(config.is_due(every, step) for every in occasions)

    def validate(self, objective: Any, run: RunState, config: Any, place: Place) -> None:
        """Put the validation loss into the history, and log it."""
        value = validation_loss(objective, run, config, place, self.val_data, self.val_text)
        run.history.validation_steps.append(run.step)
        run.history.validation_losses.append(value)
        if self.log is not None and place.rank == 0:
            self.log(run.step, {"validation": value})

    def must_save(self, run: RunState, config: Any, place: Place, stop: bool) -> bool:
        """Say whether the run is saved after this step; every process must ask."""
        passed = time.perf_counter() - self.saved
        late = place.any_process(0 < 60 * config.checkpoint_minutes <= passed)
        due = stop or late or config.is_due(config.checkpoint_every, run.step)
        return self.file is not None and due
