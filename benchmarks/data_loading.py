"""Time the packed cache against decoding: images a second from 640 x 480 JPEGs.

    python benchmarks/data_loading.py            prints the figures
    python benchmarks/data_loading.py --ledger   writes them to data/results/data_loading.json, too

It makes JPEG files with a photo's spectrum (quality 90) in a temporary folder of COCO's layout, and
times three things, files and cache warm: an epoch of plain `CocoCaptions` with the course's
transform, one process, batches of 64; packing; and epochs of `CaptionBatches` from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from t2i_course import data, runtime

SIZE = 64  # pixels
BATCH = 64
QUALITY = 90
PACKED_EPOCHS = 20


def textures(number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw noise whose amplitude falls as 1 / frequency, as a photo's: [number, 960, 1280, 3]."""
    height, width = 960, 1280
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    pictures = []
    for _ in range(number):
        noise = rng.normal(size=(4, height, width))
        noise[1:] = noise[:1] + 0.4 * noise[1:]  # colours follow the brightness
        spectrum = np.fft.rfft2(noise[1:]) / (frequency + 1 / width)
        waves = np.fft.irfft2(spectrum, s=(height, width))
        waves = (waves - waves.mean()) / waves.std() * 55 + 120
        pictures.append(waves.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    return np.stack(pictures)


def make_folder(folder: Path, number: int, seed: int) -> int:
    """Write `number` JPEGs with five captions each; return their mean size in bytes."""
    rng = np.random.default_rng(seed)
    pictures = textures(4, rng)
    images = folder / "train2017"
    images.mkdir()
    (folder / "annotations").mkdir()
    document: dict[str, list] = {"images": [], "annotations": []}
    for image_id in range(1, number + 1):
        top, left = rng.integers(0, 481), rng.integers(0, 641)
        pixels = pictures[image_id % len(pictures), top : top + 480, left : left + 640]
        name = f"{image_id:012d}.jpg"
        Image.fromarray(pixels).save(images / name, quality=QUALITY)
        document["images"].append({"id": image_id, "file_name": name})
        document["annotations"] += [
            {"id": 5 * image_id + i, "image_id": image_id, "caption": f"texture {image_id}, {i}"}
            for i in range(5)
        ]
    text = json.dumps(document)
    (folder / "annotations" / "captions_train2017.json").write_text(text, encoding="utf-8")
    (images.parent / "val2017").mkdir()
    (folder / "annotations" / "captions_val2017.json").write_text(text, encoding="utf-8")
    return sum(file.stat().st_size for file in images.iterdir()) // number


def measure(number: int, seed: int) -> dict[str, tuple[float, float, int]]:
    """Return {what: (value, seconds, images)}; values are images a second, and their ratio."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name, "coco")
        folder.mkdir()
        print(
            f"{number} JPEGs of 640 x 480, {make_folder(folder, number, seed) / 1000:.0f} kB each"
        )
        generator = torch.Generator().manual_seed(seed)

        dataset = data.load_split(folder, "train", data.image_transform(SIZE))
        collate = data.CaptionCollate(generator)
        loader = DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate, generator=generator)
        start = time.perf_counter()
        for images, _ in loader:
            assert images.shape[1:] == (3, SIZE, SIZE)
        plain = time.perf_counter() - start

        start = time.perf_counter()
        packed = data.pack(folder, "train", SIZE, cache=Path(name, "cache"), progress=False)
        packing = time.perf_counter() - start

        batches = data.CaptionBatches(packed, BATCH, generator)
        next(batches)
        steps = PACKED_EPOCHS * number // BATCH
        start = time.perf_counter()
        for _ in range(steps):
            next(batches)
        cached = time.perf_counter() - start
        del batches, packed  # the map of the array, before its folder goes
    rates = number / plain, number / packing, steps * BATCH / cached
    return {
        "plain": (rates[0], plain, number),
        "packing": (rates[1], packing, number),
        "packed": (rates[2], cached, steps * BATCH),
        "ratio": (rates[2] / rates[0], plain + cached, number),
    }


def write_ledger(figures: dict[str, tuple[float, float, int]], command: str, seed: int) -> None:
    """Put the figures into data/results/data_loading.json."""
    from t2i_course import report

    metrics = {
        "plain": "images a second, CocoCaptions with the transform, one process",
        "packing": "images a second, packing",
        "packed": "images a second, CaptionBatches from the packed cache",
        "ratio": "packed over plain, images a second",
    }
    rows = [
        report.Row(
            id=f"data-loading-{name}",
            metric=metrics[name],
            value=float(f"{value:.3g}"),
            interval=None,
            samples=samples,
            seeds=(seed,),
            split="none",
            extractor="none",
            data="textured JPEGs, 640 x 480, quality 90",
            hardware=runtime.hardware(),
            seconds=round(seconds, 2),
            command=command,
        )
        for name, (value, seconds, samples) in figures.items()
    ]
    print(f"written to {report.add_rows('data_loading.json', rows)}")


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="number of JPEGs (400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    figures = measure(arguments.images, arguments.seed)
    print(f"plain CocoCaptions   {figures['plain'][0]:10,.0f} images/s")
    print(f"packing, {os.cpu_count()} cores   {figures['packing'][0]:10,.0f} images/s")
    print(f"packed cache         {figures['packed'][0]:10,.0f} images/s")
    print(f"packed / plain       {figures['ratio'][0]:10,.0f}")
    if arguments.ledger:
        command = f"python benchmarks/data_loading.py --images {arguments.images}"
        write_ledger(figures, f"{command} --seed {arguments.seed} --ledger", arguments.seed)


if __name__ == "__main__":
    main()
