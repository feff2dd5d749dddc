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
import dataclasses
import random
import time

import numpy as np
import torch

from t2i_course import (
    captions,
    checkpoints,
    data,
    gan,
    oracle,
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
        for _ in range(100):
            changed = captions.contradict(entry["facts"], rng)
            if not all(oracle.check_facts(changed, shown[image]).values()):
                break
        chosen[image] = entry | {"false": captions.word_facts(changed, rng)}
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
    rows = []

    def tell(what: str, found: Estimate, split: str, form: str) -> None:
        low, high = found.interval
        print(f"{what}: {found.value:{form}} ({low:{form}} to {high:{form}}), {found.samples}")
        rows.append(report.Row(
            id=f"{name}-{report.slug(what)}", metric=f"{arguments.model}'s discriminator: {what}",
            value=found.value, interval=found.interval, samples=found.samples,
            seeds=(card["seed"],), split=split, extractor=f"discriminator {card['sha256'][:16]}",
            data="scenes", hardware=runtime.hardware(), seconds=0.0,
            command=f"python benchmarks/learnt_by_heart.py --model {arguments.model} --pictures "
            f"{arguments.pictures} --ledger {name}",
        ))  # fmt: skip

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
        tell(f"{part} pictures, logit", mean, split, ".2f")
        kinds = [
            len({tuple(sorted(thing.items())) for thing in entry["facts"]["objects"]})
            for entry in entries
        ]
        for number in (1, 2, 3):
            higher = (true > false)[np.array(kinds) == number]
            share = float(higher.mean())
            found = Estimate(share, wilson_interval(share, len(higher)), len(higher))
            tell(f"{part} pictures, reads {number} different", found, split, ".1%")
    if name is not None:
        seconds = round(time.perf_counter() - start, 1)
        done = [dataclasses.replace(row, seconds=seconds) for row in rows]
        print(f"written: {report.add_rows(f'{name}.json', done).name}")


if __name__ == "__main__":
    main()
