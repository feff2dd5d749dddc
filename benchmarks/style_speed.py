"""Time a training step with the style decoder against one with the GAN's generator.

    python benchmarks/style_speed.py            prints the figures
    python benchmarks/style_speed.py --ledger   writes them to data/results/style_speed.json

Discriminator, losses, batch and false captions are those of `train --model gan`; the style decoder
is built at the GAN's width and, if that is another, at the width that brings its number of weights
nearest to that of the GAN's generator. All alternate, step by step, so that a busy machine slows
all of them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from gan_speed import CONFIG, Course, ledger_rows, random_batch, random_false, timed
from torch import nn

from t2i_course import gan, report, runtime
from t2i_course.processes import find_place
from t2i_course.style_decoder import StyleGenerator

TEXT = 256  # features of a caption


def weights(network: nn.Module) -> int:
    """Count them."""
    return sum(p.numel() for p in network.parameters())


def main() -> None:
    """Time the steps in turn; print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=24, help="steps in each form (24)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step (64)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    begin, size = time.perf_counter(), arguments.batch_size
    place = find_place(str(runtime.settings().device), "auto")
    wanted = weights(gan.TextGenerator(TEXT, CONFIG.noise_dim, 64, CONFIG.width, words=True))
    counts = {w: weights(StyleGenerator(TEXT, CONFIG.noise_dim, 64, w)) for w in range(8, 33, 2)}
    equal = min(counts, key=lambda width: abs(counts[width] - wanted))

    def style(width: int) -> Course:
        return Course(
            place, TEXT, 64, lambda batch: random_false(batch).sentence,
            lambda *sizes: StyleGenerator(*sizes[:3], width),
        )  # fmt: skip

    forms = {
        "gan": Course(place, TEXT, 64, random_false),
        "style": style(CONFIG.width),
    }
    if equal != CONFIG.width:
        forms["style-equal-weights"] = style(equal)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(1, arguments.steps + 3):
        batch = random_batch(size, 64, TEXT, number, place)
        for name, form in forms.items():
            seconds[name].append(timed(lambda form=form, batch=batch: form.step(batch),
                                       place.device))  # fmt: skip
    figures = {}
    for name, form in forms.items():
        generator = form.objective.modules["generator"]
        what = f"{generator.name} decoder of width {generator.config['width']}"
        figures[name] = (
            f"seconds of a training step of {size} pictures with the {what}, "
            f"{weights(generator):,} weights",
            float(np.mean(seconds[name][2:])),
        )
    for name in list(forms)[1:]:
        figures[f"{name}-ratio"] = (
            f"step with the {name} decoder over the step with the GAN's generator",
            figures[name][1] / figures["gan"][1],
        )
    for metric, value in figures.values():
        print(f"{metric}: {value:.3g}")
    if arguments.ledger:
        steps = arguments.steps
        rows = ledger_rows("style-speed", figures, steps, "none", "random pictures", begin)
        print(f"written: {report.add_rows('style_speed.json', rows).name}")


if __name__ == "__main__":
    main()
