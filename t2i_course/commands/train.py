"""The command `train`: from its options to a run, to weights and a model card."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from t2i_course import (
    checkpoints,
    data,
    generation,
    report,
    runtime,
    text_cache,
    text_encoder,
    training,
)
from t2i_course.commands import train_networks
from t2i_course.commands.console import add_shared, command_line, first_process, note, say
from t2i_course.commands.options import add_fields, fill, given_fields, option_fields
from t2i_course.data import PackedCaptions
from t2i_course.gan import GanConfig
from t2i_course.generation import GENERATORS
from t2i_course.photos import caption_check, shared_pictures
from t2i_course.processes import locked_folder
from t2i_course.scenes import drawing
from t2i_course.style_decoder import RATE
from t2i_course.text_encoder import TextEncoder
from t2i_course.training import TrainingConfig, option


@dataclass(frozen=True)
class Model:
    """What is trained, and what `train` takes for it unless told otherwise."""

    decoder: str  # its name in `generation.GENERATORS`
    fast: int  # steps in the fast profile
    full: int
    defaults: dict[str, Any]

    @property
    def adversarial(self) -> bool:
        """Is it trained before a discriminator?"""
        return self.decoder in ("gan", "style")


MODELS = {
    "baseline": Model("residual", 300, 6000, {"learning_rate": 2e-3}),
    "article": Model("article", 300, 6000, {"learning_rate": 2e-4}),
    "gan": Model("gan", 11_000, 11_000, {  # a short run of it shows little
        "batch_size": 48, "scenes": 50_000, "crowded": True, "redescription": 0.3,
    }),
    "style": Model("style", 10_000, 10_000, {
        "generator_rate": RATE, "batch_size": 48, "scenes": 50_000, "crowded": True,
        "redescription": 0.3,
    }),
    "flow": Model("flow", 18_000, 18_000, {
        "learning_rate": 1e-3, "batch_size": 32, "scenes": 50_000, "crowded": True,
    }),
}  # fmt: skip

# Options for photos. The number of steps is for a GPU that sustains 20 TFLOP/s: a step takes 21.4
# GFLOP an image at width 64, 12.2 at width 48 (counted with a D of 768).
_PHOTOS = {"model": "gan", "encoder": "bert-base-uncased", "flips": True,
           "checkpoint_minutes": 10.0, "on_bad_image": "skip"}  # fmt: skip
PRESETS = {
    "coco-day": _PHOTOS | {  # COCO's train2017: 77 million images, 650 epochs
        "batch_size": 256, "steps": 300_000, "validate_every": 5000, "checkpoint_every": 5000,
        "width": 64,
    },
    "val-hour": _PHOTOS | {  # its val2017 alone: 5 million images, 1,100 epochs of 4,500
        "batch_size": 128, "steps": 40_000, "validate_every": 1000, "checkpoint_every": 1000,
        "width": 48, "augment": ("translation", "cutout"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class RunOptions:
    """What a run is of: the model, the text, the pictures, where it goes."""

    model: str = option("baseline", "what to train", tuple(MODELS))
    encoder: str | None = option(
        None, "text encoder, by name or folder; default: caption-bert", ("NAME",)
    )
    pooling: str = option("mean", "from its tokens to one vector", ("mean", "cls"))
    size: int = option(64, "side of the images, pixels")
    on_bad_image: str = option(
        "raise", "at a missing or damaged picture stop, or leave it out and say so",
        ("raise", "skip"),
    )  # fmt: skip
    scenes: int = option(10_000, "training pictures, drawn on first use, where the data are scenes")
    crowded: bool = option(False, "draw most of these scenes with three objects")
    captioner: str | None = option(
        None, "network for --redescription; default: captioner on scenes, none on photos", ("NAME",)
    )
    evaluate_samples: int = option(2000, "pictures of an evaluation")
    output: str | None = option(
        None, "where the weights go: a name in data/checkpoints, or a path; default: my-MODEL",
        ("NAME",),
    )  # fmt: skip
    tensorboard: bool = option(
        False, "write losses, speed and evaluations for TensorBoard, into data/runs/NAME"
    )
    ledger: str | None = option(
        None, "add losses, speed and memory to data/results/NAME.json", ("NAME",)
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train`: its own, those of the loop, and those of a GAN."""
    add = parser.add_argument
    add("--profile", choices=runtime.PROFILES, help="how long to train; default: T2I_PROFILE")
    add("--preset", choices=PRESETS, help="options for photos: coco-day for a day of one GPU on "
        "COCO's train2017, val-hour for an hour on val2017; what else is given goes "
        "before")  # fmt: skip
    add_shared(parser, "--data", "--seed", "--device")
    both = parser.add_mutually_exclusive_group()
    both.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    both.add_argument("--restart", action="store_true", help="throw the last checkpoint away")
    own = {"steps", *(name for model in MODELS.values() for name in model.defaults)}
    add_fields(parser, RunOptions, "the run", own)
    add_fields(parser, TrainingConfig, "the loop", own)
    add_fields(parser, GanConfig, "gan and style", own)
    add_shared(parser, "--extractor", "--matcher")


@dataclass(frozen=True)
class Plan:
    """A run as it was asked for: options, presets, the model's own and defaults put together."""

    args: argparse.Namespace
    settings: runtime.Settings
    options: RunOptions
    config: TrainingConfig
    gan: GanConfig
    output: Path  # of the weights, without suffix
    folder: Path  # of the run
    bars: bool  # in a log file, bars would be thousands of lines

    @property
    def model(self) -> Model:
        """What is trained."""
        return MODELS[self.options.model]

    @property
    def drawn(self) -> bool:
        """Are the data scenes, whose captions come with what they state?"""
        return self.settings.data == "scenes" or drawing.are_in(self.settings.data)


def read_plan(args: argparse.Namespace) -> Plan:
    """Put options, presets and defaults together, and check them before any work.

    Raises:
        ValueError, FileNotFoundError: options that do not go together, or bad numbers or names.
    """
    settings = args.settings
    given = {}
    for config in (RunOptions, TrainingConfig, GanConfig):
        given |= given_fields(args, config)
    preset = PRESETS.get(args.preset, {})
    model = MODELS[fill(RunOptions, preset, given).model]
    steps = settings.pick(fast=model.fast, full=model.full)
    usual = {"steps": steps, "seed": settings.seed} | model.defaults
    if settings.data != "scenes":  # photos need a captioner of their own: see `load_teacher`
        usual.pop("redescription", None)
    options, config, gan = (
        fill(part, usual, preset, given) for part in (RunOptions, TrainingConfig, GanConfig)
    )
    foreign = [e.name for e in option_fields(GanConfig) if e.name in given]
    if foreign and not model.adversarial:
        flag = "--" + foreign[0].replace("_", "-")
        raise ValueError(f"{flag} is for gan and style: {options.model} has no such ingredient")
    if config.flips and settings.data == "scenes":
        raise ValueError("--flips is for photos: in scenes a mirrored picture's facts are others")
    if ("scenes" in given or "crowded" in given) and settings.data != "scenes":
        raise ValueError(
            "--scenes and --crowded say what is drawn where the data are scenes; here they are "
            f"{settings.data}"
        )
    if options.scenes < 1:
        raise ValueError(f"--scenes {options.scenes}: draw 1 or more")
    config = replace(config, draw_every=config.validate_every)
    report.check_name(options.ledger)
    output = checkpoints.check_output(options.output or f"my-{options.model}")
    return Plan(
        args, settings, options, config, gan,
        output, runtime.data_folder() / "runs" / output.name, sys.stderr.isatty(),
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train a generator on captioned pictures; write its weights and model card."""
    plan = read_plan(args)
    with locked_folder(plan.folder) if first_process() else nullcontext():
        look_for_a_run(plan)
        log = tensorboard_log(plan)
        measure = train_networks.measuring(plan, log)
        # What takes long comes after everything that may be wrong.
        encoder = TextEncoder(
            plan.options.encoder, pooling=plan.options.pooling, device=plan.settings.device
        )
        teacher = train_networks.load_teacher(plan)
        folder = find_pictures(plan)
        packed, text = read_data(plan, folder, encoder)
        runtime.seed_everything(plan.config.seed)
        objective = train_networks.build(plan, folder, packed["train"], text, encoder, teacher)
        introduce(plan, objective, packed, encoder)
        try:
            history = training.train(
                objective, plan.config,
                packed["train"], packed["val"], text["train"], text["val"],
                run_folder=plan.folder, resume=args.resume, encoder=encoder.fingerprint,
                device=str(plan.settings.device), progress=plan.bars,
                draw=None if plan.bars else lambda step, _: say(
                    f"step {step} of {plan.config.steps}"
                ),
                evaluate=measure and (lambda step, network: measure(step, network, encoder)),
                log=log,
            )  # fmt: skip
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{stop}; the same command with --resume goes on") from None
        card = write_card(plan, folder, packed["train"], encoder, objective, history)
        if first_process():
            save(plan, objective, card, history, packed["val"])
    PartialState().destroy_process_group()  # does nothing for a single process
    return 0


def look_for_a_run(plan: Plan) -> None:
    """Do what was asked for with a run that has begun before, or ask."""
    state = plan.folder / training.STATE_FILE
    if plan.args.restart or not state.exists():  # these are of a run that is no more
        (state.parent / report.LOG_FILE).unlink(missing_ok=True)
        shutil.rmtree(state.parent / "tensorboard", ignore_errors=True)
    if plan.args.restart:
        state.unlink(missing_ok=True)
    elif state.exists() and not plan.args.resume:
        raise FileExistsError(
            f"{state} holds a run of that name: add --resume to go on, --restart to begin anew, or "
            "another --output"
        )
    elif plan.args.resume and not state.exists():
        note(f"nothing to resume in {state.parent}: beginning")


def find_pictures(plan: Plan) -> Path:
    """Find the folder of the pictures; scenes are drawn into it."""
    if plan.settings.data != "scenes":
        folder = data.resolve_data(plan.settings.data)
        shared_pictures.check_splits(folder)
        return folder
    options, usual = plan.options, RunOptions()
    if (options.scenes, options.crowded) == (usual.scenes, usual.crowded):
        return data.resolve_data("scenes")
    return drawing.more_scenes(options.scenes, options.crowded, plan.bars)


def read_data(
    plan: Plan, folder: Path, encoder: TextEncoder
) -> tuple[dict[str, PackedCaptions], dict[str, Any]]:
    """Pack pictures and encode captions of train and val, by the name of the split."""
    packed, text, photos = {}, {}, plan.settings.data != "scenes"
    for split in ("train", "val"):
        packed[split] = data.pack(
            folder, split, plan.options.size, on_bad_image=plan.options.on_bad_image,
            progress=plan.bars,
        )  # fmt: skip
        captions = packed[split].all_captions
        if photos:
            text_encoder.warn_if_cut(encoder, captions)
            if split == "train":
                caption_check.check_captions(encoder, captions)
        text[split] = text_cache.embed_for(
            GENERATORS[plan.model.decoder], encoder, captions, progress=plan.bars,
            dtype="float16" if photos else "float32",
        )  # fmt: skip
    return packed, text


def introduce(
    plan: Plan,
    objective: training.Objective,
    packed: dict[str, PackedCaptions],
    encoder: TextEncoder,
) -> None:
    """Say what will be trained, on what, and where."""
    config = plan.config
    weights = {n: sum(p.numel() for p in m.parameters()) for n, m in objective.modules.items()}
    told = ", ".join(f"{name} {number:,} weights" for name, number in weights.items())
    say(f"{plan.options.model}: {told}, {config.steps:,} steps of {config.batch_size} images")
    counts = ", ".join(f"{len(part):,} {split}" for split, part in packed.items())
    say(
        f"data: {plan.settings.data}, images: {counts}; encoder: {encoder.name}; device: "
        f"{plan.settings.device}"
    )
    say(f"processes: {os.environ.get('WORLD_SIZE', '1')}; Ctrl-C saves, --resume goes on")


def write_card(
    plan: Plan,
    folder: Path,
    packed: PackedCaptions,
    encoder: TextEncoder,
    objective: training.Objective,
    history: checkpoints.History,
) -> dict[str, Any]:
    """Say how the weights were made."""
    scenes = plan.settings.data == "scenes"
    loss = history.validation_losses[-1]
    card = {
        "encoder": text_encoder.card_entry(encoder),
        "data": "scenes" if scenes else folder.name,
        "words": generation.training_words(packed.all_captions),
        "trained_on": shared_pictures.learnt_from(data.find_data(folder, "train")),
        "command": command_line(plan.args),
        "steps": plan.config.steps,
        "seconds": round(history.seconds, 1),
        "hardware": runtime.hardware(),
        "processes": PartialState().num_processes,
        "metrics": {f"validation loss ({objective.identity['objective']})": round(loss, 6)},
        "license": "Apache-2.0" if scenes else "as the training data allow",
        "seed": plan.config.seed,
    }
    if "captioner" in objective.identity:
        card["captioner"] = objective.identity["captioner"]
    return card


def save(
    plan: Plan,
    objective: training.Objective,
    card: dict[str, Any],
    history: checkpoints.History,
    held: PackedCaptions,
) -> None:
    """Write the weights with their cards, and the ledger's rows, and say so."""
    if (discriminator := objective.modules.get("discriminator")) is not None:
        beside = checkpoints.discriminator_path(plan.output)
        checkpoints.save_weights(beside, discriminator, card)
    file = checkpoints.save_weights(plan.output, objective.modules["generator"], card)
    kind = objective.identity["objective"]
    say(f"validation loss: {history.validation_losses[-1]:.5f} ({kind}, averaged weights)")
    say(f"weights: {file}")
    if (ledger := report.check_name(plan.options.ledger)) is not None:
        rows = ledger_rows(plan, ledger, history, card, held)
        say(f"ledger: {report.add_rows(f'{ledger}.json', rows)}")


def tensorboard_log(plan: Plan) -> Callable[[int, dict[str, float]], None] | None:
    """Return what writes numbers for TensorBoard; a resumed run takes back what it says again."""
    if not plan.options.tensorboard:
        return None
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def log(step: int, values: dict[str, float]) -> None:
        if not writers:
            writers.append(SummaryWriter(str(plan.folder / "tensorboard"), purge_step=step))
        for name, value in values.items():
            writers[0].add_scalar(name, value, step)

    return log


def ledger_rows(
    plan: Plan, ledger: str, history: checkpoints.History, card: dict, held: PackedCaptions
) -> list[report.Row]:
    """Put what a run measured of itself into rows of the ledger."""
    common = {
        "seeds": (plan.config.seed,), "data": card["data"], "hardware": card["hardware"],
        "seconds": card["seconds"], "command": card["command"], "interval": None,
        "extractor": "none",
    }  # fmt: skip
    last = max(1, len(history.steps) // 10)
    found = [
        (f"{name}, mean of the last {last} steps", float(np.mean(values[-last:])), last, "train")
        for name, values in history.losses.items()
    ]
    checked = min(plan.config.validation_images, len(held))
    found += [
        ("loss on validation", history.validation_losses[-1], checked, "val"),
        ("images a second, median of the steps",
         float(np.median(history.images_per_second)), len(history.steps), "none"),
        ("share of the time spent waiting for data",
         history.waiting / history.seconds, len(history.steps), "none"),
    ]  # fmt: skip
    if (most := runtime.most_memory()) is not None:
        found.append(("megabytes of memory, the most", most / 1e6, 1, "none"))
    return [
        report.Row(
            id=f"{ledger}-train-{report.slug(metric.split(',')[0])}",
            metric=f"{plan.options.model}: {metric}", value=value, samples=samples, split=split,
            **common,
        )
        for metric, value, samples, split in found
    ]  # fmt: skip
