"""Probe text encoders: which stated facts are read from sentence and word features.

    python benchmarks/encoder_probe.py            prints the figures
    python benchmarks/encoder_probe.py --ledger   writes them to data/results/encoder.json, too

The sentence is read by linear classifiers, the words by one layer of attention; both learn on
captions of random scenes. They are measured on the held-out captions of val, `seen` in the words
that train uses, `unseen` in words that it never uses; on `free` wordings of the same facts; and on
sentences of `authors` that the encoder was not trained with, with other values.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time

import numpy as np
import torch

from t2i_course import report, runtime
from t2i_course.scenes import authored_wordings, drawing, probe
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.wording import Facts
from t2i_course.text_cache import embed_captions, embed_words
from t2i_course.text_encoder import TextEncoder

ENCODERS = {  # as it was after its first two stages, and finished
    "caption-bert-masked-words": "masked-words",
    "caption-bert-contrastive": "contrastive",
    "caption-bert": "final",
}
STEPS = 1500  # in which attention learns to read the words


def probe_sentence(
    encoder: TextEncoder, captions: list[str], facts: list[Facts], count: int
) -> dict:
    """Probe the sentence features by linear classifiers that learn on `count` other captions."""
    train_captions, train_facts = probe.probe_captions(count)
    train, held = (embed_captions(encoder, c, progress=False) for c in (train_captions, captions))
    return probe.probe_features(train, train_facts, held, facts)


def probe_words(encoder: TextEncoder, captions: list[str], facts: list[Facts], count: int) -> dict:
    """Read the same from the words, by one layer of attention."""
    texts, stated = probe.probe_captions(count)
    torch.manual_seed(0)
    reader = probe.FactReader(encoder.width)
    train, targets = embed_words(encoder, texts, progress=False), reader.targets(stated)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(texts), (128,))
        text = train[rows.numpy()]
        loss = probe.reading_loss(reader.from_words(text.words, text.mask), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    held, asked = embed_words(encoder, captions, progress=False), reader.targets(facts)
    right: dict[str, list[bool]] = {}
    with torch.no_grad():
        for rows in torch.arange(len(captions)).split(256):
            text = held[rows.numpy()]
            found = reader.from_words(text.words, text.mask)
            for question, logits, column in zip(reader.answers, found, asked[rows].T, strict=True):
                answers = (logits.argmax(dim=1) == column)[column != probe.NOT_ASKED]
                right.setdefault(question, []).extend(answers.tolist())
    return {name: (float(np.mean(each)), len(each)) for name, each in right.items() if each}


READINGS = {"sentence": probe_sentence, "words": probe_words}


def captions_by_wording(entries: list[dict]) -> dict[str, tuple[list[str], list[dict]]]:
    """Captions and their facts, by how they are worded; `entries` are the grammar's of val."""
    rng, sets = random.Random("encoder probe"), {}
    for wording in ("seen", "unseen"):
        chosen = [entry for entry in entries if entry["wording"] == wording]
        sets[wording] = [e["caption"] for e in chosen], [e["facts"] for e in chosen]
    facts = [entry["facts"] for entry in entries[::5]]
    sets["free"] = [word_freely(f, rng) for f in facts], facts
    drawn = [authored_wordings.draw(rng, held_out=True) for _ in range(2000)]
    sets["authors"] = [caption for caption, _ in drawn], [f for _, f in drawn]
    return sets


def kind_of(question: str) -> str:
    """What a question of the probe is about: "color", "shape", ..., "arrangement"."""
    return question.split()[-1].split(":")[-1]


def main() -> None:
    """Probe each encoder, and print the worst question of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    parser.add_argument("--encoder", action="append", help="names or folders; default: all")
    parser.add_argument("--reading", choices=READINGS, action="append", help="default: both")
    parser.add_argument("--train", type=int, default=18_000, help="captions to train on")
    arguments = parser.parse_args()
    held_out = drawing.read_captions(drawing.make_scenes(), "val")
    rows = []
    sets = captions_by_wording(held_out)
    for name in arguments.encoder or ENCODERS:
        encoder = TextEncoder(name)
        for wording, reading in itertools.product(sets, arguments.reading or READINGS):
            texts, facts = sets[wording]
            start = time.perf_counter()
            results = READINGS[reading](encoder, texts, facts, arguments.train)
            seconds = time.perf_counter() - start
            kinds = sorted({kind_of(question) for question in results})
            print(f"\n{name}, {reading}, {wording}, {len(texts)} captions, {seconds:.0f} s")
            for kind in [*kinds, "all"]:
                asked = {q: r for q, r in results.items() if kind in ("all", kind_of(q))}
                number = sum(n for _, n in asked.values())
                mean = sum(share * n for share, n in asked.values()) / number
                worst = min(asked, key=lambda q: asked[q][0])
                print(f"  {kind:12} {mean:7.2%}  worst {asked[worst][0]:7.2%} ({worst})")
                common = {
                    "samples": number, "seeds": (0,), "interval": None,
                    "extractor": f"probe of the {reading}",
                    "split": f"captions, {wording}", "data": "scenes",
                    "hardware": runtime.hardware(), "seconds": seconds,
                    "command": "python benchmarks/encoder_probe.py --ledger",
                }  # fmt: skip
                stage = ENCODERS.get(name, "other")
                label = f"encoder-probe-{stage}-{reading}-{wording}-{kind}"
                metric = f"{stage}: {kind} facts read right from the {reading} by a probe, share"
                rows += [
                    report.Row(id=label, metric=metric, value=mean, **common),
                    report.Row(
                        id=f"{label}-worst",
                        metric=f"{metric}, worst question ({worst})",
                        value=asked[worst][0],
                        **common | {"samples": asked[worst][1]},
                    ),
                ]
    if arguments.ledger:
        print(f"written: {report.add_rows('encoder.json', rows).name}")


if __name__ == "__main__":
    main()
