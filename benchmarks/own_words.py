"""Measure a generator on captions that are worded by hand, in sentences that no grammar made.

    python benchmarks/own_words.py --model gan            prints the figures
    python benchmarks/own_words.py --model gan --ledger   writes them to data/results/own_words.json
    python benchmarks/own_words.py --file other_words.txt --ledger    to other_words.json, and so on
    python benchmarks/own_words.py --training-encoder    read by the encoder of the GAN's training
    python benchmarks/own_words.py --grammar    the same facts in the training captions' words, as
                                                far as these have a sentence for them

`own_words.txt` holds captions worded by hand, from the vocabulary of the training captions, each
with what it states. Those of `other_words.txt` a language model worded, which was given vocabulary
and facts and had seen neither the grammar nor any other caption of the project. So were those of
`third_words.txt`, by another, of drawn facts, when all lessons were done. Each is drawn from five
noise vectors, rounded to 8 bits and read by the oracle. The interval is a bootstrap over captions.
A second row gives every picture another caption's facts.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch

from t2i_course import generation, report, runtime
from t2i_course.evaluation import bootstrap_interval
from t2i_course.scenes import accuracy as scene_accuracy
from t2i_course.scenes import authored_wordings, wording

FILE = Path(__file__).with_name("own_words.txt")


def in_the_grammar(facts: wording.Facts) -> tuple[str, wording.Facts] | None:
    """Facts with a training caption's wording of them; None if the grammar has no sentence."""
    try:
        return wording.word_facts(facts, random.Random(0)), facts
    except ValueError:
        return None


def main() -> None:
    """Draw, read and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="a checkpoint (gan)")
    parser.add_argument("--file", default=FILE.name, help=f"in benchmarks/ ({FILE.name})")
    parser.add_argument("--training-encoder", action="store_true", help="read the captions by the "
        "encoder that the generator was trained with, not by that of its prompts")  # fmt: skip
    parser.add_argument("--grammar", action="store_true", help="word the facts as the "
        "training captions do: what is lost in drawing, not in reading")  # fmt: skip
    parser.add_argument("--count", type=int, default=5, help="pictures of each caption (5)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    start, settings = time.perf_counter(), runtime.settings()
    file = FILE.with_name(arguments.file)
    texts, facts = zip(*authored_wordings.read_file(file), strict=True)
    generator, encoder, card = generation.load_model(
        arguments.model, settings.device, training_encoder=arguments.training_encoder
    )
    reads = arguments.model + ", encoder of its training" * arguments.training_encoder
    if arguments.grammar:
        texts, facts = zip(*filter(None, map(in_the_grammar, facts)), strict=True)
        reads += ", facts in the grammar's words"
    for note in generation.check_prompts(encoder, texts, card):
        print("note:", note)
    images = torch.cat(list(generation.sample(generator, encoder, texts, arguments.count)))
    repeated = [stated for stated in facts for _ in range(arguments.count)]
    found = scene_accuracy.read_scenes(images)
    numbers = np.array([len(stated["objects"]) for stated in facts])
    others = scene_accuracy.derangement(np.repeat(np.arange(len(facts)), arguments.count))
    rows = []
    compared = [(reads, repeated)]
    if not (arguments.training_encoder or arguments.grammar):
        compared.append((f"{arguments.model}, shuffled captions", [repeated[k] for k in others]))
    for judged, stated in compared:
        verdicts = scene_accuracy.check_scenes(found, stated)
        whole = (verdicts != 0).all(axis=1).reshape(len(facts), -1)  # [captions, pictures]
        parts = {"all": whole}
        if judged == reads:
            parts |= {name: whole[numbers == k] for k, name in scene_accuracy.NUMBERS.items()}
        for name, right in parts.items():
            share = bootstrap_interval(np.mean, right.astype(np.float64), limits=(0, 1))
            low, high = share.interval
            told = f"{share.value:.1%} ({low:.1%} to {high:.1%})"
            print(f"{judged}, {name}: {told}, {len(right)} captions")
            rows.append(
                report.Row(
                    id=report.slug(f"{file.stem} {judged} {name}"),
                    metric=f"{judged}: everything right that a caption of {file.name} states, "
                    f"share, {name}",
                    value=share.value, interval=share.interval,
                    samples=right.size, seeds=(0,), split=file.name, extractor="oracle",
                    data="scenes", hardware=runtime.hardware(),
                    seconds=round(time.perf_counter() - start, 1),
                    command=shlex.join(["python", "benchmarks/own_words.py", *sys.argv[1:]]),
                )
            )  # fmt: skip
    if arguments.ledger:
        print(f"written: {report.add_rows(f'{file.stem}.json', rows).name}")


if __name__ == "__main__":
    main()
