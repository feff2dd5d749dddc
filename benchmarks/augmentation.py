"""What augmentation buys: how well a network reads, by the number of its training pictures.

    python benchmarks/augmentation.py             trains what is missing, prints the table
    python benchmarks/augmentation.py --ledger    writes it to data/results/augmentation.json, too

No generator is trained, but the cheapest network that has to read a caption and see a picture: a
caption matcher for scenes of one object at 32 pixels, which learns its words from nothing. Each
test caption picks the best of 1,000 test pictures; the pick is right if it shows all that the
caption states. Every training picture has one caption, as photos have on the web. The arms change
the same pictures:

    none        the picture and its caption, as they are
    pictures    translated; mirrored by halves where the caption states no side
    text        the caption's facts in new words each time: the grammar's, freer ones, some left out
    both        both
    any flip    as "pictures", but mirrored by halves whatever the caption states (at 1,000 only)

A run that is done stands in data/cache/augmentation_runs.jsonl and is not made again. A figure is
the mean over seeds; its interval is Student's at 95 % over the seeds' values.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course import augmentation, report, runtime
from t2i_course.data import to_float
from t2i_course.scenes import authored_wordings, drawing
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.wording import Facts, choose_facts, word_facts
from t2i_course.significance import seed_interval

RUNS = runtime.data_folder() / "cache" / "augmentation_runs.jsonl"
ARMS = ("none", "pictures", "text", "both", "any flip")
SIZES, POOL, SEEDS = (250, 1_000, 4_000, 10_000), 10_000, (0, 1, 2)
WIDTH, WORDINGS, TEST, LENGTH = 64, 8, 1_000, 24
AUTHORS = ("own_words.txt", "other_words.txt", "third_words.txt")
TOKEN = re.compile(r"[a-z]+|[,;:.()-]")


def draw(split: str, count: int) -> tuple[list[drawing.Scene], list[Facts], Tensor]:
    """Draw scenes, what one caption of each states, and pictures, uint8 [N, 3, 32, 32]."""
    rng = random.Random(f"augmentation {split}")
    scenes = [drawing.sample_scene(rng, shares={"one": 1}) for _ in range(count)]
    facts = [choose_facts(scene, rng) for scene in scenes]
    pixels = np.stack([np.asarray(drawing.render(scene)) for scene in scenes])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()  # [N, 3, 64, 64]
    return scenes, facts, functional.avg_pool2d(images, 2).round().to(torch.uint8)


def reword(facts: Facts, rng: random.Random) -> str:
    """Word a caption's facts anew; half of the wordings are freer, half leave something out."""
    told = augmentation.leave_out(facts, rng) if rng.random() < 0.5 else facts
    return word_freely(told, rng) if rng.random() < 0.5 else word_facts(told, rng)


@cache
def training_data() -> tuple[list[list[str]], list[Facts], Tensor]:
    """Captions of each training picture, first the one that is its own; facts; pictures."""
    _, facts, images = draw("train", POOL)
    rng = random.Random("augmentation wordings")
    captions = [
        [word_facts(told, rng), *(reword(told, rng) for _ in range(WORDINGS))] for told in facts
    ]
    return captions, facts, images


class Matcher(nn.Module):
    """Two towers and InfoNCE: convolutions over a picture, the mean of a caption's words."""

    def __init__(self, words: Sequence[str]) -> None:
        """Build it for these words; all others are one, 1. Padding is 0."""
        super().__init__()
        self.number = {word: k for k, word in enumerate(words, start=2)}
        self.picture = nn.Sequential(
            nn.Conv2d(3, 32, 8, 4, 2), nn.BatchNorm2d(32), nn.ReLU(),  # 8 cells to a side
            nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),  # 4
            nn.Linear(64 * 16, WIDTH),
        )  # fmt: skip
        self.words = nn.EmbeddingBag(len(words) + 2, 2 * WIDTH, mode="mean", padding_idx=0)
        self.sentence = nn.Sequential(nn.LayerNorm(2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def numbers(self, captions: Sequence[str]) -> Tensor:
        """Turn N captions into int64 [N, `LENGTH`]; what is longer is cut."""
        found = torch.zeros(len(captions), LENGTH, dtype=torch.long)
        for row, caption in zip(found, captions, strict=True):
            ids = [self.number.get(word, 1) for word in TOKEN.findall(caption.lower())][:LENGTH]
            row[: len(ids)] = torch.tensor(ids)
        return found

    def read(self, numbers: Tensor) -> Tensor:
        """Turn captions, int64 [B, T], into features [B, D] of length 1."""
        return functional.normalize(self.sentence(self.words(numbers)), dim=1)

    def see(self, images: Tensor) -> Tensor:
        """Turn pictures [B, 3, 32, 32] in [-1, 1] into features [B, D] of length 1."""
        return functional.normalize(self.picture(images), dim=1)

    def loss(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Symmetric InfoNCE (radford2021clip)."""
        logits = self.log_scale.exp().clamp(max=100) * self.see(images) @ self.read(numbers).T
        own = torch.arange(len(logits))
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def augmented(images: Tensor, bears_flip: Tensor, arm: str, chance: torch.Generator) -> Tensor:
    """Change a batch of pictures as an arm says."""
    if arm in ("none", "text"):
        return images
    flip = torch.rand(len(images), generator=chance) < 0.5
    if arm != "any flip":
        flip &= bears_flip
    images = torch.where(flip[:, None, None, None], augmentation.augment(images, ["flip"]), images)
    return augmentation.augment(
        images, ["translation"], lambda n: torch.rand(len(images), n, generator=chance)
    )


def train(arm: str, size: int, seed: int, steps: int, batch: int) -> Matcher:
    """Train on the first `size` pictures, for as many steps at every size."""
    captions, facts, images = training_data()
    runtime.seed_everything(seed)
    chance = torch.Generator().manual_seed(seed)
    versions = range(WORDINGS + 1) if arm in ("text", "both") else range(1)
    texts = [captions[i][k] for i in range(size) for k in versions]
    matcher = Matcher(sorted({word for text in texts for word in TOKEN.findall(text)}))
    numbers = matcher.numbers(texts).view(size, len(versions), LENGTH)
    bears = torch.tensor([augmentation.stays_true("flip", told) for told in facts[:size]])
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        rows = torch.randperm(size, generator=chance)[:batch]
        version = torch.randint(len(versions), (len(rows),), generator=chance)
        chosen = numbers[rows, version]
        shown = augmented(to_float(images[rows]), bears[rows], arm, chance)
        loss = matcher.loss(shown, chosen[:, : int((chosen > 0).sum(1).max())])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return matcher.eval()


@cache
def test_data() -> tuple[list[drawing.Scene], list[Facts], Tensor, list[str]]:
    """Test scenes, facts, pictures and captions in the grammar's words of training."""
    scenes, facts, images = draw("test", TEST)
    rng = random.Random("augmentation test wordings")
    return scenes, facts, images, [word_facts(told, rng) for told in facts]


@cache
def authored() -> list[tuple[str, Facts]]:
    """Captions of one thing that authors wrote, with what they state."""
    files = (Path(__file__).with_name(name) for name in AUTHORS)
    lines = [line for file in files for line in authored_wordings.read_file(file)]
    return [line for line in lines if len(line[1]["objects"]) == 1]


@cache
def sided() -> list[bool]:
    """Whether each test caption states a side."""
    return [not augmentation.stays_true("flip", told) for told in test_data()[1]]


def measure(matcher: Matcher) -> dict[str, float]:
    """Shares of right picks, of own pictures among the first ten, of sides told apart."""
    scenes, facts, images, captions = test_data()
    with torch.inference_mode():
        shown = to_float(images)
        seen, mirrored = matcher.see(shown), matcher.see(shown.flip(3))  # [N, D] each
        read = matcher.read(matcher.numbers(captions))
        authors = matcher.read(matcher.numbers([caption for caption, _ in authored()]))

    def right(match: Tensor, stated: Sequence[Facts]) -> float:
        picks = match.argmax(dim=1).tolist()
        pairs = zip(stated, picks, strict=True)
        return float(np.mean([all(check_facts(told, scenes[k]).values()) for told, k in pairs]))

    match = read @ seen.T  # [N, N]
    own = match.diagonal()
    before = own > (read * mirrored).sum(dim=1)  # [N]
    return {
        "right picks": right(match, facts),
        "right picks, authors' captions": right(authors @ seen.T, [told for _, told in authored()]),
        "own picture among ten": ((match > own[:, None]).sum(1) < 10).float().mean().item(),
        "own picture before its mirror image": before[sided()].float().mean().item(),
    }


def finished() -> dict[str, dict]:
    """Runs that are done, by name."""
    lines = RUNS.read_text(encoding="utf-8").splitlines() if RUNS.exists() else []
    return {run["name"]: run for run in map(json.loads, lines)}


def run(arm: str, size: int, seed: int, steps: int, batch: int) -> dict:
    """Train and measure, unless that is done."""
    name = f"{arm}, {size} pictures, seed {seed}, {steps} steps of {batch}"
    if name in (done := finished()):
        return done[name]
    start = time.perf_counter()
    found = measure(train(arm, size, seed, steps, batch))
    entry = {"name": name, "found": found, "seconds": round(time.perf_counter() - start, 1)}
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    with RUNS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry | {"hardware": runtime.hardware()}) + "\n")
    print(json.dumps(entry), flush=True)
    return entry


def rows_of(arm: str, size: int, runs: Sequence[dict], command: str) -> Iterator[report.Row]:
    """A row of the ledger for each figure of some seeds."""
    samples = {"right picks, authors' captions": len(authored()),
               "own picture before its mirror image": sum(sided())}  # fmt: skip
    for name in runs[0]["found"]:
        values = np.array([entry["found"][name] for entry in runs])
        yield report.Row(
            id=f"augmentation-{report.slug(f'{arm} {size} {name}')}",
            metric=f"caption matcher of {size} pictures, augmented: {arm}; {name}, share",
            value=float(values.mean()), interval=seed_interval(values, 0, 1),
            samples=samples.get(name, TEST),
            seeds=SEEDS[: len(values)], split="test",
            extractor="facts of the picked scene", data="scenes of one object at 32 pixels",
            hardware=runs[0]["hardware"], seconds=round(sum(entry["seconds"] for entry in runs), 1),
            command=command,
        )  # fmt: skip


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help=f"up to {POOL:,}")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=400, help="of each run (400)")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures a step (64)")
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    if not all(0 < size <= POOL for size in arguments.sizes):
        parser.error(f"--sizes: 1 to {POOL:,} pictures")
    begun = time.monotonic()
    plan = [
        (arm, size) for size in arguments.sizes for arm in arguments.arms
        if arm != "any flip" or size == 1_000
    ]  # fmt: skip
    how = arguments.steps, arguments.batch_size
    for seed in arguments.seeds:
        for arm, size in plan:
            if arguments.minutes and time.monotonic() - begun > 60 * arguments.minutes:
                return print("time is up; the same command goes on")
            run(arm, size, seed, *how)
    rows: list[report.Row] = []
    for arm, size in plan:
        runs = [run(arm, size, seed, *how) for seed in arguments.seeds]
        rows += rows_of(arm, size, runs, "python benchmarks/augmentation.py --ledger")
    for row in rows:
        low, high = row.interval or (row.value, row.value)
        print(f"{row.value:.3f} ({low:.3f} to {high:.3f})  {row.metric}")
    if arguments.ledger:
        print(f"written: {report.add_rows('augmentation.json', rows).name}")


if __name__ == "__main__":
    main()
