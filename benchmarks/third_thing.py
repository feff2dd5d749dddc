"""Measure who notices on which side a third thing is: "a star above a heart, a cross left of both".

    python benchmarks/third_thing.py --model gan                prints the shares
    python benchmarks/third_thing.py --model gan --ledger NAME  writes them

All held-out captions of the scenes in which a third thing stands beside a pair, each with a
like-worded one that puts it on the other side. Of real pictures: how often the discriminator
beside the model gives the true one a higher logit, and the captioner a higher probability. Of
drawn pictures that show the three things as stated: how often the third is on its side of both, by
that side as well, and how often the pair stands as it should. By chance each would be a half.
Wilson's intervals. Also how far apart in the text's features the two captions lie, beside captions
of a single thing that are false in one fact: bootstrapped.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shlex
import sys
import time

import numpy as np
import torch

from t2i_course import captioner, checkpoints, data, gan, generation, report, runtime, text_encoder
from t2i_course.estimates import Estimate, bootstrap_interval, wilson_interval
from t2i_course.metrics import held_out, judged_pictures
from t2i_course.scenes import accuracy as scene_accuracy
from t2i_course.scenes import mismatched_captions, wording
from t2i_course.scenes.caption_parts import ROLES, THING, THINGS, labels_of
from t2i_course.scenes.drawing import Scene
from t2i_course.scenes.oracle import relation_holds


def side(stated: wording.Facts) -> str:
    """On which side of both the third thing is: "left", "right", "above" or "below"."""
    roles = labels_of(stated)[-THINGS * len(THING) :: len(THING)]
    return ROLES[roles[-1]].removeprefix("aside ")


def places(stated: wording.Facts, shown: Scene) -> tuple[bool, bool] | None:
    """Whether the third thing is on its side of both, and whether the pair stands as stated.

    Args:
        stated: what the caption states, three relations among it.
        shown: what the oracle read.

    Returns:
        Both answers; None unless exactly three things are shown, with all that is stated of them.
        Where things can be matched in several ways, by the best.
    """
    if len(shown.objects) != 3:
        return None
    turned = wording.turn_third(stated)["relations"]
    aside = [old != new for old, new in zip(stated["relations"], turned, strict=True)]
    answers = []
    for order in itertools.permutations(shown.objects):
        pairs = zip(stated["objects"], order, strict=True)
        if all(getattr(o, name) == value for said, o in pairs for name, value in said.items()):
            third, pair = [], []
            for (i, relation, j), beside in zip(stated["relations"], aside, strict=True):
                holds = relation_holds(order[i], relation, order[j])
                (third if beside else pair).append(holds)
            answers.append((all(third), all(pair)))
    return max(answers, key=sum, default=None)


def main() -> None:
    """Read, draw and count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="name of a checkpoint (gan)")
    parser.add_argument("--captioner", default=captioner.NAME, help="its name (captioner)")
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name = report.check_name(arguments.ledger)
    start, device = time.perf_counter(), runtime.settings().device
    generator, prompt_encoder, card = generation.load_model(arguments.model, device=device)
    encoder = text_encoder.load_trained_encoder(card["encoder"], arguments.model, device)
    path = checkpoints.discriminator_path(arguments.model)
    judge, _ = checkpoints.load_generator(path, device, {"discriminator": gan.Discriminator})
    teller = captioner.load_captioner(encoder, arguments.captioner, device)
    held = held_out.open_held_out("scenes")
    rows = np.array([row for row, facts in enumerate(held.facts) if wording.turn_third(facts)])
    stated, rng = [held.facts[row] for row in rows], random.Random(0)
    worded = [
        mismatched_captions.word_alike(facts, wording.turn_third(facts), rng) for facts in stated
    ]
    true, false = (list(told) for told in zip(*worded, strict=True))
    packed = data.pack(data.resolve_data("scenes"), "val", judge.image_size)
    images = packed.images[held.images_of(rows)]

    logits = []
    text = [text_encoder.embed_captions(encoder, told) for told in (true, false)]
    with torch.inference_mode():
        for k in range(0, len(rows), 64):
            shown = data.to_float(torch.from_numpy(images[k : k + 64])).to(device)
            told = [torch.from_numpy(np.array(part[k : k + 64])).to(device) for part in text]
            higher, lower = judge(shown, told[0], told[1][None])
            logits.append((higher > lower[0]).cpu())
    nats = [captioner.surprises(teller, encoder, images, told) for told in (true, false)]
    drawn = judged_pictures.draw_captions(arguments.model, generator, prompt_encoder, held, rows)
    found = scene_accuracy.read_scenes(drawn.images)
    answers = [places(facts, scene) for facts, scene in zip(stated, found, strict=True)]
    stand = np.array([answer for answer in answers if answer is not None])  # [M, 2]
    right = {
        "judge reads": torch.cat(logits).numpy(),
        "captioner reads": nats[0] < nats[1],
        "all three things drawn": np.array([answer is not None for answer in answers]),
        "drawn on its side": stand[:, 0],
        "pair drawn as stated": stand[:, 1],
    }
    sides = np.array([side(f) for f, answer in zip(stated, answers, strict=True) if answer])
    for where in sorted(set(sides)):
        right[f"drawn {where} where it belongs"] = stand[sides == where, 0]
    apart = {"turned": np.linalg.norm(text[0] - text[1], axis=1)}
    single = [row for row, facts in enumerate(held.facts) if len(facts["objects"]) == 1][:1000]
    one = [(facts, wording.contradict(facts, rng)) for facts in (held.facts[row] for row in single)]
    told = zip(*(mismatched_captions.word_alike(*pair, rng) for pair in one), strict=True)
    first, second = (text_encoder.embed_captions(encoder, list(part)) for part in told)
    apart["of a single thing, false in one fact"] = np.linalg.norm(first - second, axis=1)
    measured = {}
    for what, values in right.items():
        share = float(values.mean())
        measured[what] = Estimate(share, wilson_interval(share, len(values)), len(values))
        print(f"{what}: {measured[what]}, {len(values)} pictures")
    for what, values in apart.items():
        distance = bootstrap_interval(lambda v: float(v.mean()), values.astype(np.float64))
        measured[f"distance of captions {what}"] = distance
        print(f"distance of captions {what}: {distance}, {len(values)} pairs")
    if name is not None:
        networks = f"discriminator beside {card['sha256'][:16]}, captioner {teller.fingerprint}"
        ledger = [
            report.Row(
                id=f"{name}-{report.slug(what)}",
                metric=f"{arguments.model}: third thing, {what}",
                value=share.value, interval=share.interval, samples=share.samples,
                data="scenes", split="val", seeds=(0,), hardware=runtime.hardware(),
                extractor=(
                    networks if "reads" in what
                    else encoder.name if "distance" in what else "the oracle"
                ),
                seconds=round(time.perf_counter() - start, 1),
                command=shlex.join(["python", "benchmarks/third_thing.py", *sys.argv[1:]]),
            )
            for what, share in measured.items()
        ]  # fmt: skip
        print(f"written: {report.add_rows(f'{name}.json', ledger).name}")


if __name__ == "__main__":
    main()
