"""Measure the shipped baseline on val: pixel error, and what the oracle can read in its pictures.

    python benchmarks/baseline_fit.py            prints the figures
    python benchmarks/baseline_fit.py --ledger   writes them to data/results/baseline.json, too

One picture for the first caption of each image of val, rounded to 8 bits. Rows for the real
pictures, and for the mean training picture whatever the caption, stand beside the model's.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy import stats

from t2i_course import data, generation, report, runtime
from t2i_course.scenes import drawing, oracle
from t2i_course.text_encoder import embed_captions

SUBSETS = ("val_seen", "val_unseen")


def draw(name: str, texts: list[str], settings: runtime.Settings) -> np.ndarray:
    """Draw one picture for each text: uint8 [N, 3, 64, 64]."""
    generator, encoder, _ = generation.load_model(name, settings.device)
    features = torch.from_numpy(np.array(embed_captions(encoder, texts)))
    pictures = []
    with torch.inference_mode():
        for part in features.split(250):
            images = generator(part.to(settings.device), None)
            pictures.append(data.to_uint8(images.cpu()).numpy())
    return np.concatenate(pictures)


def main() -> None:
    """Draw, compare and read; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="baseline", help="a checkpoint (baseline)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    settings = runtime.settings()
    folder = drawing.make_scenes()
    train, val = (data.pack(folder, split, 64) for split in ("train", "val"))
    entries = drawing.read_captions(folder, "val")
    first = [entries[start] for start in val.caption_starts[:-1]]
    subsets = np.array([SUBSETS[i % 2] for i in range(len(val))])
    rows = []
    real = np.array(val.images)
    mean = np.asarray(train.images).mean(axis=0).round().astype(np.uint8)
    start = time.perf_counter()
    drawn = {
        "real": real,
        "mean-picture": np.broadcast_to(mean, real.shape),
        arguments.model: draw(arguments.model, [entry["caption"] for entry in first], settings),
    }
    for name, pictures in drawn.items():
        read = [oracle.read_picture(p) for p in np.moveaxis(pictures, 1, -1)]
        checks = [oracle.check_facts(e["facts"], s) for e, s in zip(first, read, strict=True)]
        seconds = round(time.perf_counter() - start, 1)
        common = {
            "seeds": (0,), "data": "scenes", "hardware": runtime.hardware(), "seconds": seconds,
            "command": f"python benchmarks/baseline_fit.py --model {arguments.model} --ledger",
        }  # fmt: skip
        difference = (pictures.astype(np.float64) - real) / 127.5  # in units of [-1, 1]
        errors = np.square(difference).mean(axis=(1, 2, 3))
        margin = 1.96 * errors.std(ddof=1) / np.sqrt(len(errors))
        print(f"\n{name}: mean squared error {errors.mean():.4f} +- {margin:.4f}")
        rows.append(
            report.Row(
                id=f"fit-{name}-mse",
                metric="mean squared error, images in [-1, 1]",
                value=float(errors.mean()),
                interval=(float(errors.mean() - margin), float(errors.mean() + margin)),
                samples=len(errors),
                split="val",
                extractor="none",
                **common,
            )
        )
        for kind in ("all", "background", "count", "color", "shape", "size", "corner", "relation"):
            for subset in SUBSETS:
                asked = [
                    all(c.values()) if kind == "all" else c[kind]
                    for c, s in zip(checks, subsets, strict=True)
                    if s == subset and (kind == "all" or kind in c)
                ]
                interval = stats.binomtest(sum(asked), len(asked)).proportion_ci(method="wilson")
                share = float(np.mean(asked))
                print(f"  {kind:10} {subset:10} {share:6.1%} of {len(asked)}")
                rows.append(
                    report.Row(
                        id=f"fit-{name}-{kind}-{subset}".replace("_", "-"),
                        metric=f"{kind} facts of the caption right in the picture, share",
                        value=share,
                        interval=(float(interval.low), float(interval.high)),
                        samples=len(asked),
                        split=subset,
                        extractor="oracle",
                        **common,
                    )
                )
    if arguments.ledger:
        print(f"written: {report.add_rows('baseline.json', rows).name}")


if __name__ == "__main__":
    main()
