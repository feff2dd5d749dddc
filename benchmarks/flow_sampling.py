"""Measure how the flow is best followed: guidance, steps and solver, beside GAN and style decoder.

    python benchmarks/flow_sampling.py             prints the figures
    python benchmarks/flow_sampling.py --ledger    writes data/results/flow_sampling.json

All draw the same held-out captions of val, with noise of one seed, one picture a caption. The
oracle says whether a picture shows all that its caption states; recall is the share of the real
pictures' variety that is reached; a picture's milliseconds are those of one thread, in batches of
64, text and networks that measure not counted.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from t2i_course import generation, report, runtime
from t2i_course.evaluation import Estimate, precision_recall
from t2i_course.flow_matching import FlowGenerator
from t2i_course.metrics import held_out
from t2i_course.metrics.picture_features import extract_features
from t2i_course.metrics.scene_features import load_scene_features
from t2i_course.scenes import accuracy
from t2i_course.text_cache import embed_for

GUIDANCE = (1.0, 2.0, 3.0, 5.0)
STEPS = {"euler": (1, 2, 5, 10, 20), "heun": (2, 5, 10)}


def ways() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of each way to follow the flow, and what is set for it."""
    yield "as shipped", {}
    for guidance in GUIDANCE:
        yield f"guidance {guidance}", {"guidance": guidance}
    for low, high in ((0.0, 0.35), (0.1, 0.8)):
        yield f"guidance from {low} to {high}", {"interval": (low, high)}
    for shift in (1.0, 5.0):
        yield f"shift {shift}", {"shift": shift}
    for solver, counts in STEPS.items():
        for steps in counts:
            yield f"{solver} {steps}", {"solver": solver, "steps": steps}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="flow", help="a checkpoint of the kind flow")
    parser.add_argument("--samples", type=int, default=250, help="captions of val (250)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    held = held_out.open_held_out("scenes", "val")
    captions = held_out.choose_captions(held, arguments.samples)
    facts = [held.facts[row] for row in captions]
    reader, rows = load_scene_features(), []
    real = extract_features(reader, held.packed.images[held.images_of(captions)])
    command = f"python benchmarks/flow_sampling.py --samples {arguments.samples} --ledger"

    def keep(way: str, what: str, found: Estimate, extractor: str, seconds: float) -> None:
        print(f"{way}: {what} {found}", flush=True)
        rows.append(report.Row(
            id=f"flow-sampling-{report.slug(f'{way} {what}')}", metric=f"{way}: {what}",
            value=found.value, interval=found.interval, samples=max(found.samples, 1), seeds=(0,),
            split="val", extractor=extractor, data="scenes", hardware=runtime.hardware(),
            seconds=round(seconds, 1), command=command,
        ))  # fmt: skip

    @functools.cache  # the ways that are shipped come twice
    def draw(generator: torch.nn.Module, *chosen: object) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        return held_out.draw_pictures(generator, text), time.perf_counter() - start

    def measure(way: str, generator: torch.nn.Module, *chosen: object) -> None:
        images, spent = draw(generator, *chosen)
        whole = accuracy.accuracy(accuracy.check_images(images, facts), facts)
        for part in ("all", "one object", "two objects", "three objects"):
            keep(way, f"scene accuracy: {part}", whole[part], "oracle", spent)
        recall = precision_recall(real, extract_features(reader, images)).recall
        keep(way, "recall", recall, "scene-features", spent)
        cost = Estimate(1000 * spent / len(images), None, len(images))
        keep(way, "milliseconds a picture", cost, "none", spent)

    for name in ("gan", "style", arguments.model):
        generator, encoder, _ = generation.load_model(name)
        text = embed_for(generator, encoder, held.captions(captions), progress=False)
        if not isinstance(generator, FlowGenerator):
            measure(name, generator)
            continue
        names = ("guidance", "interval", "steps", "solver", "shift")
        usual = {name: getattr(generator, name) for name in names}
        for way, changed in ways():
            chosen = usual | changed
            vars(generator).update(chosen)
            measure(f"flow, {way}", generator, *chosen.values())
    if arguments.ledger:
        print(f"written: {report.add_rows('flow_sampling.json', rows).name}")


if __name__ == "__main__":
    main()
