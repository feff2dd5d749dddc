"""What a run leaves on disk: its state, to go on from, and its weights, to draw with.

The state is one file of tensors and plain values, read with `weights_only=True`. Weights are a
safetensors file with a model card in JSON beside it. Nothing is ever unpickled, everything is
written under a temporary name first.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from t2i_course import runtime
from t2i_course.data import CaptionBatches
from t2i_course.image_decoder import DECODERS
from t2i_course.processes import Place

# on resume: they do not touch the weights
FREE_TO_CHANGE = {"checkpoint_every", "checkpoint_minutes", "draw_every", "evaluate_every"}
CARD_FIELDS = (
    "model", "config", "encoder", "data", "command", "steps", "seconds", "hardware", "metrics",
    "license", "sha256",
)  # fmt: skip

# The state of a run


@dataclass
class History:
    """What was measured: a value for each step, or for each validation."""

    steps: list[int] = field(default_factory=list)  # 1, 2, 3, ...
    losses: dict[str, list[float]] = field(default_factory=dict)  # as Objective.step named them
    learning_rates: list[float] = field(default_factory=list)  # of the first optimizer
    images_per_second: list[float] = field(default_factory=list)  # since the look before
    validation_steps: list[int] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)  # of the averaged weights
    seconds: float = 0.0  # of the whole run, its resumed parts added up
    waiting: float = 0.0  # of these, spent on getting batches


@dataclass
class RunState:
    """Everything that a run needs to go on as if it had never stopped."""

    networks: dict[str, nn.Module]  # without what several processes wrap around them
    averages: dict[str, AveragedModel]
    optimizers: dict[str, torch.optim.Optimizer]
    schedules: dict[str, LambdaLR]
    batches: CaptionBatches  # where in which epoch the data stand
    noise: torch.Generator
    history: History
    step: int = 0  # how many are done

    def _parts(self) -> dict[str, dict[str, Any]]:
        named = ("networks", "averages", "optimizers", "schedules")
        return {name: getattr(self, name) for name in named} | {"data": {"batches": self.batches}}

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values only."""
        state: dict[str, Any] = {
            kind: {name: part.state_dict() for name, part in parts.items()}
            for kind, parts in self._parts().items()
        }
        history = asdict(self.history)
        return state | {"noise": self.noise.get_state(), "history": history, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` returned."""
        for kind, parts in self._parts().items():
            for name, part in parts.items():
                part.load_state_dict(state[kind][name])
        self.noise.set_state(state["noise"])
        self.history, self.step = History(**state["history"]), state["step"]


def run_identity(
    config: Any, networks: Mapping[str, nn.Module], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return, as plain values by name, what a run must still have when it is resumed.

    Of the `TrainingConfig`, what does not touch the weights is left out.
    """
    free = FREE_TO_CHANGE | ({"steps"} if config.schedule == "constant" else set())
    numbers = {name: value for name, value in asdict(config).items() if name not in free}
    built = {n: f"{type(m).__name__} {getattr(m, 'config', '')}" for n, m in networks.items()}
    return numbers | built | dict(more)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every global random generator, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set what `random_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def save_run(file: Path, run: RunState, identity: dict[str, Any], place: Place) -> None:
    """Write a run's state; whatever happens meanwhile, `file` holds this state or the last one.

    The first process writes, all must call.

    Raises:
        OSError: it cannot be written (the disk is full).
    """
    everywhere = gather_object([random_state(place.device)])
    if place.rank == 0:
        state = run.state_dict() | {"identity": identity, "random": everywhere}
        try:
            with runtime.atomic_file(file) as partial:
                torch.save(state, partial)
        except RuntimeError as error:  # torch's writer reports a full disk so
            raise OSError(
                f"{file} cannot be written ({error}): free some space. The checkpoint before "
                "this one is whole."
            ) from error
    place.accelerator.wait_for_everyone()


def resume_run(file: Path, run: RunState, identity: dict[str, Any], place: Place) -> None:
    """Set a run, put together as if it began anew, to the state in a file by `save_run`.

    If the number of processes has changed, the global random generators, which each process has
    for itself, keep their fresh seeds.

    Raises:
        ValueError: it is cut short or something else, or its identity is that of another run.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        saved = dict(state["identity"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no training state, or it is cut short: remove it to begin anew"
        ) from error
    wrong = [
        f"{name} was {saved.get(name)!r} and is {identity.get(name)!r}"
        for name in sorted(saved.keys() | identity.keys())
        if saved.get(name) != identity.get(name)
    ]
    if wrong:
        raise ValueError(
            f"{file} belongs to another run: {'; '.join(wrong)}. Resume it with what it was begun "
            "with, or begin a new run."
        )
    run.load_state_dict(state)
    if len(state["random"]) == place.processes:
        set_random_state(state["random"][place.rank], place.device)


# Trained weights


def checkpoint_path(name_or_path: str | os.PathLike[str]) -> Path:
    """Return where a checkpoint lies, without a suffix.

    What has no folder in it and no suffix is a name in `data/checkpoints`, all else a path.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    elif len(path.parts) == 1:
        return runtime.data_folder() / "checkpoints" / path
    return path


def check_output(name_or_path: str | os.PathLike[str]) -> Path:
    """Return where new weights will lie, without a suffix; to be asked before the work.

    Raises:
        FileNotFoundError: there is no such folder.
        PermissionError: it cannot be written to.
    """
    path = checkpoint_path(name_or_path)
    if path.parent == runtime.data_folder() / "checkpoints":
        path.parent.mkdir(exist_ok=True)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent}: make it first, or name another place")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"{path.parent} cannot be written to: name another place with --output, or "
            f"{runtime.own_folder()}"
        )
    return path


def discriminator_path(name_or_path: str | os.PathLike[str]) -> Path:
    """Return where the discriminator beside a checkpoint's generator lies, without a suffix."""
    path = checkpoint_path(name_or_path)
    return path.with_name(f"{path.name}-discriminator")


def save_weights(
    name_or_path: str | os.PathLike[str], generator: nn.Module, card: Mapping[str, Any]
) -> Path:
    """Write the weights of a network with `name` and `config`, and its model card.

    Args:
        name_or_path: as `checkpoint_path` takes it.
        generator: the network.
        card: the fields of `CARD_FIELDS` but "model", "config" and "sha256", which are filled in;
            "encoder" holds name, fingerprint and pooling. More fields are kept.

    Returns:
        The weights' file.

    Raises:
        ValueError: the card lacks a field.
    """
    path = checkpoint_path(name_or_path)
    card = {"model": generator.name, "config": generator.config, **card}
    weights = {k: v.detach().cpu().contiguous() for k, v in generator.state_dict().items()}
    card["parameters"] = sum(p.numel() for p in generator.parameters())
    data = safetensors.torch.save(weights)
    card["sha256"] = hashlib.sha256(data).hexdigest()
    _check_card(card, f"the card for {path}")
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    weights_file, card_file = _files(path)
    # The two get their names one right after the other, when both are whole.
    with runtime.atomic_file(card_file) as card_part, runtime.atomic_file(weights_file) as part:
        part.write_bytes(data)
        card_part.write_text(text, encoding="utf-8", newline="\n")
    return weights_file


def load_generator(
    name_or_path: str | os.PathLike[str],
    device: torch.device | str | None = None,
    builders: Mapping[str, Callable[..., nn.Module]] = DECODERS,
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a trained network from its model card and weights.

    Args:
        name_or_path: as `checkpoint_path` takes it.
        device: where the weights go; the CPU if None.
        builders: model name to class, of all that may be asked for.

    Returns:
        The network in eval mode, and its card.

    Raises:
        FileNotFoundError: no such weights, or no card beside them.
        ValueError: a card that is not one, a model that is not known, or weights that are cut
            short, changed, or of another network.
    """
    weights_file, card_file = _files(checkpoint_path(name_or_path))
    if not weights_file.is_file():
        known = sorted(file.stem for file in weights_file.parent.glob("*.safetensors"))
        there = f"there are {', '.join(known)}" if known else "there are none"
        raise FileNotFoundError(
            f"no checkpoint {weights_file}: {there} in that folder. Train one with "
            "`python -m t2i_course train`, or name another."
        )
    card = read_card(card_file)
    data = weights_file.read_bytes()
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ValueError(
            f"{weights_file} is not the file that {card_file.name} describes: it is cut short or "
            "changed. Copy both again, or train anew."
        )
    if card["model"] not in builders:
        raise ValueError(
            f"{card_file}: unknown model {card['model']!r}, this version of the course knows "
            f"{', '.join(builders)}"
        )
    try:
        generator = builders[card["model"]](**card["config"])
        generator.load_state_dict(safetensors.torch.load(data))
    except (RuntimeError, TypeError, ValueError, safetensors.SafetensorError) as error:
        first = str(error).strip().splitlines()
        raise ValueError(
            f"{weights_file} does not fit the model in {card_file.name} ({' '.join(first[:2])}): "
            "it belongs to another one"
        ) from error
    return generator.to(device or "cpu").eval(), card


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint's model card, without its weights.

    Raises:
        FileNotFoundError: no such card.
        ValueError: it is not a model card.
    """
    _, file = _files(checkpoint_path(name_or_path))
    if not file.is_file():
        raise FileNotFoundError(
            f"the model card {file} is missing: the weights cannot be used without it. Copy it "
            "from where the weights came from."
        )
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not a model card ({error}): copy it again") from error
    _check_card(card, str(file))
    return card


def _files(path: Path) -> tuple[Path, Path]:
    """Weights and card; a dot in the name, as in "baseline-0.5", stays."""
    return path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.json")


def _check_card(card: Any, where: str) -> None:
    """Raise ValueError unless a card has every field, and its encoder's entry its own."""
    if not isinstance(card, dict) or (missing := [f for f in CARD_FIELDS if f not in card]):
        lacks = f"lacks {', '.join(missing)}" if isinstance(card, dict) else "is no JSON object"
        raise ValueError(f"{where} {lacks}: a model card needs {', '.join(CARD_FIELDS)}")
    named = card["encoder"]
    if not isinstance(named, dict) or not {"name", "fingerprint", "pooling"} <= named.keys():
        raise ValueError(f"{where}: encoder needs name, fingerprint and pooling, not {named!r}")
