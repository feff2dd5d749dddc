"""Time the packing of a large folder of photos, and see how much memory it takes.

    python benchmarks/packing.py                  20,000 JPEGs of 640 x 480, packed at 64 pixels
    python benchmarks/packing.py --images 3000    fewer
    python benchmarks/packing.py --ledger         writes them to data/results/packing.json, too

It makes a temporary folder of COCO's layout, whose pictures are noise with a photo's spectrum, 50
to 100 kB each. To be quick, it encodes 300 of them and gives each file many names (hard links):
packing works as hard as on different ones, but the files come from memory, not from the disk. A
tenth of the images, and then all of them, are packed in a process of its own each, with all cores.
Printed are images a second, processor time (user and system) an image, and the most memory that
the process had. The processor time hardly depends on what else the machine does. Not for Windows,
which does not tell the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from t2i_course import data, runtime

SIZE = 64  # pixels
DISTINCT = 300
QUALITY = 75
CAPTIONS = 5  # of each image
PART = "--pack-part"


def photo(rng: np.random.Generator) -> Image.Image:
    """Draw noise, 640 x 480, whose amplitude falls a little faster than 1 / frequency."""
    height, width = 480, 640
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    noise = rng.normal(size=(4, height, width))
    noise[1:] = noise[:1] + 0.4 * noise[1:]  # colours follow the brightness
    spectrum = np.fft.rfft2(noise[1:]) / (frequency + 1 / width) ** 1.3
    waves = np.fft.irfft2(spectrum, s=(height, width))
    waves = (waves - waves.mean()) / waves.std() * 55 + 120
    return Image.fromarray(waves.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def make_folder(folder: Path, number: int, distinct: list[Path], seed: int) -> None:
    """Fill a folder of COCO's layout with `number` names for the distinct pictures."""
    rng = np.random.default_rng(seed)
    words = np.array("a red bus and two people wait near the old station in rain".split())
    (folder / "annotations").mkdir(parents=True)
    for split, count in (("train2017", number), ("val2017", 1)):
        (folder / split).mkdir()
        document: dict[str, list] = {"images": [], "annotations": []}
        for image_id in range(1, count + 1):
            name = f"{image_id:012d}.jpg"
            os.link(distinct[image_id % len(distinct)], folder / split / name)
            document["images"].append({"id": image_id, "file_name": name})
            for index in range(CAPTIONS):
                caption = " ".join(rng.choice(words, 10).tolist())
                entry = {"id": CAPTIONS * image_id + index, "image_id": image_id}
                document["annotations"].append(entry | {"caption": caption})
        text = json.dumps(document)
        (folder / "annotations" / f"captions_{split}.json").write_text(text, encoding="utf-8")


def pack_part(folder: str, cache: str) -> None:
    """Pack, in a process of its own, and print what it took, as JSON."""
    before, start, processor = runtime.most_memory() / 1e6, time.perf_counter(), time.process_time()
    packed = data.pack(folder, "train", SIZE, cache, progress=sys.stderr.isatty())
    figures = {
        "images": len(packed),
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
        "before": before,
        "peak": runtime.most_memory() / 1e6,
    }
    print(json.dumps(figures))


def measure(number: int, seed: int) -> list[dict[str, float]]:
    """Return what packing a tenth of the images took, and then all of them."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        distinct = [Path(name, f"{index}.jpg") for index in range(min(DISTINCT, number))]
        for file in tqdm(distinct, desc="drawing", disable=not sys.stderr.isatty()):
            photo(rng).save(file, quality=QUALITY)
        size = sum(file.stat().st_size for file in distinct) / len(distinct)
        print(f"JPEGs of 640 x 480, {size / 1000:.0f} kB each; {runtime.hardware()}")
        results = []
        for count in (max(1, number // 10), number):
            folder, cache = Path(name, f"coco-{count}"), Path(name, f"cache-{count}")
            make_folder(folder, count, distinct, seed)
            command = [sys.executable, __file__, PART, str(folder), str(cache)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    return results


def write_ledger(results: list[dict[str, float]], command: str, seed: int) -> None:
    """Put the figures into data/results/packing.json."""
    from t2i_course import report

    part, whole = results
    figures = {
        "rate": ("images a second", whole["images"] / whole["seconds"], whole),
        "processor": (
            "processor time an image, milliseconds, user and system",
            1000 * whole["processor"] / whole["images"],
            whole,
        ),
        "peak": ("most memory of the process, MB", whole["peak"], whole),
        "peak-of-a-tenth": ("most memory of the process, MB, a tenth", part["peak"], part),
    }
    rows = [
        report.Row(
            id=f"packing-{name}",
            metric=f"packing at {SIZE} px: {metric}",
            value=float(f"{value:.3g}"),
            interval=None,
            samples=int(result["images"]),
            seeds=(seed,),
            split="none",
            extractor="none",
            data=f"textured JPEGs, 640 x 480, quality {QUALITY}",
            hardware=runtime.hardware(),
            seconds=round(result["seconds"], 2),
            command=command,
        )
        for name, (metric, value, result) in figures.items()
    ]
    print(f"written to {report.add_rows('packing.json', rows)}")


def main() -> None:
    """Parse the arguments, measure, print."""
    if sys.argv[1:2] == [PART]:
        pack_part(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000, help="number of JPEGs (20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    results = measure(arguments.images, arguments.seed)
    print(f"{'images':>8} {'images/s':>9} {'CPU ms/image':>13} {'peak MB':>8} {'of imports':>11}")
    for found in results:
        number = found["images"]
        print(
            f"{number:8,} {number / found['seconds']:9,.0f} "
            f"{1000 * found['processor'] / number:13.2f} {found['peak']:8,.0f} "
            f"{found['before']:11,.0f}"
        )
    if arguments.ledger:
        command = f"python benchmarks/packing.py --images {arguments.images}"
        write_ledger(results, f"{command} --seed {arguments.seed} --ledger", arguments.seed)


if __name__ == "__main__":
    main()
