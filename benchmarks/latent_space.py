"""Measure retrieval in the shared space on held-out scenes, beside the caption matcher's.

    python benchmarks/latent_space.py             prints the figures
    python benchmarks/latent_space.py --ledger    writes data/results/latent_space.json

R@1 both ways among 1,000 pictures and a caption of each; captions that are also true count as
right. The matcher was trained longer, and without knowing which captions are true.
"""

from __future__ import annotations

import argparse
import time

from t2i_course import data, latent_space, report, runtime
from t2i_course.metrics import caption_matcher


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    folder, rows = data.resolve_data("scenes"), []
    spaces = {
        "shared space": latent_space.load_shared_space(device="cpu"),
        "caption matcher": caption_matcher.load_caption_matcher(device="cpu"),
    }
    for split in ("val", "test"):
        start = time.perf_counter()
        packed = data.pack(folder, split, 64, progress=False)
        pictures, captions, true = latent_space.held_out_pairs(folder, packed, split)
        texts = [packed.all_captions[row] for row in captions]
        for system, space in spaces.items():
            text = caption_matcher.matched_text(space, texts, "cpu")
            similarity = text @ space.embed_images(packed.images[pictures]).T  # [C, N]
            for what, found in latent_space.retrieval_both_ways(similarity, true).items():
                print(f"{split}, {system}: {what} {found}", flush=True)
                rows.append(report.Row(
                    id=f"latent-space-{report.slug(f'{system} {what} {split}')}",
                    metric=f"{system}: R@1 of {what} among 1,000, share", value=found.value,
                    interval=found.interval, samples=found.samples, seeds=(), split=split,
                    extractor="facts", data="scenes", hardware=runtime.hardware(),
                    seconds=round(time.perf_counter() - start, 1),
                    command="python benchmarks/latent_space.py --ledger",
                ))  # fmt: skip
    rows = [row for row in rows if not row.id.startswith("latent-space-caption-matcher-chance")]
    rows = [row for row in rows if row.split == "test"]  # by val, choices are made
    if arguments.ledger:
        print(f"written: {report.add_rows('latent_space.json', rows).name}")


if __name__ == "__main__":
    main()
