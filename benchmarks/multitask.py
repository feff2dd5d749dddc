"""Are captions true, and do two directions in one network help each other?

    python benchmarks/multitask.py             measures, prints
    python benchmarks/multitask.py --ledger    writes data/results/multitask.json, too

Captions: the shipped captioner words the scenes of test, greedily and by a beam; a caption is right
if every statement is true of the scene. Round trip: the shipped GAN draws a caption of each of some
val scenes, the captioner words the drawing, and the new caption is compared with what the oracle
reads there.

Together: captioning alone, drawing alone, and both in one network with uncertainty weighting, at 32
pixels, each from the same initial weights, with as many batches of each task. So the shared network
costs as much as the two alone, with fewer weights. Its intervals are Student's at 95 % over the
seeds. A training that is done stands in data/cache/multitask_runs.jsonl and is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
import torch

from t2i_course import multitask, report, runtime
from t2i_course.data import Batch, PackedCaptions, PackedPart, pack, resolve_data, to_float
from t2i_course.evaluation import wilson_interval
from t2i_course.generation import load_model, sample
from t2i_course.metrics.networks import fit
from t2i_course.scenes import drawing
from t2i_course.scenes.accuracy import NUMBERS
from t2i_course.scenes.caption_reader import is_true
from t2i_course.scenes.oracle import read_picture
from t2i_course.significance import seed_interval
from t2i_course.text_encoder import TextEncoder

RUNS = runtime.data_folder() / "cache" / "multitask_runs.jsonl"
SIDE, BATCH, RATE, HELD_OUT, SEEDS = 32, 32, 1.5e-3, 500, (0, 1, 2)
ARMS = {"captions alone": ("caption",), "pictures alone": ("picture",),
        "together": ("caption", "picture")}  # fmt: skip
UNITS = {"caption": "nats a word", "picture": "squared error of a pixel"}
COMMAND = "python benchmarks/multitask.py --ledger"


def train(
    arm: str, seed: int, steps: int, packed: PackedCaptions, encoder: TextEncoder
) -> multitask.BothWays:
    """Train the parts that an arm's tasks use; the rest keeps its initial weights."""
    runtime.seed_everything(seed)
    captioner = multitask.Captioner(len(encoder.tokenizer), encoder.max_tokens, SIDE)
    network, weigh = multitask.BothWays(captioner), multitask.UncertaintyWeighting()

    def loss(batch: Batch) -> torch.Tensor:
        losses = network.losses(batch.images, *encoder.tokenize(batch.captions).values(), ARMS[arm])
        return weigh(losses) if len(losses) > 1 else sum(losses.values())

    both = torch.nn.ModuleList([network, weigh])
    fit(both, loss, packed, steps, BATCH, RATE, seed, torch.device("cpu"), progress=False)
    return network


@torch.inference_mode()
def held_out_losses(
    network: multitask.BothWays, packed: PackedCaptions, encoder: TextEncoder, tasks: Sequence[str]
) -> dict[str, float]:
    """Mean losses of held-out pictures with their first captions."""
    found: dict[str, list[float]] = {task: [] for task in tasks}
    for rows in np.array_split(np.arange(len(packed)), len(packed) // 50):
        images = to_float(torch.from_numpy(np.array(packed.images[rows])))
        captions = [packed.captions[row][0] for row in rows]
        losses = network.losses(images, *encoder.tokenize(captions).values(), tasks)
        for task, value in losses.items():
            found[task].append(float(value))
    return {task: float(np.mean(values)) for task, values in found.items()}


def both_ways(steps: int) -> list[report.Row]:
    """Train every arm with every seed; a row for each arm and task, and for the differences."""
    folder, encoder = resolve_data("scenes"), TextEncoder(device="cpu")
    whole = {split: pack(folder, split, progress=False) for split in ("train", "val")}
    part = PackedPart(whole["train"], range(len(whole["train"])), SIDE)
    held = PackedPart(whole["val"], range(HELD_OUT), SIDE)
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    lines = RUNS.read_text("utf-8").splitlines() if RUNS.exists() else []
    done = {tuple(run["key"]): run for run in map(json.loads, lines)}
    for seed in SEEDS:
        for arm, tasks in ARMS.items():
            key, start = (arm, seed, steps), time.perf_counter()
            if key in done:
                continue
            network = train(arm, seed, steps, part, encoder)
            losses = held_out_losses(network, held, encoder, tasks)
            done[key] = {"key": key, "losses": losses, "seconds": time.perf_counter() - start}
            with RUNS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[key]) + "\n")
            print(arm, seed, losses, f"{done[key]['seconds']:.0f} s", flush=True)

    def row(name: str, metric: str, values: np.ndarray, seconds: float) -> report.Row:
        return report.Row(
            id=f"multitask-{report.slug(name)}", metric=metric, value=float(values.mean()),
            interval=seed_interval(values), samples=HELD_OUT, seeds=SEEDS,
            split="val", extractor="none", data="scenes", hardware=runtime.hardware(),
            seconds=round(seconds, 1), command=f"{COMMAND} --steps {steps}",
        )  # fmt: skip

    rows = []
    for task, alone in (("caption", "captions alone"), ("picture", "pictures alone")):
        runs = {arm: [done[arm, seed, steps] for seed in SEEDS] for arm in (alone, "together")}
        values = {arm: np.array([r["losses"][task] for r in of]) for arm, of in runs.items()}
        for arm, of in runs.items():
            seconds = sum(run["seconds"] for run in of)
            rows.append(row(f"{arm} {task}", f"{arm}: {UNITS[task]}, {steps} steps", values[arm],
                            seconds))  # fmt: skip
        gain = values["together"] - values[alone]
        rows.append(row(f"gain {task}", f"together minus alone: {UNITS[task]}", gain, seconds))
    return rows


def share_row(
    name: str, metric: str, right: list[bool], start: float, split: str = "val"
) -> report.Row:
    """A row for a share of captions that are true."""
    share = float(np.mean(right))
    return report.Row(
        id=f"multitask-{report.slug(name)}", metric=metric, value=share,
        interval=wilson_interval(share, len(right)), samples=len(right), seeds=(0,), split=split,
        extractor="reader of captions", data="scenes", hardware=runtime.hardware(),
        seconds=round(time.perf_counter() - start, 1), command=COMMAND,
    )  # fmt: skip


def captions_true(count: int, width: int) -> list[report.Row]:
    """Captions of test scenes, true in every statement, by the number of objects."""
    folder, (network, encoder) = resolve_data("scenes"), multitask.load_captioner(device="cpu")
    held, scenes = pack(folder, "test", progress=False), drawing.read_instances(folder, "test")
    start, way = time.perf_counter(), "greedy" if width == 1 else f"beam of {width}"
    right: dict[str, list[bool]] = {name: [] for name in NUMBERS.values()}
    for rows in np.array_split(np.arange(count), max(count // 100, 1)):
        images = torch.from_numpy(np.array(held.images[rows]))
        for row, caption in zip(rows, network.describe(images, encoder, width), strict=True):
            scene = scenes[int(held.image_ids[row])]
            right[NUMBERS[len(scene.objects)]].append(is_true(caption, scene) is True)
    return [
        share_row(f"{way} {name}", f"captioner, {way}: captions true in every statement, {name}",
                  values, start, "test")
        for name, values in right.items()
    ]  # fmt: skip


def round_trip(count: int) -> list[report.Row]:
    """Caption to picture to caption: is the second caption true of what the oracle reads?"""
    generator, encoder, _ = load_model("gan", "cpu")
    network, words = multitask.load_captioner(device="cpu")
    held, start = pack(resolve_data("scenes"), "val", progress=False), time.perf_counter()
    captions = [held.captions[row][0] for row in range(count)]
    images = torch.cat(list(sample(generator, encoder, captions, 1, progress=False)))
    told = [c for part in images.split(100) for c in network.describe(part, words)]
    read = [read_picture(image.permute(1, 2, 0).numpy()) for image in images]
    pairs = list(zip(captions, told, read, strict=True))
    there = [is_true(caption, scene) is True for caption, _, scene in pairs]
    back = [is_true(caption, scene) is True for _, caption, scene in pairs]
    whole = [a and b for a, b in zip(there, back, strict=True)]
    parts = {"drawn as stated": there, "worded as drawn": back, "both": whole}
    return [
        share_row(f"round trip {name}", f"round trip, GAN and captioner: {name}", values, start)
        for name, values in parts.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100, help="of each training (100)")
    parser.add_argument("--count", type=int, default=2000, help="scenes that are worded (2,000)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    parser.add_argument("--only", nargs="*", default=["greedy", "beam", "trip", "together"],
                        metavar="PART", help="some of: %(default)s")  # fmt: skip
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = {
        "greedy": lambda: captions_true(arguments.count, 1),
        "beam": lambda: captions_true(arguments.count, 4),
        "trip": lambda: round_trip(min(arguments.count, 300)),
        "together": lambda: both_ways(arguments.steps),
    }
    for name in arguments.only:
        rows = parts[name]()
        for row in rows:
            low, high = row.interval
            print(f"{row.metric}: {row.value:.4f} ({low:.4f} to {high:.4f})", flush=True)
        if arguments.ledger:
            report.add_rows("multitask.json", rows)


if __name__ == "__main__":
    main()
