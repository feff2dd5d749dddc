"""Measure the oracle on held-out renderings: how many scenes it reads right, and how fast.

    python benchmarks/oracle_reading.py            prints the figures
    python benchmarks/oracle_reading.py --ledger   writes them to data/results/oracle.json, too

A scene is read right if background, shapes, colours and sizes of all objects are those drawn, and
every one of its five captions is found true.
"""

from __future__ import annotations

import argparse
import collections
import time

import numpy as np
from PIL import Image

from t2i_course import report, runtime
from t2i_course.photos import coco_folder
from t2i_course.scenes import drawing, oracle


def main() -> None:
    """Read every picture of val, and compare with its annotations."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    folder = drawing.make_scenes()
    instances = coco_folder.instances(folder, "val")
    names = {c["id"]: c["name"] for c in instances.dataset["categories"]}
    facts = collections.defaultdict(list)
    for entry in drawing.read_captions(folder, "val"):
        facts[entry["image_id"]].append(entry["facts"])
    pictures, true = [], []
    for image in instances.dataset["images"]:
        pictures.append(np.asarray(Image.open(folder / "val" / image["file_name"])))
        things = [
            (names[a["category_id"]], a["color"], a["size"])
            for a in instances.imgToAnns[image["id"]]
        ]
        true.append((image["id"], image["background"], sorted(things)))
    start = time.perf_counter()
    found = [oracle.read_picture(pixels) for pixels in pictures]
    seconds = time.perf_counter() - start
    right = 0
    for scene, (image_id, background, things) in zip(found, true, strict=True):
        look = sorted((o.shape, o.color, o.size) for o in scene.objects if o.shape and o.color)
        captions = [all(oracle.check_facts(f, scene).values()) for f in facts[image_id]]
        right += scene.background == background and look == things and all(captions)
    share = right / len(pictures)
    print(f"read right: {right} of {len(pictures)} scenes ({share:.2%}), in {seconds:.1f} s")
    if arguments.ledger:
        common = {
            "interval": None, "samples": len(pictures), "seeds": (0,), "split": "val",
            "extractor": "oracle", "data": "scenes", "hardware": runtime.hardware(),
            "seconds": seconds, "command": "python benchmarks/oracle_reading.py --ledger",
        }  # fmt: skip
        rows = [
            report.Row(id="oracle-right", metric="scenes read right, share", value=share, **common),
            report.Row(
                id="oracle-seconds",
                metric="seconds to read 2,000 pictures",
                value=seconds,
                **common,
            ),
        ]
        print(f"written: {report.add_rows('oracle.json', rows).name}")


if __name__ == "__main__":
    main()
