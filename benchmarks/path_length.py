"""Measure the path length of a style decoder: how far the picture moves when the style does.

    python benchmarks/path_length.py --model style             prints the figures
    python benchmarks/path_length.py --model style --ledger    writes data/results/path_length.json

One style for each of some held-out captions, one noise vector each (karras2020stylegan2, equation
4). The mean depends on the scale of the styles; the deviation over the mean says how even the
ground is. Intervals are a bootstrap over captions.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from t2i_course import generation, report, runtime
from t2i_course.evaluation import bootstrap_interval
from t2i_course.metrics import held_out
from t2i_course.style_decoder import path_length

STATISTICS = {
    "mean": lambda values: float(values.mean()),
    "deviation over mean": lambda values: float(values.std() / values.mean()),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="style", help="a checkpoint (style)")
    parser.add_argument("--captions", type=int, default=512, help="held-out captions (512)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    start, device = time.perf_counter(), runtime.settings().device
    generator, encoder, card = generation.load_model(arguments.model, device)
    held = held_out.open_held_out(card["data"], progress=False)
    captions = held.captions(held_out.choose_captions(held, arguments.captions))
    noise = torch.randn(
        len(captions), generator.noise_dim, generator=torch.Generator().manual_seed(0)
    ).to(device)  # [N, Z]
    lengths = []
    for k in range(0, len(captions), 32):
        text = encoder(captions[k : k + 32]).sentence.clone()  # [B, D]
        with torch.no_grad():
            styles = generator.style(text, noise[k : k + 32])  # [B, W]
        lengths.append(path_length(generator, styles).cpu().numpy())
    values = np.concatenate(lengths).astype(np.float64)  # [N]
    rows = []
    for name, statistic in STATISTICS.items():
        found = bootstrap_interval(statistic, values)
        print(f"{arguments.model}, path length, {name}: {found}")
        rows.append(
            report.Row(
                id=f"path-length-{report.slug(f'{arguments.model} {name}')}",
                metric=f"{arguments.model}: path length, {name}", value=found.value,
                interval=found.interval, samples=len(values), seeds=(0,), split="val",
                extractor="none", data=card["data"], hardware=runtime.hardware(),
                seconds=round(time.perf_counter() - start, 1),
                command=f"python benchmarks/path_length.py --model {arguments.model} --ledger",
            )
        )  # fmt: skip
    if arguments.ledger:
        print(f"written: {report.add_rows('path_length.json', rows).name}")


if __name__ == "__main__":
    main()
