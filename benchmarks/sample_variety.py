"""Measure how much pictures of one caption differ in what no caption states: place, size, shade.

    python benchmarks/sample_variety.py --model gan                prints the deviations
    python benchmarks/sample_variety.py --model gan --ledger NAME  writes them

Captions of one object that name its shape, colour and size and the background, and no corner;
several pictures of each, read by the oracle. Of those that show it as named, the standard deviation
within a caption: of the place across and down and of the diameter, in pixels, and of the shade, in
levels of 255. Beside it that of real pictures of one object of the same size, and for the shade of
the same colour. Root mean square over captions, bootstrapped over them. Scenes only.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from arrangements import write

from t2i_course import generation
from t2i_course.estimates import Estimate, bootstrap_interval
from t2i_course.metrics import held_out, judged_pictures
from t2i_course.report import check_name
from t2i_course.runtime import settings
from t2i_course.scenes import accuracy as scene_accuracy
from t2i_course.scenes.drawing import Scene, SceneObject
from t2i_course.scenes.wording import ATTRIBUTES, Facts

MEASURES = ("place across", "place down", "diameter", "shade")


def names_all(stated: Facts) -> bool:
    """Whether a caption is of one object and leaves only place, diameter and shade open."""
    if len(stated["objects"]) != 1 or stated["background"] is None:
        return False
    return set(stated["objects"][0]) == set(ATTRIBUTES)


def variances(objects: list[SceneObject]) -> list[float]:
    """Of each of `MEASURES`; the shade's is the mean of the three channels'."""
    found = [np.var([getattr(o, name) for o in objects], ddof=1) for name in ("x", "y", "diameter")]
    return [float(v) for v in found] + [float(np.var([o.rgb for o in objects], 0, ddof=1).mean())]


def as_stated(scenes: list[Scene], stated: Facts) -> list[SceneObject]:
    """The objects of those scenes that show the one object that is stated."""
    wanted = stated["objects"][0].items()
    return [
        scene.objects[0]
        for scene in scenes
        if len(scene.objects) == 1
        and all(getattr(scene.objects[0], name) == value for name, value in wanted)
    ]


def real_variances(objects: list[SceneObject], stated: Facts) -> list[float]:
    """Of real objects of the size that is stated; the shade's of those of the colour."""
    size, color = stated["objects"][0]["size"], stated["objects"][0]["color"]
    *places, _ = variances([o for o in objects if o.size == size])
    return [*places, variances([o for o in objects if o.color == color])[-1]]


def main() -> None:
    """Draw, read and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="name of a checkpoint (gan)")
    parser.add_argument("--captions", type=int, default=100, help="so many at most (100)")
    parser.add_argument("--count", type=int, default=32, help="pictures of each (32)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name, count = check_name(arguments.ledger), arguments.count
    if arguments.captions < 2 or count < 2:
        parser.error("--captions and --count must be 2 or more: a deviation is between pictures")
    start = time.perf_counter()
    generator, encoder, _ = generation.load_model(arguments.model, device=settings().device)
    held = held_out.open_held_out("scenes")
    rows = held_out.choose_captions(held, len(held.packed.all_captions))
    rows = np.array([row for row in rows if names_all(held.facts[row])][: arguments.captions])
    drawn = judged_pictures.draw_captions(
        arguments.model, generator, encoder, held, np.repeat(rows, count)
    )
    read = scene_accuracy.read_scenes(drawn.images)
    images = torch.from_numpy(np.array(held.packed.images[held.image_rows]))
    single = [s.objects[0] for s in scene_accuracy.read_scenes(images) if len(s.objects) == 1]
    shown = [
        as_stated(read[k * count : (k + 1) * count], held.facts[row]) for k, row in enumerate(rows)
    ]
    kept = [(objects, held.facts[row]) for objects, row in zip(shown, rows, strict=True)
            if len(objects) > 1]  # fmt: skip
    pictures = sum(len(objects) for objects, _ in kept)
    print(f"{len(kept)} captions of {len(rows)}, {pictures} pictures of {len(drawn.images)}")
    found: dict[str, Estimate] = {}
    for judged, spread in (
        (arguments.model, [variances(objects) for objects, _ in kept]),
        ("real", [real_variances(single, stated) for _, stated in kept]),
    ):
        for what, squares in zip(MEASURES, np.array(spread).T, strict=True):  # [K] each
            found[f"{judged}, {what}"] = bootstrap_interval(lambda v: np.sqrt(v.mean()), squares)
            print(f"{judged}, {what}: {found[f'{judged}, {what}']}")
    if name is not None:
        write(name, "deviation within a caption", found, start, drawn.seeds)


if __name__ == "__main__":
    main()
