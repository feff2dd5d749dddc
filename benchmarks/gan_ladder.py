"""The ablation of the GAN: one ingredient more on every rung, three seeds a rung.

    python benchmarks/gan_ladder.py                   trains what is missing, prints the table
    python benchmarks/gan_ladder.py --ledger ladder   writes it to data/results/ladder.json, too

So that shapes appear within minutes, it is smaller than the flagship: close-ups of 32 x 32 pixels,
each with one large object anywhere in it, of all shapes, colours and grounds, and as many steps for
every rung. What is drawn gets its margin back, is then 64 x 64 pixels large, and is read by the
oracle; the line "real pictures" says how often it reads real test pictures right that went the same
way. FD-scenes and recall compare with these pictures.

A run that is done stands in data/cache/gan_ladder_runs.jsonl and is not made again; one that was
stopped goes on from its checkpoint. The value of a rung is the mean of its seeds; its interval is
Student's at 95 % over the seeds' values. Nothing is chosen by the test scenes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from t2i_course import data, multitask, report, runtime, training
from t2i_course.evaluation import frechet, precision_recall
from t2i_course.gan import Gan, GanConfig
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.metrics.held_out import draw_pictures
from t2i_course.metrics.picture_features import extract_features
from t2i_course.metrics.scene_features import load_scene_features
from t2i_course.reproduction import limits
from t2i_course.scenes import accuracy, drawing
from t2i_course.scenes.mismatched_captions import MismatchedCaptions, contradicting_facts
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.wording import choose_facts, word_facts
from t2i_course.significance import seed_interval
from t2i_course.text_cache import EmbeddedCaptions, embed_words
from t2i_course.text_encoder import TextEncoder
from t2i_course.training import TrainingConfig

ENCODER, SIDE, TRAIN, CAPTIONS = "caption-bert", 32, 5_000, 3  # captions of a training picture
RUNS = runtime.data_folder() / "cache" / "gan_ladder_runs.jsonl"  # every run, as it was
SMALL = GanConfig(
    text_blocks=False, words=False, matching_aware=False, penalty=False, augment=()
)  # what is left when every ingredient is off
RUNGS: dict[str, dict[str, Any]] = {  # what each rung changes; the ones before it stay
    "mse": {},
    "discriminator": {},  # and noise
    "false-captions": {"matching_aware": True},
    "text-blocks": {"text_blocks": True},
    "words": {"words": True},
    "penalty": {"penalty": True},
    "averaged": {},  # by `average_decay`
    "diffaugment": {"augment": ("translation",)},
    "redescription": {"redescription": 0.1},  # the captioner of 09, some 20 nats: weighs as a logit
}
REAL = "real pictures"
SHARES = ("all", "color", "shape", "background")


class CloseUps(data.PackedCaptions):
    """Close-ups of one large object in memory, with captions, 32 x 32 pixels.

    Attributes, beside those of `PackedCaptions`:
        scenes: what is in each picture.
        facts: what each of all_captions states.
    """

    def __init__(self, split: str, count: int, captions: int) -> None:
        """Draw them, from a seed that is the split's name."""
        rng, self.scenes, middle = random.Random(f"ladder {split}"), [], drawing.SIDE // 2
        while len(self.scenes) < count:
            scene = drawing.sample_scene(rng, shares={"one": 1.0})
            (thing,) = scene.objects
            if thing.size == "large":
                x, y = (middle + rng.randint(-4, 4) for _ in range(2))
                thing = replace(thing, x=x, y=y, diameter=22)
                self.scenes.append(replace(scene, objects=(thing,)))
        self.facts = [choose_facts(scene, rng) for scene in self.scenes for _ in range(captions)]
        self.all_captions = [word_facts(stated, rng) for stated in self.facts]
        self.caption_starts = np.arange(0, captions * count + 1, captions)
        self.captions = [self.all_captions[k : k + captions] for k in self.caption_starts[:-1]]
        self.image_ids = np.arange(count)
        self.size, self.key = SIDE, f"close-ups-{split}-{count}-{captions}"
        self.path = Path(self.key)
        kept = slice(middle - SIDE // 2, middle + SIDE // 2)
        self.images = drawing.render_all(self.scenes)[:, :, kept, kept].copy()  # [N, 3, 32, 32]


@dataclass(frozen=True)
class Part:
    """Pictures with captions, and the features of these."""

    packed: CloseUps
    text: EmbeddedCaptions


@cache
def load_part(split: str, count: int, captions: int = 1) -> Part:
    """Draw pictures and encode their captions."""
    packed = CloseUps(split, count, captions)
    return Part(packed, embed_words(TextEncoder(ENCODER), packed.all_captions, progress=False))


def false_captions(part: Part, config: GanConfig) -> MismatchedCaptions:
    """What draws false captions of a part's pictures, most of them wrong in one fact."""
    packed, rng, wrong = part.packed, random.Random("false captions"), []
    owners = packed.images_of(np.arange(len(packed.facts)))
    for caption, stated, image in zip(packed.all_captions, packed.facts, owners, strict=True):
        entry = {"caption": caption, "facts": stated}
        wrong.append(word_facts(contradicting_facts(entry, packed.scenes[image], rng), rng))

    def is_true(caption: int, image: int) -> bool:
        return all(check_facts(packed.facts[caption], packed.scenes[image]).values())

    features = embed_words(TextEncoder(ENCODER), wrong, progress=False)
    return MismatchedCaptions(
        packed, part.text, is_true, features, config.contradicting, config.false_captions
    )


def ingredients(rung: str) -> GanConfig:
    """The configuration of a rung: its ingredient and those of the rungs before it."""
    names = list(RUNGS)
    changes: dict[str, Any] = {}
    for name in names[: names.index(rung) + 1]:
        changes |= RUNGS[name]
    return replace(SMALL, **changes)


@cache
def second_teacher() -> Callable[[Tensor, Sequence[str]], Tensor]:
    """-log p(caption | picture) [B] of pictures [B, 3, 32, 32], widened for the captioner."""
    redescribe = multitask.redescription(*multitask.load_captioner(device="cpu"))
    return lambda images, captions: redescribe(widen(images), captions)


def build(rung: str, part: Part, config: TrainingConfig) -> training.Objective:
    """Networks and losses of a rung."""
    gan, width = ingredients(rung), part.text.shape[1]
    if rung == "mse":
        objective = training.MeanSquaredError(ResidualDecoder(width, 0, SIDE, 16), config)
    else:
        false = false_captions(part, gan) if gan.matching_aware else None
        teacher = second_teacher() if gan.redescription else None
        objective = Gan(gan, width, SIDE, false, redescribe=teacher)
    for network in objective.modules.values():
        network.standardize.fit(part.text)
    return objective


def widen(images: Tensor) -> Tensor:
    """Close-ups [N, 3, 32, 32] with a margin that goes on as their edge: [N, 3, 64, 64]."""
    return functional.pad(images, [(drawing.SIDE - SIDE) // 2] * 4, mode="replicate")


def measure(images: np.ndarray, test: Part) -> dict[str, float]:
    """Figures of pictures uint8 [N, 3, 32, 32], one for each test caption."""
    drawn, real = (widen(torch.from_numpy(each)).numpy() for each in (images, test.packed.images))
    facts = test.packed.facts
    found = accuracy.accuracy(accuracy.check_images(drawn, facts), facts)
    figures = {f"scene accuracy: {name}": found[name].value for name in SHARES if name in found}
    if images is not test.packed.images:
        features = [extract_features(load_scene_features(), each) for each in (real, drawn)]
        figures["FD-scenes"] = frechet(*features, repeats=0, allow_few=True).value
        figures["recall"] = precision_recall(*features, repeats=0).recall.value
    return figures


def finished() -> dict[str, dict[str, Any]]:
    """Runs that are done, by name."""
    lines = RUNS.read_text(encoding="utf-8").splitlines() if RUNS.exists() else []
    return {run["name"]: run for run in map(json.loads, lines)}


def run(rung: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and measure a rung, unless that is done."""
    name = f"{rung}, seed {seed}, {arguments.steps} steps of {arguments.batch_size}"
    if name in (done := finished()):
        return done[name]
    averaging = list(RUNGS).index(rung) >= list(RUNGS).index("averaged")
    config = TrainingConfig(
        steps=arguments.steps, batch_size=arguments.batch_size, seed=seed, learning_rate=2e-3,
        average_decay=0.999 if averaging else 0.0, validate_every=arguments.steps,
    )  # fmt: skip
    train = load_part("train", TRAIN, CAPTIONS)
    val, test = (load_part(split, arguments.samples) for split in ("val", "test"))
    runtime.seed_everything(seed)
    objective = build(rung, train, config)
    folder = runtime.data_folder() / "runs" / f"ladder-{rung}-{seed}-{arguments.steps}"
    history = training.train(
        objective, config, train.packed, val.packed, train.text, val.text,
        run_folder=folder, resume=True, device="cpu", progress=False,
    )  # fmt: skip
    found = measure(draw_pictures(objective.modules["generator"], test.text), test)
    entry = {"name": name, "found": found, "seconds": round(history.seconds, 1),
             "hardware": runtime.hardware(), "samples": len(test.packed)}  # fmt: skip
    write(entry)
    shutil.rmtree(folder)
    return entry


def write(entry: dict[str, Any]) -> None:
    """Add a run to those that are done."""
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    with RUNS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    print(json.dumps(entry), flush=True)


def real_pictures(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is found of the real test pictures, averaged and enlarged as the drawn ones are."""
    name = f"{REAL}, {arguments.samples}"
    if name not in finished():
        test = load_part("test", arguments.samples)
        write({"name": name, "found": measure(test.packed.images, test), "seconds": 0.0,
               "hardware": runtime.hardware(), "samples": len(test.packed)})  # fmt: skip
    return finished()[name]


def rows_of(
    rung: str,
    runs: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    after: str,
    command: str,
    seconds: float,
) -> list[report.Row]:
    """Rows of the ledger for the mean of some seeds; the command took so many seconds in all."""
    rows = []
    for metric in [*runs[0]["found"], "seconds of training"]:
        values = [entry["found"].get(metric, entry["seconds"]) for entry in runs]
        rows.append(report.Row(
            id=f"ladder-{report.slug(f'{rung} {metric}')}", metric=f"{rung}: {metric}, {after}",
            value=float(np.mean(values)), interval=seed_interval(values, *limits(metric)),
            samples=runs[0]["samples"], seeds=tuple(seeds), split="test",
            extractor="oracle, of close-ups with their margin" if "accuracy" in metric
            else "none" if "seconds" in metric else "scene-features",
            data="close-ups of one large object, 32 pixels", hardware=runs[0]["hardware"],
            seconds=seconds, command=command,
        ))  # fmt: skip
    return rows


def main() -> None:
    """Train every rung with every seed, and put the figures together."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rungs", nargs="+", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="of every run (1000)")
    parser.add_argument("--batch-size", type=int, default=48, help="pictures a step (48)")
    parser.add_argument("--samples", type=int, default=1000, help="test captions (1000)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    arguments.ledger = report.check_name(arguments.ledger)
    how = f"--steps {arguments.steps} --batch-size {arguments.batch_size}"
    command = (
        f"python benchmarks/gan_ladder.py {how} --ledger {arguments.ledger or 'ladder'} "
        f"--rungs {' '.join(arguments.rungs)}"
    )
    after = f"mean of the seeds, after {arguments.steps} steps of {arguments.batch_size} pictures"
    real = real_pictures(arguments)
    runs: dict[str, list[dict[str, Any]]] = {rung: [] for rung in arguments.rungs}
    for seed in arguments.seeds:
        for rung, own in runs.items():
            own.append(run(rung, seed, arguments))
    seconds = round(sum(entry["seconds"] for own in runs.values() for entry in own), 1)
    rows = rows_of(REAL, [real], (), "with their margin", command, seconds)[:-1]
    for rung, own in runs.items():
        rows += rows_of(rung, own, arguments.seeds, after, command, seconds)
    for row in rows:
        low, high = row.interval or (row.value, row.value)
        print(f"{row.value:.3g} ({low:.3g} to {high:.3g})  {row.metric}")
    if arguments.ledger:
        print(f"written: {report.add_rows(f'{arguments.ledger}.json', rows).name}")


if __name__ == "__main__":
    main()
