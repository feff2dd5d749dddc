"""Measure how far a discriminator has learnt its training pictures by heart, and if it can read.

    python benchmarks/learnt_by_heart.py --model gan               prints the figures
    python benchmarks/learnt_by_heart.py --model gan --ledger NAME writes it

A discriminator that knows what makes a picture real gives the same logits to pictures that it has
learnt from and to held-out ones with seen pairs, for both are drawn alike. One that has learnt its
pictures by heart does not. Read: the share of pictures whose true caption gets a higher logit than
one that contradicts it in one fact, by the number of different objects; Wilson's intervals. Scenes
only.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch

from t2i_course import (
    checkpoints,
    data,
    gan,
    mismatched_captions,
    report,
    runtime,
    scenes,
    text_encoder,
)
from t2i_course.estimates import Estimate, bootstrap_interval, wilson_interval

PARTS = {"training": "train", "held-out": "val"}


def choose(split: str, count: int) -> list[dict]:
    """Caption entries of `count` pictures with seen pairs, with a caption that contradicts each."""
    folder, rng = data.resolve_data("scenes"), random.Random(0)
    shown, entries = scenes.read_instances(folder, split), scenes.read_captions(folder, split)
    rng.shuffle(entries)
    chosen: dict[int, dict] = {}
    for entry in entries:
        image = entry["image_id"]
        pairs = {(thing.shape, thing.color) for thing in shown[image].objects}
        if image in chosen or pairs & scenes.UNSEEN_PAIRS:
            continue
        false = mismatched_captions.contradicting_caption(entry, shown[image], rng)
        chosen[image] = entry | {"false": false}
        if len(chosen) == count:
            break
    return list(chosen.values())


def main() -> None:
    """Judge both parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="the discriminator beside this one (gan)")
    parser.add_argument("--pictures", type=int, default=1000, help="of each part (1000)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name = report.check_name(arguments.ledger)
    start, device = time.perf_counter(), runtime.settings().device
    path = checkpoints.checkpoint_path(f"{arguments.model}-discriminator")
    judge, card = checkpoints.load_generator(path, device, {"discriminator": gan.Discriminator})
    encoder = text_encoder.TextEncoder(card["encoder"]["name"], device=device)
    measured: list[tuple[str, Estimate, str]] = []  # what, how much, of which split
    for part, split in PARTS.items():
        entries = choose(split, arguments.pictures)
        packed = data.pack(data.resolve_data("scenes"), split, judge.image_size)
        place = {image: row for row, image in enumerate(packed.image_ids.tolist())}
        rows_of = [place[entry["image_id"]] for entry in entries]
        logits = []
        with torch.inference_mode():
            for k in range(0, len(entries), 64):
                some = entries[k : k + 64]
                images = data.to_float(torch.from_numpy(packed.images[rows_of[k : k + 64]]))
                told = [encoder([e[kind] for e in some]).sentence for kind in ("caption", "false")]
                logits.append(judge(images.to(device), told[0], told[1][None]))
        true = torch.cat([pair[0] for pair in logits]).cpu().numpy()  # [N]
        false = torch.cat([pair[1][0] for pair in logits]).cpu().numpy()  # [N]
        mean = bootstrap_interval(lambda values: float(values.mean()), true.astype(np.float64))
        measured.append((f"{part} pictures, logit", mean, split))
        kinds = [
            len({tuple(sorted(thing.items())) for thing in entry["facts"]["objects"]})
            for entry in entries
        ]
        for number in (1, 2, 3):
            higher = (true > false)[np.array(kinds) == number]
            share = float(higher.mean())
            found = Estimate(share, wilson_interval(share, len(higher)), len(higher))
            measured.append((f"{part} pictures, reads {number} different", found, split))
    for what, found, _ in measured:
        print(f"{what}: {found}, {found.samples} pictures")
    if name is not None:
        common = {
            "seeds": (card["seed"],), "extractor": f"discriminator {card['sha256'][:16]}",
            "data": "scenes", "hardware": runtime.hardware(),
            "seconds": round(time.perf_counter() - start, 1),
            "command": f"python benchmarks/learnt_by_heart.py --model {arguments.model} --pictures "
            f"{arguments.pictures} --ledger {name}",
        }  # fmt: skip
        rows = [
            report.Row(
                id=f"{name}-{report.slug(what)}", value=found.value, interval=found.interval,
                metric=f"{arguments.model}'s discriminator: {what}", samples=found.samples,
                split=split, **common,
            )
            for what, found, split in measured
        ]  # fmt: skip
        print(f"written: {report.add_rows(f'{name}.json', rows).name}")


if __name__ == "__main__":
    main()
