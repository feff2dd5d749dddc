"""Measure what a generator draws where the caption leaves it open: "a star", of which colour?

    python benchmarks/left_open.py --model gan                prints the shares
    python benchmarks/left_open.py --model gan --ledger NAME  writes them

The same captions and noise as in `evaluate`. Of those that name no background, the share of
pictures with the commonest one; of those of one object, the same for colour, shape and size where
they are not named. Beside it the real pictures of these captions: a generator that has a habit is
near 1 where they are near a fraction. Read by the oracle, bootstrapped over captions. Scenes only.
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
from t2i_course.scenes.drawing import Scene
from t2i_course.scenes.wording import Facts

ATTRIBUTES = ("color", "shape", "size")


def commonest(answers: np.ndarray) -> float:
    """Share of the commonest of some answers."""
    return float(np.unique(answers, return_counts=True)[1].max() / len(answers))


def habits(found: list[Scene], stated: list[Facts]) -> dict[str, Estimate]:
    """Share of the commonest background, colour, shape and size where a caption names none.

    Args:
        found: N scenes, as the oracle reads them.
        stated: what the N captions state.
    """
    pairs = list(zip(found, stated, strict=True))
    answers = {"background": [str(s.background) for s, f in pairs if f["background"] is None]}
    for name in ATTRIBUTES:
        answers[name] = [
            str(getattr(scene.objects[0], name))
            for scene, facts in pairs
            if len(facts["objects"]) == 1 and name not in facts["objects"][0] and scene.objects
        ]
    return {
        name: bootstrap_interval(commonest, np.array(told), limits=(0, 1))
        for name, told in answers.items()
    }


def main() -> None:
    """Draw, read and count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="name of a checkpoint (gan)")
    parser.add_argument("--samples", type=int, default=2000, help="captions (2000)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name = check_name(arguments.ledger)
    start = time.perf_counter()
    generator, encoder, _ = generation.load_model(arguments.model, device=settings().device)
    held = held_out.open_held_out("scenes")
    rows = held_out.choose_captions(held, arguments.samples)
    drawn = judged_pictures.draw_captions(arguments.model, generator, encoder, held, rows)
    real = torch.from_numpy(np.array(held.packed.images[held.images_of(rows)]))
    stated, found = [held.facts[row] for row in rows], {}
    for judged, images in ((arguments.model, drawn.images), ("real", real)):
        for what, share in habits(scene_accuracy.read_scenes(images), stated).items():
            found[f"{judged}, {what}"] = share
            print(f"{judged}, commonest {what} where none is named: {share}, {share.samples}")
    if name is not None:
        write(name, "commonest where none is named", found, start, drawn.seeds)


if __name__ == "__main__":
    main()
