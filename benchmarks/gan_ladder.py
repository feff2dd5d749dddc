"""The ablation of the GAN: one ingredient more on every rung, three seeds a rung.

    python benchmarks/gan_ladder.py                   trains what is missing, prints the table
    python benchmarks/gan_ladder.py --ledger ladder   writes it to data/results/ladder.json, too

So that shapes appear in ten minutes on two cores, it is smaller than the flagship: the scenes of
one and two objects, averaged to 32 x 32 pixels, and as many steps for every rung. What is drawn is
enlarged to 64 x 64 and read by the oracle, which reads real test pictures that went the same way:
the line "real pictures" says how well, and no rung can be right more often. FD-scenes and recall
compare with these pictures.

A run that is done stands in data/cache/gan_ladder_runs.jsonl and is not made again; one that was
stopped goes on from its checkpoint. The value of a rung is the mean of its seeds; its interval is
Student's at 95 % over the seeds' values. Nothing is chosen by the test split.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from t2i_course import data, report, runtime, training
from t2i_course.evaluation import frechet, precision_recall
from t2i_course.gan import Gan, GanConfig
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.metrics.held_out import draw_pictures
from t2i_course.metrics.picture_features import extract_features
from t2i_course.metrics.scene_features import load_scene_features
from t2i_course.reproduction import limits
from t2i_course.scenes import accuracy, mismatched_captions
from t2i_course.scenes.wording import Facts
from t2i_course.significance import seed_interval
from t2i_course.text_encoder import EmbeddedCaptions, TextEncoder, embed_captions, embed_words
from t2i_course.training import TrainingConfig

ENCODER, SIDE, MOST = "caption-bert-2", 32, 2  # pixels; objects of a scene
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
}
REAL = "real pictures"
SHARES = ("all", "one object", "two objects", "color", "shape", "relation", "background")


@dataclass(frozen=True)
class Part:
    """Scenes of one and two objects of a split, with features of their captions."""

    folder: Path
    whole: data.PackedCaptions
    packed: data.PackedPart
    text: EmbeddedCaptions
    facts: list[Facts]  # of packed.all_captions


@cache
def load_part(split: str, captions: int | None = None, most: int | None = None) -> Part:
    """Read a split, with so many captions of each picture, and so many pictures at most."""
    folder = data.resolve_data("scenes")
    whole = data.pack(folder, split, 64, progress=False)
    facts, starts = mismatched_captions.facts_of(folder, whole, split), whole.caption_starts
    images = [i for i, row in enumerate(starts[:-1]) if len(facts[row]["objects"]) <= MOST][:most]
    kept = None
    if captions is not None:
        kept = [row for i in images for row in range(starts[i], starts[i + 1])[:captions]]
    packed = data.PackedPart(whole, images, SIDE, kept)
    text = embed_words(TextEncoder(ENCODER), packed.all_captions, progress=False)
    return Part(folder, whole, packed, text, [facts[row] for row in packed.caption_rows])


def false_captions(part: Part, config: GanConfig) -> mismatched_captions.MismatchedCaptions:
    """What draws false captions of a part's pictures, most of them wrong in one fact."""
    packed = part.packed
    true = mismatched_captions.scenes_truth(part.folder, "train", part.whole)
    wrong = mismatched_captions.contradicting_captions(part.folder, "train", part.whole)
    wrong = embed_captions(
        TextEncoder(ENCODER), [wrong[row] for row in packed.caption_rows], progress=False
    )
    return mismatched_captions.MismatchedCaptions(
        packed, part.text, lambda c, i: true(packed.caption_rows[c], packed.image_rows[i]),
        wrong, config.contradicting, config.false_captions,
    )  # fmt: skip


def ingredients(rung: str) -> GanConfig:
    """The configuration of a rung: its ingredient and those of the rungs before it."""
    names = list(RUNGS)
    changes: dict[str, Any] = {}
    for name in names[: names.index(rung) + 1]:
        changes |= RUNGS[name]
    return replace(SMALL, **changes)


def build(rung: str, part: Part, config: TrainingConfig) -> training.Objective:
    """Networks and losses of a rung."""
    gan, width = ingredients(rung), part.text.shape[1]
    if rung == "mse":
        objective = training.MeanSquaredError(ResidualDecoder(width, 0, SIDE, 16), config)
    else:
        false = false_captions(part, gan) if gan.matching_aware else None
        objective = Gan(gan, width, SIDE, false)
    for network in objective.modules.values():
        network.standardize.fit(part.text)
    return objective


def enlarge(images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [N, 3, 32, 32] as the oracle and the metric network take them, at 64 x 64."""
    larger = functional.interpolate(
        torch.from_numpy(images).float(), scale_factor=2, mode="bicubic"
    )
    return larger.clamp(0, 255).round().to(torch.uint8).numpy()


def measure(images: np.ndarray, test: Part) -> dict[str, float]:
    """Figures of pictures uint8 [N, 3, 32, 32], one for each test caption."""
    drawn, real = enlarge(images), enlarge(test.packed.images)
    found = accuracy.accuracy(accuracy.check_images(drawn, test.facts), test.facts)
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
    train, val = load_part("train"), load_part("val", captions=1, most=arguments.samples)
    test = load_part("test", captions=1, most=arguments.samples)
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
        test = load_part("test", captions=1, most=arguments.samples)
        write({"name": name, "found": measure(test.packed.images, test), "seconds": 0.0,
               "hardware": runtime.hardware(), "samples": len(test.packed)})  # fmt: skip
    return finished()[name]


def rows_of(
    rung: str, runs: Sequence[dict[str, Any]], seeds: Sequence[int], after: str, command: str
) -> list[report.Row]:
    """Rows of the ledger for the mean of some seeds."""
    rows = []
    for metric in [*runs[0]["found"], "seconds of training"]:
        values = [entry["found"].get(metric, entry["seconds"]) for entry in runs]
        rows.append(report.Row(
            id=f"ladder-{report.slug(f'{rung} {metric}')}", metric=f"{rung}: {metric}, {after}",
            value=float(np.mean(values)), interval=seed_interval(values, *limits(metric)),
            samples=runs[0]["samples"], seeds=tuple(seeds), split="test",
            extractor="oracle, of pictures enlarged from 32 pixels" if "accuracy" in metric
            else "none" if "seconds" in metric else "scene-features",
            data="scenes of one and two objects at 32 pixels", hardware=runs[0]["hardware"],
            seconds=round(sum(entry["seconds"] for entry in runs), 1), command=command,
        ))  # fmt: skip
    return rows


def main() -> None:
    """Train every rung with every seed, and put the figures together."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rungs", nargs="+", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=4000, help="of every run (4000)")
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
    for seed in arguments.seeds:
        for rung in arguments.rungs:
            run(rung, seed, arguments)
    rows = rows_of(REAL, [real], (), "enlarged from 32 pixels", command)[:-1]
    for rung in arguments.rungs:
        runs = [run(rung, seed, arguments) for seed in arguments.seeds]
        rows += rows_of(rung, runs, arguments.seeds, after, command)
    for row in rows:
        low, high = row.interval or (row.value, row.value)
        print(f"{row.value:.3g} ({low:.3g} to {high:.3g})  {row.metric}")
    if arguments.ledger:
        print(f"written: {report.add_rows(f'{arguments.ledger}.json', rows).name}")


if __name__ == "__main__":
    main()
