"""Time a training step of the GAN: the plain form and the course's, and how its cost grows.

    python benchmarks/gan_speed.py            prints the figures
    python benchmarks/gan_speed.py --ledger   writes them to data/results/gan_speed.json

The plain form computes in float32, channels first, runs BERT over the captions in each step, and
runs the generator twice: once for the discriminator's update, once for its own. Networks, losses,
batch and false captions are the same. The forms alternate, step by step, so that a busy machine
slows both. On a GPU, the share of the matrix peak is that of a large product in bf16, measured in
the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from t2i_course import data, gan, report, runtime
from t2i_course.adversarial_losses import (
    hinge_discriminator,
    hinge_generator,
    matching_aware_penalty,
)
from t2i_course.processes import Place, TrainingBatch, find_place
from t2i_course.scenes import mismatched_captions
from t2i_course.text_cache import embed_words
from t2i_course.text_encoder import TextEncoder, TextFeatures
from t2i_course.training import descend

CONFIG = gan.GanConfig(augment=("translation",))
TOKENS = 16  # of a caption, where it is random


class Course:
    """The step as `train --model gan` takes it."""

    def __init__(
        self,
        place: Place,
        text_dim: int,
        side: int,
        false: Callable,
        build: Callable[..., nn.Module] = gan.TextGenerator,
    ) -> None:
        """Build both networks on the device."""
        torch.manual_seed(0)
        self.place, self.objective = place, gan.Gan(CONFIG, text_dim, side, false, build)
        for network in self.objective.modules.values():
            network.to(place.device, memory_format=place.memory_format).train()

    def step(self, batch: TrainingBatch) -> None:
        """Learn from a batch."""
        with self.place.autocast():
            self.objective.step(
                batch,
                lambda name, loss: descend(self.objective.optimizers[name], loss, 1.0, self.place),
            )


class Plain(Course):
    """The same step without what makes it quick."""

    def __init__(self, place: Place, text_dim: int, side: int, false: Callable) -> None:
        """Build the same networks, channels first."""
        super().__init__(place, text_dim, side, false)
        for network in self.objective.modules.values():
            network.to(memory_format=torch.contiguous_format)

    def step(self, batch: TrainingBatch) -> None:
        """Learn from a batch in float32, with a second forward of the generator."""
        generator, discriminator = (
            self.objective.modules[name] for name in ("generator", "discriminator")
        )
        images, text = batch.images.contiguous(), batch.text
        with torch.no_grad():
            fake = generator(text, batch.noise)
        false = self.objective.mismatched(batch)  # of captions [K, B]
        shown = gan.augment(images, CONFIG.augment)
        wrong = torch.stack([discriminator(shown, false[k]) for k in range(len(false))])
        loss = hinge_discriminator(
            discriminator(shown, text),
            discriminator(gan.augment(fake, CONFIG.augment), text),
            wrong,
        )
        if batch.step % CONFIG.penalty_every == 0:
            penalty = matching_aware_penalty(
                lambda x, sentence: discriminator(x, replace(text, sentence=sentence)),
                shown, text.sentence,
            )  # fmt: skip
            loss = loss + CONFIG.penalty_every * penalty
        descend(self.objective.optimizers["discriminator"], loss, 1.0, self.place)
        discriminator.requires_grad_(False)
        fake = gan.augment(generator(text, batch.noise), CONFIG.augment)
        loss = hinge_generator(discriminator(fake, text))
        descend(self.objective.optimizers["generator"], loss, 1.0, self.place)
        discriminator.requires_grad_(True)


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that an action takes, the device included."""
    wait(device)
    start = time.perf_counter()
    action()
    wait(device)
    return time.perf_counter() - start


def random_text(*shape: int, text_dim: int, place: Place) -> TextFeatures:
    """Random features of captions in an array of a shape."""
    size = (*shape, TOKENS, text_dim)
    return TextFeatures(
        torch.randn(*shape, text_dim, device=place.device),
        torch.randn(size, device=place.device),
        torch.ones(size[:-1], device=place.device),
    )


def random_false(batch: TrainingBatch) -> TextFeatures:
    """Random false captions of a batch, [K, B] of them."""
    number, width = batch.text.sentence.shape
    place = find_place(str(batch.images.device), "auto")
    return random_text(CONFIG.false_captions, number, text_dim=width, place=place)


def random_batch(number: int, side: int, text_dim: int, step: int, place: Place) -> TrainingBatch:
    """A batch of random pictures, for what depends on sizes alone."""
    rows = torch.arange(number)
    return TrainingBatch(
        images=torch.rand(number, 3, side, side).to(
            place.device, memory_format=place.memory_format
        ),
        captions=[""] * number, caption_rows=rows, image_rows=rows,
        text=random_text(number, text_dim=text_dim, place=place),
        noise=torch.randn(number, CONFIG.noise_dim, device=place.device), step=step,
    )  # fmt: skip


def step_seconds(place: Place, number: int, side: int, steps: int) -> float:
    """Median seconds of the course's step on random pictures."""
    form = Course(place, 256, side, random_false)
    times = []
    for step in range(1, steps + 3):
        batch = random_batch(number, side, 256, step, place)
        times.append(timed(lambda b=batch: form.step(b), place.device))
    return float(np.median(times[2:]))


def matrix_peak(place: Place) -> float:
    """Floating-point operations a second of a large product in bf16."""
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=place.device) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds = min(timed(lambda: [a @ b for _ in range(10)], place.device) for _ in range(3))
    return 10 * 2 * 8192**3 / seconds


def ledger_rows(
    prefix: str,
    figures: dict[str, tuple[str, float]],
    steps: int,
    split: str,
    name: str,
    begin: float,
) -> list[report.Row]:
    """Put figures, {name: (metric, value)}, measured since `begin`, into rows of the ledger."""
    return [
        report.Row(
            id=f"{prefix}-{key}", metric=metric, value=float(f"{value:.3g}"), interval=None,
            samples=steps, seeds=(0,), split=split, extractor="none", data=name,
            hardware=runtime.hardware(), seconds=round(time.perf_counter() - begin, 1),
            command=f"python benchmarks/{prefix.replace('-', '_')}.py --steps {steps} --ledger",
        )
        for key, (metric, value) in figures.items()
    ]  # fmt: skip


def main() -> None:
    """Time both forms, then the course's at other sizes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=24, help="steps in each form (24)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step (64)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    begin, settings = time.perf_counter(), runtime.settings()
    device, steps, size = settings.device, arguments.steps, arguments.batch_size
    runtime.seed_everything(0)
    folder = data.resolve_data("scenes")
    packed = data.pack(folder, "val", 64)
    encoder = TextEncoder(device=device)
    features = embed_words(encoder, packed.all_captions)
    wrong = mismatched_captions.contradicting_captions(folder, "val", packed)
    false = mismatched_captions.MismatchedCaptions(
        packed, features, mismatched_captions.scenes_truth(folder, "val", packed),
        embed_words(encoder, wrong), CONFIG.contradicting, CONFIG.false_captions,
    )  # fmt: skip
    place, exact = find_place(str(device), "auto"), find_place(str(device), "float32")
    forms = {
        "plain": Plain(exact, encoder.width, 64, false),
        "course": Course(place, encoder.width, 64, false),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    batches = data.CaptionBatches(packed, size, torch.Generator().manual_seed(0))
    for number in range(1, steps + 3):
        batch, noise = next(batches), torch.randn(size, CONFIG.noise_dim)

        def plain(batch: data.Batch = batch, noise: torch.Tensor = noise, k: int = number) -> None:
            ready = exact.batch(batch, features, noise, k)
            text = encoder(batch.captions)  # BERT in the step
            forms["plain"].step(TrainingBatch(**(vars(ready) | {"text": text})))

        def course(batch: data.Batch = batch, noise: torch.Tensor = noise, k: int = number) -> None:
            forms["course"].step(place.batch(batch, features, noise, k))

        for name, action in (("plain", plain), ("course", course)):
            seconds[name].append(timed(action, device))
    times = {name: float(np.mean(values[2:])) for name, values in seconds.items()}
    figures = {
        "plain": ("training images a second, plain form", size / times["plain"]),
        "course": ("training images a second, the course's form", size / times["course"]),
        "ratio": ("images a second of the course's form over the plain form's",
                  times["plain"] / times["course"]),
    }  # fmt: skip
    for number in (16, 32, 64, 128):
        figures[f"batch-{number}"] = (
            f"milliseconds an image of the course's step, batch {number}, side 64",
            1e3 * step_seconds(place, number, 64, steps // 2) / number,
        )
    for side in (32, 64, 128):
        figures[f"side-{side}"] = (
            f"microseconds a pixel of the course's step, batch 32, side {side}",
            1e6 * step_seconds(place, 32, side, steps // 2) / (32 * side**2),
        )
    if device.type == "cuda":
        batch = random_batch(size, 64, encoder.width, 1, place)
        with FlopCounterMode(display=False) as counter:
            forms["course"].objective.mismatched = random_false
            forms["course"].step(batch)
        share = counter.get_total_flops() / times["course"] / matrix_peak(place)
        figures["peak-share"] = ("share of the matrix peak in bf16, measured by a product", share)
    for metric, value in figures.values():
        print(f"{metric}: {value:.4g}")
    if arguments.ledger:
        rows = ledger_rows("gan-speed", figures, steps, "val", "scenes", begin)
        print(f"written: {report.add_rows('gan_speed.json', rows).name}")


if __name__ == "__main__":
    main()
