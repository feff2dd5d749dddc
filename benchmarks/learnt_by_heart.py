"""Measure how far a discriminator has learnt its training pictures by heart, and if it can read.

    python benchmarks/learnt_by_heart.py --model gan               prints the figures
    python benchmarks/learnt_by_heart.py --model gan --ledger NAME writes them
    python benchmarks/learnt_by_heart.py --captioner captioner     reads with a captioner as well

A discriminator that knows what makes a picture real gives the same logits to pictures that it has
learnt from and to held-out ones with seen pairs, for both are drawn alike. One that has learnt its
pictures by heart does not. Read: the share of pictures whose true caption gets a higher logit (of a
captioner: a higher probability) than a like-worded one that contradicts it in one fact, by the
number of different objects; Wilson's intervals. Scenes only.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time

import numpy as np
import torch

from t2i_course import captioner, checkpoints, data, gan, report, runtime, text_encoder
from t2i_course.estimates import Estimate, bootstrap_interval, wilson_interval
from t2i_course.scenes import drawing, mismatched_captions

PARTS = {"training": "train", "held-out": "val"}


def choose(split: str, count: int) -> list[dict]:
    """Caption entries of `count` pictures with seen pairs, each with a true and a false wording."""
    folder, rng = data.resolve_data("scenes"), random.Random(0)
    shown, entries = drawing.read_instances(folder, split), drawing.read_captions(folder, split)
    rng.shuffle(entries)
    chosen: dict[int, dict] = {}
    for entry in entries:
        image = entry["image_id"]
        pairs = {(thing.shape, thing.color) for thing in shown[image].objects}
        if image in chosen or pairs & drawing.UNSEEN_PAIRS:
            continue
        true, false = mismatched_captions.like_worded_pair(entry, shown[image], rng)
        chosen[image] = entry | {"true": true, "false": false}
        if len(chosen) == count:
            break
    return list(chosen.values())


def main() -> None:
    """Judge both parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="the discriminator beside this one (gan)")
    parser.add_argument("--captioner", metavar="NAME", help="a captioner that is to read, too")
    parser.add_argument("--pictures", type=int, default=1000, help="of each part (1000)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name = report.check_name(arguments.ledger)
    start, device = time.perf_counter(), runtime.settings().device
    path = checkpoints.discriminator_path(arguments.model)
    judge, card = checkpoints.load_generator(path, device, {"discriminator": gan.Discriminator})
    encoder = text_encoder.TextEncoder(card["encoder"]["name"], device=device)
    teller = None
    if arguments.captioner is not None:
        teller = captioner.load_captioner(encoder, arguments.captioner, device)
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
                told = [encoder([e[kind] for e in some]).sentence for kind in ("true", "false")]
                logits.append(judge(images.to(device), told[0], told[1][None]))
        true = torch.cat([pair[0] for pair in logits]).cpu().numpy()  # [N]
        false = torch.cat([pair[1][0] for pair in logits]).cpu().numpy()  # [N]
        mean = bootstrap_interval(lambda values: float(values.mean()), true.astype(np.float64))
        measured.append((f"{part} pictures, logit", mean, split))
        kinds = [
            len({tuple(sorted(thing.items())) for thing in entry["facts"]["objects"]})
            for entry in entries
        ]
        readers = {"reads": true > false}
        if teller is not None:
            images = packed.images[rows_of]
            true, false = (
                captioner.surprises(teller, encoder, images, [e[kind] for e in entries])
                for kind in ("true", "false")
            )
            readers["captioner reads"] = true < false
        for reads, right in readers.items():
            for number in (1, 2, 3):
                higher = right[np.array(kinds) == number]
                share = float(higher.mean())
                found = Estimate(share, wilson_interval(share, len(higher)), len(higher))
                measured.append((f"{part} pictures, {reads} {number} different", found, split))
    for what, found, _ in measured:
        print(f"{what}: {found}, {found.samples} pictures")
    networks = [f"discriminator {card['sha256'][:16]}"]
    if teller is not None:
        networks.append(f"captioner {teller.fingerprint}")
    if name is not None:
        common = {
            "seeds": (card["seed"],), "extractor": ", ".join(networks),
            "data": "scenes", "hardware": runtime.hardware(),
            "seconds": round(time.perf_counter() - start, 1),
            "command": shlex.join(["python", "benchmarks/learnt_by_heart.py", *sys.argv[1:]]),
        }  # fmt: skip
        rows = [
            report.Row(
                id=f"{name}-{report.slug(what)}", value=found.value, interval=found.interval,
                metric=f"{arguments.model}'s judge: {what}", samples=found.samples,
                split=split, **common,
            )
            for what, found, split in measured
        ]  # fmt: skip
        print(f"written: {report.add_rows(f'{name}.json', rows).name}")


if __name__ == "__main__":
    main()
