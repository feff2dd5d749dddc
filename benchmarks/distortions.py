"""Measure FD-scenes and the other metrics under known distortions of real pictures.

    python benchmarks/distortions.py            prints the figures
    python benchmarks/distortions.py --ledger   writes them to data/results/distortions.json

The reference is val. All sets are made from the same newly drawn scenes, of val's kind and number,
so that a distorted set is never nearer to val for holding val's own pictures.

    real          as drawn
    light blur    Gaussian, 1 pixel
    heavy blur    Gaussian, 3 pixels
    noise         normal, 10 of 255
    half missing  each shape is left out with the probability of one half
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace

import numpy as np
from scipy import ndimage

from t2i_course import evaluation, report, runtime
from t2i_course.metrics import held_out
from t2i_course.metrics.picture_features import extract_features
from t2i_course.metrics.scene_features import load_scene_features
from t2i_course.scenes import drawing

SEED = 7


def make_sets(count: int) -> dict[str, np.ndarray]:
    """Draw scenes and distort them: uint8 [N, 3, 64, 64] by name."""
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    drawn = [drawing.sample_scene(rng, bool(index % 2)) for index in range(count)]
    fewer = [
        replace(scene, objects=tuple(o for o in scene.objects if rng.random() < 0.5))
        for scene in drawn
    ]
    real, missing = map(drawing.render_all, (drawn, fewer))

    def blurred(pixels: float) -> np.ndarray:
        smooth = ndimage.gaussian_filter(real.astype(np.float32), (0, 0, pixels, pixels))
        return smooth.round().clip(0, 255).astype(np.uint8)

    noisy = (real + noise.normal(0, 10, real.shape)).round().clip(0, 255).astype(np.uint8)
    return {
        "real": real,
        "light blur": blurred(1),
        "heavy blur": blurred(3),
        "noise": noisy,
        "half missing": missing,
    }


def main() -> None:
    """Measure every set; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=2_000, help="pictures in a set (2000)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    held = held_out.open_held_out("scenes", "val", drawing.SIDE)
    extractor = load_scene_features()
    reference = extract_features(extractor, np.asarray(held.packed.images))
    start, rows = time.perf_counter(), []
    for name, pictures in make_sets(arguments.samples).items():
        features = extract_features(extractor, pictures)
        pair = evaluation.precision_recall(reference, features)
        measured = {
            "FD-scenes": evaluation.frechet(reference, features),
            "kernel distance, scene features": evaluation.kernel_distance(reference, features),
            "precision": pair.precision,
            "recall": pair.recall,
        }
        print(name)
        for metric, estimate in measured.items():
            print(f"  {metric:32} {estimate}")
            short = metric.split(",")[0]
            rows.append(
                report.Row(
                    id=f"distortions-{name}-{short}".lower().replace(" ", "-"),
                    metric=f"{metric}, of {name}",
                    value=estimate.value,
                    interval=estimate.interval,
                    samples=arguments.samples,
                    seeds=(SEED,),
                    split="val",
                    extractor=extractor.name,
                    data="scenes",
                    hardware=runtime.hardware(),
                    seconds=round(time.perf_counter() - start, 1),
                    command=f"python benchmarks/distortions.py --samples {arguments.samples} "
                    "--ledger",
                )
            )
    if arguments.ledger:
        print(f"written: {report.add_rows('distortions.json', rows).name}")


if __name__ == "__main__":
    main()
