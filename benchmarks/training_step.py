"""Time a training step of the baseline with BERT in it, and with features from the cache.

    python benchmarks/training_step.py            prints the figures
    python benchmarks/training_step.py --ledger   writes them to data/results/training_step.json

The two forms alternate, step by step, on the same batches, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.nn import functional

from t2i_course import data, image_decoder, report, runtime
from t2i_course.text_cache import embed_captions
from t2i_course.text_encoder import TextEncoder


def main() -> None:
    """Take steps in both forms, and compare their times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=40, help="steps in each form (40)")
    parser.add_argument("--encoder", help="name or folder of the encoder (caption-bert)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    settings = runtime.settings()
    generator = runtime.seed_everything(0)
    packed = data.pack(data.resolve_data("scenes"), "val", 64)
    encoder = TextEncoder(arguments.encoder, device=settings.device)
    features = embed_captions(encoder, packed.all_captions)
    decoder = image_decoder.ResidualDecoder(encoder.width).to(
        settings.device, memory_format=settings.memory_format
    )
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    batches = data.CaptionBatches(packed, 64, generator)
    seconds: dict[str, list[float]] = {"bert": [], "cache": [], "read": []}
    for _ in range(arguments.steps + 2):
        batch = next(batches)
        for form in ("bert", "cache"):
            start = time.perf_counter()
            if form == "bert":
                text = encoder(batch.captions).sentence  # [B, D]
            else:
                text = torch.from_numpy(features[batch.caption_rows.numpy()])  # [B, D]
                seconds["read"].append(time.perf_counter() - start)
            with torch.autocast(
                settings.device.type,
                settings.autocast_dtype,
                enabled=settings.autocast_dtype is not None,
            ):
                images = decoder(text.to(settings.device))
            loss = functional.mse_loss(images.float(), batch.images.to(settings.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # waits for the device
            seconds[form].append(time.perf_counter() - start)
    times = {form: float(np.median(values[2:])) for form, values in seconds.items()}
    figures = {
        "bert": ("seconds a step of 64 images, BERT in the step", times["bert"]),
        "cache": ("seconds a step of 64 images, features from the cache", times["cache"]),
        "ratio": ("step with BERT over step with cache, seconds", times["bert"] / times["cache"]),
        "read-share": ("share of a step that reads features", times["read"] / times["cache"]),
    }
    for metric, value in figures.values():
        print(f"{metric}: {value:.4g}")
    if arguments.ledger:
        rows = [
            report.Row(
                id=f"training-step-{name}",
                metric=metric,
                value=float(f"{value:.3g}"),
                interval=None,
                samples=arguments.steps,
                seeds=(0,),
                split="val",
                extractor="none",
                data="scenes",
                hardware=runtime.hardware(),
                seconds=round(sum(seconds["bert"]) + sum(seconds["cache"]), 2),
                command=f"python benchmarks/training_step.py --steps {arguments.steps} --ledger",
            )
            for name, (metric, value) in figures.items()
        ]
        print(f"written: {report.add_rows('training_step.json', rows).name}")


if __name__ == "__main__":
    main()
