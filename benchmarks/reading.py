"""Measure what the parts of a caption say of it, before any picture is drawn from them.

    python benchmarks/reading.py --model gan                prints the shares
    python benchmarks/reading.py --model gan --ledger NAME  writes them

For generators with `--set parts=on`. Linear layers learn to read the parts of drawn captions, and
are asked for everything that held-out captions state; what cannot be read from the parts, the
generator must draw from the sentence feature alone. By how a caption arranges its objects, Wilson's
intervals. Scenes only.
"""

from __future__ import annotations

import argparse
import time

import arrangements
import numpy as np
import torch

from t2i_course import generation, report, text_encoder
from t2i_course.metrics import held_out
from t2i_course.scenes import caption_parts, probe

SEED = 1  # of the captions that the layers learn from


def main() -> None:
    """Fit the layers and ask them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="gan", help="name of a checkpoint (gan)")
    parser.add_argument("--count", type=int, default=20_000, help="captions of each of the two "
                        "kinds that the layers learn from (20000)")  # fmt: skip
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    name = report.check_name(arguments.ledger)
    start = time.perf_counter()
    generator, encoder, _ = generation.load_model(
        arguments.model, device="cpu", training_encoder=True
    )
    if getattr(generator, "reader", None) is None:
        raise SystemExit(f"{arguments.model} has no parts: train one with --set parts=on")
    words, facts = (
        first + second
        for first, second in zip(
            caption_parts.draw_captions(arguments.count, SEED),
            probe.probe_captions(arguments.count, SEED),
            strict=True,
        )
    )
    held = held_out.open_held_out("scenes")
    rows = np.arange(len(held.facts))
    parts, parts_asked = (
        generator.reader(torch.tensor(np.array(text_encoder.embed_captions(encoder, told))))
        for told in (words, held.captions(rows))
    )
    labels, labels_asked = (
        torch.tensor([caption_parts.labels_of(stated) for stated in told])
        for told in (facts, held.facts)
    )
    torch.manual_seed(SEED)
    heads = caption_parts.PartHeads()
    heads.learn(
        lambda rows: parts[rows], labels, heads, 2_000, 1e-2,
        source=torch.Generator().manual_seed(SEED),
    )  # fmt: skip
    with torch.no_grad():
        right = heads.right(parts_asked, labels_asked).numpy()
    found = arrangements.shares(right, held.facts)
    if name is not None:
        metric, extractor = f"{arguments.model}: everything read", "linear layers on the parts"
        arrangements.write(name, metric, found, start, [SEED], extractor)


if __name__ == "__main__":
    main()
