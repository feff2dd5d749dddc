"""The command `train`: from its options to a run, to weights and a model card."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2i_course import (
    captioner,
    checkpoints,
    data,
    gan,
    generation,
    image_decoder,
    report,
    runtime,
    text_encoder,
    training,
)
from t2i_course.commands.console import ADVERSARIAL, MODELS, first_process, given, note, say
from t2i_course.data import PackedCaptions
from t2i_course.flow_matching import FlowGenerator, FlowMatching
from t2i_course.metrics import held_out, protocol
from t2i_course.photos import shared_pictures
from t2i_course.scenes import caption_parts, drawing, mismatched_captions
from t2i_course.style_decoder import GENERATORS
from t2i_course.text_encoder import TextEncoder

GROWTH = ("parts", "layout")  # of networks: weights without may be trained on with them


def run(args: argparse.Namespace) -> int:
    """Train a generator on captioned pictures; write its weights and model card."""
    model = MODELS[args.model]
    current = runtime.settings(os.environ | given(T2I_PROFILE=args.profile, T2I_DATA=args.data))
    adversarial = args.model in ADVERSARIAL
    if current.data == "scenes" and args.scenes is None:
        args.scenes, args.crowded = model.scenes, model.crowded
    if args.ingredients and not adversarial:
        raise ValueError(f"--set is for the GAN: {args.model} has no such ingredients")
    if args.init_discriminator and not adversarial:
        raise ValueError(f"--init-discriminator is for the GAN: {args.model} has no discriminator")
    if args.flips and current.data == "scenes":
        raise ValueError("--flips is for photos: in scenes a mirrored picture's facts are others")
    if args.scenes is not None and (current.data != "scenes" or args.scenes < 1):
        raise ValueError(
            f"--scenes {args.scenes} draws so many scenes, 1 or more, where the data are scenes; "
            f"here they are {current.data}"
        )
    if args.crowded and args.scenes is None:
        raise ValueError("--crowded is for scenes that are drawn anew: add --scenes N")
    ingredients, args.ledger = gan.read_config(args.ingredients), report.check_name(args.ledger)
    drawn = current.data == "scenes" or drawing.are_in(current.data)
    if ingredients.parts and not drawn:
        raise ValueError(
            "--set parts=on is for scenes: the parts of captions are taught from what these state, "
            "which no file of photos says"
        )
    if args.teach_parts and not ingredients.parts:
        raise ValueError("--teach-parts is for the reader of a caption's parts: add --set parts=on")
    config = training.TrainingConfig(
        steps=current.pick(fast=model.fast, full=model.full) if args.steps is None else args.steps,
        batch_size=model.batch_size if args.batch_size is None else args.batch_size,
        learning_rate=model.learning_rate if args.learning_rate is None else args.learning_rate,
        average_decay=args.average_decay,
        seed=args.seed,
        precision=args.precision,
        compile=args.compile,
        accumulate=args.accumulate,
        validate_every=args.validate_every,
        checkpoint_every=args.checkpoint_every,
        checkpoint_minutes=args.checkpoint_minutes,
        flips=args.flips,
        draw_every=args.validate_every,
        evaluate_every=args.evaluate_every,
    )
    device = runtime.choose_device(args.device)
    output = checkpoints.checkpoint_path(args.output or f"my-{args.model}")
    if not output.parent.is_dir() and output.parent != runtime.data_folder() / "checkpoints":
        raise FileNotFoundError(f"no folder {output.parent}: make it first, or name another place")
    run_folder = runtime.data_folder() / "runs" / output.name
    _look_for_a_run(run_folder / training.STATE_FILE, args)
    log = _tensorboard(run_folder / "tensorboard") if args.tensorboard else None
    measure = (
        _measuring(args, current.data, run_folder, device, log) if args.evaluate_every else None
    )

    # What takes long comes after everything that may be wrong.
    encoder = text_encoder.TextEncoder(args.encoder, pooling=args.pooling, device=device)
    redescribe, described_by = _describing(ingredients, args, drawn, encoder, device)
    bars = sys.stderr.isatty()  # in a log file, bars would be thousands of lines
    if args.scenes is None:
        folder = data.resolve_data(current.data)
    else:  # val is that of the embedded set, picture by picture
        kind = "-crowded" if args.crowded else ""
        place = runtime.data_folder() / f"scenes-{args.scenes}{kind}"
        folder = drawing.make_scenes(place, train=args.scenes, progress=bars, crowded=args.crowded)
    if current.data != "scenes":
        shared_pictures.check_splits(folder)
    packed, text = {}, {}
    for split in ("train", "val"):
        packed[split] = data.pack(
            folder, split, args.size, on_bad_image=args.on_bad_image, progress=bars
        )
        captions = packed[split].all_captions
        if current.data != "scenes":
            text_encoder.warn_if_cut(encoder, captions)
        dtype = "float32" if current.data == "scenes" else "float16"
        text[split] = text_encoder.embed_for(
            GENERATORS[model.decoder], encoder, captions, progress=bars, dtype=dtype
        )
    runtime.seed_everything(config.seed)
    if adversarial:
        false = _false_captions(ingredients, folder, packed["train"], text["train"], encoder, bars)
        objective = gan.Gan(
            ingredients, encoder.width, args.size, false, GENERATORS[model.decoder], redescribe
        )
        objective.identity |= described_by
    elif args.model == FlowGenerator.name:
        network = FlowGenerator(encoder.width, args.size)
        objective = FlowMatching(network, config.learning_rate)
    else:
        size = {"text_dim": encoder.width, "image_size": args.size}
        objective = training.MeanSquaredError(
            image_decoder.build_decoder(model.decoder, **size), config
        )
    for network in objective.modules.values():
        if hasattr(network, "standardize"):
            network.standardize.fit(text["train"])
    begins = {"generator": args.init, "discriminator": args.init_discriminator}
    if any(begins.values()):
        objective.identity |= {"init": _begin_with(begins, objective.modules, encoder)}
    resumed = args.resume and (run_folder / training.STATE_FILE).exists()  # with all its buffers
    if adversarial and ingredients.parts and not resumed:
        reader, heard = (objective.modules[n].reader for n in ("generator", "discriminator"))
        if args.teach_parts or not reader.taught:
            _teach_parts(reader, folder, packed["train"], text["train"], encoder, bars)
        if heard is not None and (args.teach_parts or not heard.taught):
            heard.load_state_dict(reader.state_dict())
    earlier = {
        part: checkpoints.read_card(_file_of(name, part)) for part, name in begins.items() if name
    }
    trained_on = shared_pictures.learnt_from(
        data.find_data(folder, "train"),
        [entry for card in earlier.values() for entry in card.get("trained_on", [])],
    )
    weights = {n: sum(p.numel() for p in m.parameters()) for n, m in objective.modules.items()}
    told = ", ".join(f"{name} {number:,} weights" for name, number in weights.items())
    say(f"{args.model}: {told}, {config.steps:,} steps of {config.batch_size} images")
    counts = ", ".join(f"{len(part):,} {split}" for split, part in packed.items())
    say(f"data: {current.data}, images: {counts}; encoder: {encoder.name}; device: {device}")
    say(f"processes: {os.environ.get('WORLD_SIZE', '1')}; Ctrl-C saves, --resume goes on")
    try:
        history = training.train(
            objective, config,
            packed["train"], packed["val"], text["train"], text["val"],
            run_folder=run_folder, resume=args.resume, encoder=encoder.fingerprint,
            device=str(device), progress=bars,
            draw=None if bars else lambda step, _: say(f"step {step} of {config.steps}"),
            evaluate=measure and (lambda step, network: measure(step, network, encoder)),
            log=log,
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}; the same command with --resume goes on") from None
    loss = history.validation_losses[-1]
    again = [word for word in args.argv if word not in ("--resume", "--restart")]
    card = {
        "encoder": text_encoder.card_entry(encoder),
        "data": current.data if current.data == "scenes" else folder.name,
        "words": generation.training_words(packed["train"].all_captions),
        "trained_on": trained_on,
        "command": shlex.join(["python", "-m", "t2i_course", *again]),
        "steps": config.steps,
        "seconds": round(history.seconds, 1),
        "hardware": runtime.hardware(),
        "metrics": {f"validation loss ({objective.identity['objective']})": round(loss, 6)},
        "license": "Apache-2.0" if current.data == "scenes" else "as the training data allow",
        "seed": config.seed,
    }  # fmt: skip
    if "captioner" in objective.identity:
        card["captioner"] = objective.identity["captioner"]
    for part, key in (("generator", "begun_with"), ("discriminator", "judge_begun_with")):
        if part in earlier:
            card[key] = checkpoints.origin(earlier[part])
    if first_process():
        if (judge := objective.modules.get("discriminator")) is not None:
            training.save_weights(checkpoints.discriminator_path(output), judge, card)
        file = training.save_weights(output, objective.modules["generator"], card)
        say(f"validation loss: {loss:.5f} ({objective.identity['objective']}, averaged weights)")
        say(f"weights: {file}")
        if args.ledger is not None:
            rows = _ledger_rows(args, history, config, card, packed["val"])
            say(f"ledger: {report.add_rows(f'{args.ledger}.json', rows)}")
    PartialState().destroy_process_group()  # does nothing for a single process
    return 0


def _file_of(name: str, part: str) -> Path:
    """Where a checkpoint's generator or discriminator lies, without a suffix."""
    if part == "discriminator":
        return checkpoints.discriminator_path(name)
    return checkpoints.checkpoint_path(name)


def _begin_with(
    begins: dict[str, str | None], networks: dict[str, nn.Module], encoder: TextEncoder
) -> str:
    """Load weights into networks. What `GROWTH` names may be new; in a generator it adds 0 first.

    Args:
        begins: "generator" and "discriminator", each with the name of a checkpoint or None. Without
            one of its own, the discriminator is the one beside the generator, if there is one.
        networks: by the same names.
        encoder: of this run.

    Returns:
        What tells these weights from others.
    """
    builders = GENERATORS | {gan.Discriminator.name: gan.Discriminator}
    found = []
    for part, network in networks.items():
        if (name := begins[part] or begins["generator"]) is None:
            continue
        file = _file_of(name, part)
        if begins[part] is None and not file.with_name(f"{file.name}.json").is_file():
            note(f"{Path(name).name} comes without its {part}: that one begins anew")
            continue
        loaded, card = checkpoints.load_generator(file, builders=builders)
        new = [
            key for key in GROWTH if not loaded.config.get(key, True) and network.config.get(key)
        ]
        grown = {key: network.config[key] for key in new}
        if (loaded.name, loaded.config | grown) != (network.name, network.config):
            raise ValueError(
                f"--init {name}: its {part} is {loaded.name} {loaded.config}, the one to train is "
                f"{network.name} {network.config}: give both the same --model, --size and --set"
            )
        if card["encoder"]["fingerprint"] != encoder.fingerprint:
            raise ValueError(
                f"--init {name} was trained with the text encoder {card['encoder']['name']}, this "
                f"run has {encoder.name}: add --encoder {card['encoder']['name']}"
            )
        network.load_state_dict(loaded.state_dict(), strict=not grown)
        found.append(card["sha256"])
    return " ".join(found)


def _teach_parts(
    reader: caption_parts.CaptionReader,
    folder: Path,
    packed: PackedCaptions,
    text: np.ndarray,
    encoder: TextEncoder,
    bars: bool,
) -> None:
    """Teach the generator's reader on the captions of the run, and on some drawn for it."""
    drawn, stated = caption_parts.draw_captions(2 * len(text) // 5)
    more = text_encoder.embed_captions(encoder, drawn, progress=bars)
    share = caption_parts.teach(
        reader,
        np.concatenate([text, more]),
        [*mismatched_captions.facts_of(folder, packed), *stated],
    )
    say(f"parts of captions: of {share:.1%} of them, everything is read")


def _false_captions(
    config: gan.GanConfig,
    folder: Path,
    packed: PackedCaptions,
    text: np.ndarray,
    encoder: TextEncoder,
    progress: bool,
) -> mismatched_captions.MismatchedCaptions | None:
    """Return what draws false captions for a GAN's discriminator; None where none are shown."""
    if not config.matching_aware:
        return None
    hard = None
    if drawing.are_in(folder):
        is_true = mismatched_captions.scenes_truth(folder, "train", packed)
        if config.contradicting > 0:
            wrong = mismatched_captions.contradicting_captions(folder, "train", packed, third=True)
            hard = text_encoder.embed_captions(encoder, wrong, progress=progress)
    else:
        is_true = mismatched_captions.photos_truth(packed)
    return mismatched_captions.MismatchedCaptions(
        packed, text, is_true, hard, config.contradicting, config.false_captions
    )


def _describing(
    config: gan.GanConfig,
    args: argparse.Namespace,
    drawn: bool,
    encoder: TextEncoder,
    device: torch.device,
) -> tuple[Callable[..., Tensor] | None, dict[str, str]]:
    """Return what tells a GAN's generator how improbable its captions are, and what names it.

    Raises:
        FileNotFoundError, ValueError: it is not there, or is for other pictures or other tokens.
    """
    if not config.redescription:
        if args.captioner:
            raise ValueError("--captioner is for --set redescription=WEIGHT, which is 0")
        return None, {}
    if args.captioner is None and not drawn:
        raise ValueError(
            "the captioner that comes with the course knows scenes only: train one on these photos "
            "with `python -m t2i_course metric-network captioner` and name it with --captioner"
        )
    network = captioner.load_captioner(encoder, args.captioner or captioner.NAME, device)
    if network.image_size != args.size:
        raise ValueError(
            f"the captioner reads pictures of {network.image_size} pixels, this run draws "
            f"{args.size}: train one with `python -m t2i_course metric-network captioner "
            f"--size {args.size}`"
        )
    name = f"{Path(args.captioner or captioner.NAME).name} {network.fingerprint}"
    return captioner.redescription(network, encoder), {"captioner": name}


def _measuring(
    args: argparse.Namespace,
    data: str,
    run_folder: Path,
    device: object,
    log: Callable[[int, dict[str, float]], None] | None,
) -> Callable[..., None]:
    """Return what evaluates a generator and writes a line into the run's log.

    All processes draw; the first one measures.
    """
    held = held_out.open_held_out(data, "val", args.size, args.on_bad_image, sys.stderr.isatty())
    rows = held_out.choose_captions(held, args.evaluate_samples)
    if first_process():
        networks = protocol.load_networks(held, args.extractor, args.matcher, device=device)

    def measure(step: int, generator: nn.Module, encoder: TextEncoder) -> None:
        # Of photos, training keeps features in half precision; `evaluate` does not.
        text = text_encoder.embed_for(generator, encoder, held.captions(rows), progress=False)
        images = held_out.draw_together(generator, text)
        if images is None:  # another process measures
            return
        pictures = held_out.GeneratedPictures(run_folder.name, images, rows, seeds=(0,))
        found = protocol.evaluate(pictures, held, networks, references=False)
        report.write_line(run_folder / report.LOG_FILE, step, found)
        if log is not None:
            log(step, {measure.metric: measure.estimate.value for measure in found.measures})
        tqdm.write(f"step {step}: {found.main_figures()}")  # above the bar

    return measure


def _tensorboard(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """Return what writes numbers for TensorBoard; a resumed run takes back what it says again."""
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def log(step: int, values: dict[str, float]) -> None:
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=step))
        for name, value in values.items():
            writers[0].add_scalar(name, value, step)

    return log


def _ledger_rows(
    args: argparse.Namespace,
    history: training.History,
    config: training.TrainingConfig,
    card: dict,
    held: PackedCaptions,
) -> list[report.Row]:
    """Put what a run measured of itself into rows of the ledger."""
    common = {
        "seeds": (config.seed,), "data": card["data"], "hardware": card["hardware"],
        "seconds": card["seconds"], "command": card["command"], "interval": None,
        "extractor": "none",
    }  # fmt: skip
    last = max(1, len(history.steps) // 10)
    found = [
        (f"{name}, mean of the last {last} steps", float(np.mean(values[-last:])), last, "train")
        for name, values in history.losses.items()
    ]
    checked = min(config.validation_images, len(held))
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
            id=f"{args.ledger}-train-{report.slug(metric.split(',')[0])}",
            metric=f"{args.model}: {metric}", value=value, samples=samples, split=split, **common,
        )
        for metric, value, samples, split in found
    ]  # fmt: skip


def _look_for_a_run(state: Path, args: argparse.Namespace) -> None:
    """Do what was asked for with a run that has begun before, or ask."""
    if args.restart or not state.exists():  # these are of a run that is no more
        (state.parent / report.LOG_FILE).unlink(missing_ok=True)
        shutil.rmtree(state.parent / "tensorboard", ignore_errors=True)
    if args.restart:
        state.unlink(missing_ok=True)
    elif state.exists() and not args.resume:
        raise FileExistsError(
            f"{state} holds a run of that name: add --resume to go on, --restart to begin anew, or "
            "another --output"
        )
    elif args.resume and not state.exists():
        note(f"nothing to resume in {state.parent}: beginning")
