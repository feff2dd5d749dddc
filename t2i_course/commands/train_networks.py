"""What `train` trains: networks with their objective, what teaches them, and what measures them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from tqdm.auto import tqdm

from t2i_course import gan, image_decoder, multitask, report, text_cache, training
from t2i_course.commands.console import first_process, say
from t2i_course.data import PackedCaptions
from t2i_course.flow_matching import FlowGenerator, FlowMatching
from t2i_course.generation import GENERATORS
from t2i_course.metrics import held_out, protocol
from t2i_course.scenes import mismatched_captions
from t2i_course.text_encoder import TextEncoder

if TYPE_CHECKING:
    from t2i_course.commands.train import Plan

Teacher = tuple[Callable[[Tensor, Sequence[str]], Tensor], str]  # what it says, and its name


def build(
    plan: Plan,
    folder: Path,
    packed: PackedCaptions,
    text: dict[str, Any],
    encoder: TextEncoder,
    teacher: Teacher | None,
) -> training.Objective:
    """Build the networks to train, with their losses, and fit them to the training captions."""
    decoder, size = plan.model.decoder, plan.options.size
    if plan.model.adversarial:
        false = false_captions(plan, folder, packed, text["train"], encoder)
        redescribe, name = teacher or (None, "")
        objective = gan.Gan(plan.gan, encoder.width, size, false, GENERATORS[decoder], redescribe)
        objective.identity |= {"captioner": name} if teacher else {}
    elif decoder == FlowGenerator.name:
        network = FlowGenerator(encoder.width, size)
        objective = FlowMatching(network, plan.config.learning_rate)
    else:
        network = image_decoder.build_decoder(decoder, text_dim=encoder.width, image_size=size)
        objective = training.MeanSquaredError(network, plan.config)
    for network in objective.modules.values():
        if hasattr(network, "standardize"):
            network.standardize.fit(text["train"])
    return objective


def false_captions(
    plan: Plan, folder: Path, packed: PackedCaptions, text: Any, encoder: TextEncoder
) -> mismatched_captions.MismatchedCaptions | None:
    """Return what draws false captions for a GAN's discriminator; None where none are shown."""
    config, hard = plan.gan, None
    if not config.matching_aware:
        return None
    if plan.drawn:
        is_true = mismatched_captions.scenes_truth(folder, "train", packed)
        if config.contradicting > 0:
            wrong = mismatched_captions.contradicting_captions(folder, "train", packed)
            decoder = GENERATORS[plan.model.decoder]
            hard = text_cache.embed_for(decoder, encoder, wrong, progress=plan.bars)
    else:
        is_true = mismatched_captions.photos_truth(packed)
    return mismatched_captions.MismatchedCaptions(
        packed, text, is_true, hard, config.contradicting, config.false_captions
    )


def load_teacher(plan: Plan) -> Teacher | None:
    """Return what tells a GAN's generator how improbable its captions are, and what names it.

    Raises:
        FileNotFoundError, ValueError: it is not there, or is for other pictures.
    """
    name, size = plan.options.captioner, plan.options.size
    if not plan.gan.redescription:
        if name:
            raise ValueError("--captioner is for --redescription WEIGHT, which is 0")
        return None
    if name is None and not plan.drawn:
        raise ValueError(
            "the captioner that comes with the course knows scenes only: train one on these photos "
            "with `python -m t2i_course metric-network captioner` and name it with --captioner"
        )
    name = name or multitask.NAME
    network, encoder = multitask.load_captioner(name, plan.settings.device)
    if network.image_size != size:
        raise ValueError(
            f"the captioner reads pictures of {network.image_size} pixels, this run draws {size}: "
            f"train one with `python -m t2i_course metric-network captioner --size {size}`, or "
            "leave it out with --redescription 0"
        )
    return multitask.redescription(network, encoder), f"{Path(name).name} {network.fingerprint}"


def measuring(
    plan: Plan, log: Callable[[int, dict[str, float]], None] | None
) -> Callable[[int, nn.Module, TextEncoder], None] | None:
    """Return what evaluates a generator and writes a line into the run's log, if that is asked.

    All processes draw; the first one measures.
    """
    if not plan.config.evaluate_every:
        return None
    held = held_out.open_held_out(
        plan.settings.data, "val", plan.options.size, plan.options.on_bad_image, plan.bars
    )
    rows = held_out.choose_captions(held, plan.options.evaluate_samples)
    if first_process():
        networks = protocol.load_networks(
            held, plan.args.extractor, plan.args.matcher, device=plan.settings.device
        )

    def measure(step: int, generator: nn.Module, encoder: TextEncoder) -> None:
        # Of photos, training keeps features in half precision; `evaluate` does not.
        text = text_cache.embed_for(generator, encoder, held.captions(rows), progress=False)
        images = held_out.draw_together(generator, text)
        if images is None:  # another process measures
            return
        pictures = held_out.GeneratedPictures(plan.folder.name, images, rows, seeds=(0,))
        found = protocol.evaluate(pictures, held, networks, references=False)
        report.write_line(plan.folder / report.LOG_FILE, step, found)
        if log is not None:
            log(step, {measure.metric: measure.estimate.value for measure in found.measures})
        with tqdm.external_write_mode():  # above the bar
            say(f"step {step}: {found.main_figures()}")

    return measure
