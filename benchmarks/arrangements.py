"""Measure scene accuracy by how a caption arranges its objects: named with places, or listed.

    python benchmarks/arrangements.py --model gan                prints the shares
    python benchmarks/arrangements.py --model gan --ledger NAME  writes them

A caption with places ("a red star above a blue heart") tells its objects apart by where they are; a
list ("a red star and a blue heart") only by their attributes. The same captions and noise as in
`evaluate`, everything right that the caption states, Wilson's intervals. Scenes only.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t2i_course import generation, report, runtime
from t2i_course.estimates import Estimate, wilson_interval
from t2i_course.metrics import held_out, judged_pictures
from t2i_course.scenes import accuracy as scene_accuracy
from t2i_course.scenes.wording import Facts, groups_of

NUMBERS = {1: "one", 2: "two", 3: "three"}


def arrangement(facts: Facts) -> str:
    """Say how many objects of how many kinds a caption names, and whether it gives places."""
    objects, kinds = len(facts["objects"]), len(groups_of(facts))
    things = f"{NUMBERS[objects]} object{'s' * (objects > 1)}"
    words = f"{things} of {NUMBERS[kinds]} kind{'s' * (kinds > 1)}"
    if kinds == 1:
        return words
    return f"{words}, {'with places' if facts['relations'] else 'listed'}"


def shares(right: np.ndarray, stated: Sequence[Facts]) -> dict[str, Estimate]:
    """Print and return the share of captions with everything right, by arrangement.

    Args:
        right: bool [N].
        stated: what the N captions state.
    """
    kinds, found = np.array([arrangement(facts) for facts in stated]), {}
    for kind in sorted(set(kinds)):
        part = right[kinds == kind]
        share = float(part.mean())
        found[kind] = Estimate(share, wilson_interval(share, len(part)), len(part))
        print(f"{kind}: {found[kind]}, {len(part)} captions")
    return found


def write(
    name: str,
    metric: str,
    found: dict[str, Estimate],
    start: float,
    seeds: Sequence[int],
    extractor: str = "the oracle",
) -> None:
    """Write estimates to the ledger, with the command that this program was called by.

    Args:
        name: of the file, and the beginning of its rows' ids.
        metric: beginning of the rows' metric.
        found: estimates by what they are of.
        start: of the program, by `time.perf_counter`.
        seeds: that it used.
        extractor: what read the pictures or texts.
    """
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    rows = [
        report.Row(
            id=f"{name}-{report.slug(kind)}",
            metric=f"{metric}, {kind}",
            value=share.value,
            interval=share.interval,
            samples=share.samples,
            data="scenes",
            split="val",
            hardware=runtime.hardware(),
            seeds=tuple(seeds),
            extractor=extractor,
            seconds=round(time.perf_counter() - start, 1),
            command=shlex.join(command),
        )
        for kind, share in found.items()
    ]
    print(f"written: {report.add_rows(f'{name}.json', rows).name}")


def main() -> None:
    """Draw and count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="name of a checkpoint (gan)")
    parser.add_argument("--samples", type=int, default=2000, help="captions (2000)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name = report.check_name(arguments.ledger)
    start, device = time.perf_counter(), runtime.settings().device
    generator, encoder, card = generation.load_model(arguments.model, device=device)
    held = held_out.open_held_out("scenes")
    rows = held_out.choose_captions(held, arguments.samples)
    drawn = judged_pictures.draw_captions(arguments.model, generator, encoder, held, rows)
    stated = [held.facts[row] for row in rows]
    found = shares((scene_accuracy.judge(drawn.images, stated) != 0).all(axis=1), stated)
    if name is not None:
        write(name, f"{arguments.model}: scene accuracy", found, start, drawn.seeds)


if __name__ == "__main__":
    main()
