"""What is compared: held-out captions and real pictures, and generated pictures of these captions.

held = open_held_out("scenes", "val")        # "test" is reported, and nothing is chosen by it
rows = choose_captions(held, 2000)           # the same ones for every generator
generator, encoder, _ = load_model("baseline")
drawn = draw_captions("baseline", generator, encoder, held, rows, seed=0)
drawn = match_captions(read_drawn("stars"), held)  # or of `generate --output-dir stars`
"""

from __future__ import annotations

import os
import random
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.data import PackedCaptions, pack, resolve_data
from t2i_course.generation import draw
from t2i_course.metrics.picture_features import read_pictures
from t2i_course.photos.coco_folder import read_captions_file
from t2i_course.plots import pair_grid
from t2i_course.scenes import accuracy, drawing
from t2i_course.scenes.wording import Facts
from t2i_course.text_cache import EmbeddedCaptions, embed_for
from t2i_course.text_encoder import TextEncoder

SPLITS = ("val", "test")
OTHER_SEED = 1  # of the real pictures that are not of the split
BATCH = 64  # pictures drawn at once
PAIRS = 24  # in a grid


@dataclass(frozen=True)
class HeldOut:
    """Held-out captions to draw from, and the real pictures to compare with."""

    data: str  # name of the data set, for the ledger
    split: str  # "val" or "test"
    folder: Path
    packed: PackedCaptions
    facts: list[Facts] | None  # that each of `packed.all_captions` states; None for photos
    # Of each of `packed.images`, such as "val_seen" or "val_unseen": has train its pairs of shape
    # and colour? None for photos
    subsets: list[str] | None
    on_bad_image: str  # "raise" or "skip"

    def images_of(self, caption_rows: np.ndarray) -> np.ndarray:
        """Rows in `packed.images`, [N], of captions given by rows in `packed.all_captions`."""
        return self.packed.images_of(caption_rows)

    def captions(self, caption_rows: np.ndarray) -> list[str]:
        """Texts of N captions given by rows in `packed.all_captions`."""
        return [self.packed.all_captions[row] for row in caption_rows.tolist()]


def open_held_out(
    data: str | os.PathLike[str] = "scenes",
    split: str = "val",
    size: int = drawing.SIDE,
    on_bad_image: str = "raise",
    progress: bool = False,
) -> HeldOut:
    """Open the held-out part of "scenes", or of a folder in COCO's layout or of shards.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError, OSError: see `data.pack`; ValueError
            also for a split that is none of `SPLITS`, and for scenes that are not of 64 pixels.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    folder = resolve_data(data, progress)
    drawn = drawing.are_in(folder)
    if drawn and size != drawing.SIDE:
        raise ValueError(
            f"pictures of {size} x {size} pixels cannot be measured as scenes, which have "
            f"{drawing.SIDE} x {drawing.SIDE}: draw them at that size"
        )
    packed = pack(folder, split, size, on_bad_image=on_bad_image, progress=progress)
    name = "scenes" if str(data) == "scenes" else folder.name
    if not drawn:
        return HeldOut(name, split, folder, packed, None, None, on_bad_image)
    numbers, shown = packed.image_ids.tolist(), drawing.read_instances(folder, split)
    entries, kept = drawing.read_captions(folder, split), set(numbers)
    facts = [entry["facts"] for entry in entries if entry["image_id"] in kept]
    unseen = [any((o.shape, o.color) in drawing.UNSEEN_PAIRS for o in shown[n].objects)
              for n in numbers]  # fmt: skip
    subsets = [f"{split}_unseen" if new else f"{split}_seen" for new in unseen]
    return HeldOut(name, split, folder, packed, facts, subsets, on_bad_image)


def choose_captions(held: HeldOut, samples: int, seed: int = 0) -> np.ndarray:
    """Choose captions to draw from: the first of each image, then the second of each, and so on.

    A smaller N, `samples`, gets the first of a larger one.

    Returns:
        int64 [N], rows in `held.packed.all_captions`.

    Raises:
        ValueError: N is below 2, or the split has fewer captions.
    """
    first, number = held.packed.caption_starts[:-1], np.diff(held.packed.caption_starts)  # [R]
    if not 2 <= samples <= number.sum():
        raise ValueError(
            f"{samples} samples: {held.data} has {number.sum()} captions in {held.split}, and each "
            "is drawn once. Choose 2 or more, and not more than that (--samples)."
        )
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(first[number > k] + k) for k in range(int(number.max()))]
    return np.concatenate(rounds)[:samples]


def other_real(
    held: HeldOut, count: int, against: str | None = None, progress: bool = False
) -> tuple[str, np.ndarray, str]:
    """Real pictures that are not in the reference, to stand where a generator's stand.

    Of scenes they are new ones, drawn by the rule of the split with another seed. Of photos they
    are training pictures, as many as there are, or the split's if the reference is `against` train.

    Returns:
        A key for caches of their features; the pictures, uint8 [N, 3, S, S]; what they are.
    """
    if held.facts is None:
        split = held.split if against == "train" else "train"
        packed = held.packed if against == "train" else _pack_train(held, progress)
        rows = np.sort(np.random.default_rng(OTHER_SEED).permutation(len(packed))[:count])
        words = f"{len(rows)} pictures of {split}, seed {OTHER_SEED}"
        return f"{packed.key}, {words}", packed.images[rows], words
    pictures = drawing.render_all(
        drawing.sample_scene(
            random.Random(f"real scenes 1 {OTHER_SEED} {held.split} {index}"), unseen=index % 2 == 1
        )
        for index in tqdm(range(count), desc="drawing scenes", disable=not progress)
    )
    words = f"{count} new scenes of the kind of {held.split}, seed {OTHER_SEED}"
    return f"scenes 1, {words}", np.ascontiguousarray(pictures), words


def reference(held: HeldOut, more_than: int, progress: bool = False) -> tuple[str, np.ndarray, str]:
    """Real pictures to measure a distance to: the split's, or training pictures if those are few.

    They are few where a covariance of `more_than` features needs more of them.

    Returns:
        A key for caches of their features; the pictures, uint8 [R, 3, S, S]; their split's name.
    """
    own = f"{held.packed.key}, {held.split}", held.packed.images, held.split
    if len(held.packed) > more_than:
        return own
    train = _pack_train(held, progress)
    return (train.key, train.images, "train") if len(train) > len(held.packed) else own


def _pack_train(held: HeldOut, progress: bool) -> PackedCaptions:
    """The training split, at the size of the held-out one."""
    size, choice = held.packed.size, held.on_bad_image
    return pack(held.folder, "train", size, on_bad_image=choice, progress=progress)


# Generated pictures


@dataclass(frozen=True)
class GeneratedPictures:
    """Pictures, one for each of N captions."""

    name: str  # of what drew them, for tables and the ledger
    images: np.ndarray  # uint8 [N, 3, S, S]
    caption_rows: np.ndarray  # int64 [N], in `HeldOut.packed.all_captions`
    seeds: tuple[int, ...] = ()  # of the noise


@dataclass(frozen=True)
class DrawnFolder:
    """Pictures of a folder with the captions that stand in its captions.json, a sample each."""

    name: str
    images: np.ndarray  # uint8 [N, 3, S, S]
    captions: list[str]
    seeds: tuple[int, ...]  # that the file names


def draw_captions(
    name: str,
    generator: nn.Module,
    encoder: TextEncoder,
    held: HeldOut,
    caption_rows: np.ndarray,
    seed: int = 0,
    progress: bool = False,
) -> GeneratedPictures:
    """Draw a picture for each caption of `choose_captions`: `draw_pictures` of encoded captions."""
    text = embed_for(generator, encoder, held.captions(caption_rows), progress=progress)
    images = draw_pictures(generator, text, seed, progress)
    return GeneratedPictures(name, images, caption_rows, (seed,))


def draw_varied(
    name: str,
    generator: nn.Module,
    encoder: TextEncoder,
    held: HeldOut,
    captions: int = 100,
    count: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> GeneratedPictures | None:
    """Draw `count` pictures of each of some captions, to see how much they differ.

    Of captions of scenes that name all of one object but its place, its diameter and its shade
    (`accuracy.names_all`); None of photos, and where no caption is such a one.
    """
    if held.facts is None:
        return None
    rows = choose_captions(held, len(held.facts))
    rows = np.array([row for row in rows if accuracy.names_all(held.facts[row])][:captions], int)
    if not len(rows):
        return None
    return draw_captions(name, generator, encoder, held, np.repeat(rows, count), seed, progress)


def draw_pictures(
    generator: nn.Module,
    features: np.ndarray | Tensor | EmbeddedCaptions,
    seed: int = 0,
    progress: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> np.ndarray:
    """Draw a picture for each caption, rounded to 8 bits.

    Of features [N, D], or with their words; the seed's noise is the same for fewer captions, on
    every device. Of several processes, each draws every so many batches one.

    Returns:
        uint8 [N, 3, S, S]; of several processes, this one's part.

    Raises:
        FloatingPointError: the generator draws what is not a finite number.
    """
    source = torch.Generator().manual_seed(seed)
    width = getattr(generator, "noise_dim", 0)
    pictures = [np.empty((0, 3, generator.image_size, generator.image_size), dtype=np.uint8)]
    with tqdm(total=len(features), desc="drawing", disable=not progress) as bar:
        for number, start in enumerate(range(0, len(features), BATCH)):
            text = features[start : start + BATCH]
            if isinstance(text, np.ndarray):
                text = torch.from_numpy(np.array(text, np.float32))
            # Always as many: torch's numbers depend on how many are drawn at once.
            noise = torch.randn(BATCH, width, generator=source)[: len(text)]  # [B, Z]
            if number % processes != rank:
                continue
            pictures.append(draw(generator, text, noise).numpy())
            bar.update(len(text))
    return np.concatenate(pictures)


def draw_together(
    generator: nn.Module, features: np.ndarray | Tensor | EmbeddedCaptions, seed: int = 0
) -> np.ndarray | None:
    """Draw as `draw_pictures` does, shared by the processes that `accelerate` or torchrun started.

    The first process gets all pictures, the others None.
    """
    state = PartialState()
    rank, processes = state.process_index, state.num_processes
    mine = draw_pictures(generator, features, seed, rank=rank, processes=processes)
    parts = gather_object([mine])
    if rank > 0:
        return None
    batch_of = np.arange(len(features)) // BATCH  # [N]
    drawn = np.empty((len(features), *mine.shape[1:]), dtype=np.uint8)
    for process, part in enumerate(parts):
        drawn[batch_of % processes == process] = part
    return drawn


def read_drawn(folder: str | os.PathLike[str], progress: bool = False) -> DrawnFolder:
    """Read a folder of drawn pictures; of several samples of a prompt, the first.

    It holds square RGB pictures of one size, and captions.json in COCO's form, which lists all of
    them, as `generate --output-dir` writes it.

    Raises:
        FileNotFoundError, NotADirectoryError: no folder, no captions.json, or a listed picture is
            not there.
        ValueError: see `read_pictures` and `read_captions_file`; also a picture that is not square,
            not listed, or without a caption.
    """
    folder = Path(folder).expanduser()
    file = folder / "captions.json"
    if folder.is_dir() and not file.is_file():
        raise FileNotFoundError(
            f"no captions.json in {folder}: without captions, pictures cannot be measured. Draw "
            "them with `generate --output-dir`, which writes it."
        )
    pictures, names = read_pictures(folder, progress=progress)
    height, width = pictures.shape[2:]
    if height != width:
        raise ValueError(
            f"the pictures of {folder} have {height} x {width} pixels (height x width): real ones "
            "are cut to squares, so draw squares"
        )
    document = read_captions_file(file)
    listed = {image["file_name"]: image for image in document["images"]}
    place = {name: index for index, name in enumerate(names)}
    if missing := sorted(listed.keys() - place.keys()):
        raise FileNotFoundError(
            f"{folder / missing[0]} is missing, but captions.json lists it ({len(missing)} of "
            f"{len(listed)} are): copy them all"
        )
    if unknown := sorted(place.keys() - listed.keys()):
        raise ValueError(f"{folder / unknown[0]} has no caption: captions.json does not list it")
    texts: dict[int, str] = {}
    for annotation in document["annotations"]:
        texts.setdefault(annotation["image_id"], annotation["caption"].strip())
    first = {name: image for name, image in listed.items() if image.get("sample", 0) == 0}
    if not first:
        raise ValueError(f"{file} lists no first sample (sample 0) of any prompt")
    for name, image in first.items():
        if image["id"] not in texts:
            raise ValueError(f"{folder / name} has no caption in captions.json: add it")
    captions = [texts[image["id"]] for image in first.values()]
    seeds = sorted({image["seed"] for image in first.values() if type(image.get("seed")) is int})
    images = pictures[[place[name] for name in first]]
    return DrawnFolder(folder.resolve().name, images, captions, tuple(seeds))


def match_captions(
    drawn: DrawnFolder, held: HeldOut, samples: int | None = None
) -> GeneratedPictures:
    """Find the captions of drawn pictures in the data, each as often as it stands there.

    Of the first N = `samples` pictures, or of all.

    Raises:
        ValueError: a caption is not one of the split, or there are fewer pictures than N.
    """
    rows_of = defaultdict(list)
    for row, caption in enumerate(held.packed.all_captions):
        rows_of[caption.strip()].append(row)
    foreign = [caption for caption in drawn.captions if caption not in rows_of]
    if foreign:
        raise ValueError(
            f"{len(foreign)} of {len(drawn.captions)} captions of {drawn.name} are not captions of "
            f"{held.data}, {held.split}, such as {foreign[0][:60]!r}: draw from that split's, or "
            "name other data"
        )
    kept, rows = [], []
    for index, caption in enumerate(drawn.captions):
        if rows_of[caption]:
            kept.append(index)
            rows.append(rows_of[caption].pop(0))
    if left := len(drawn.captions) - len(kept):
        warnings.warn(
            f"{left} pictures of {drawn.name} left out: their captions stand in {held.split} less "
            "often, and one sample a caption is measured",
            stacklevel=2,
        )
    if len(kept) < max(2, samples or 2):
        raise ValueError(
            f"{drawn.name} holds {len(kept)} pictures of different captions, "
            f"{max(2, samples or 2)} are needed: draw more, or ask for fewer (--samples)"
        )
    kept, rows = np.array(kept)[:samples], np.array(rows)[:samples]
    return GeneratedPictures(drawn.name, drawn.images[kept], rows, drawn.seeds)


def write_pairs(file: Path, drawn: GeneratedPictures, held: HeldOut) -> None:
    """Write a PNG file of pictures beside the real ones of the same captions.

    Nobody chooses them: they are the first `PAIRS` of those that are measured.
    """
    rows = drawn.caption_rows[:PAIRS]
    pairs = drawn.images[:PAIRS], held.packed.images[held.images_of(rows)]
    figure = pair_grid(*map(torch.from_numpy, pairs), held.captions(rows))
    with runtime.atomic_file(file) as partial:
        figure.savefig(partial, format="png", dpi=figure.dpi)
    plt.close(figure)
