"""Pictures to be judged, each with the caption that it was drawn from.

A generator draws them here, one for each caption:

    generator, encoder, _ = load_model("baseline")
    rows = choose_captions(held, 2000)
    judged = draw_captions("baseline", generator, encoder, held, rows, seed=0)

or they lie in a folder, as `generate --output-dir` writes it, and find their captions in the data:

    judged = match_captions(read_drawn("stars"), held)

`write_pairs` shows some of them beside the real pictures of the same captions.
"""

from __future__ import annotations

import os
import warnings
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
from t2i_course.data import to_uint8
from t2i_course.metrics.held_out import HeldOut
from t2i_course.metrics.picture_features import read_pictures
from t2i_course.photos.coco_folder import read_captions_file
from t2i_course.plots import pair_grid
from t2i_course.text_encoder import TextEncoder, embed_captions

BATCH = 64  # pictures drawn at once
PAIRS = 24  # in a grid


@dataclass(frozen=True)
class JudgedPictures:
    """Pictures, one for each of N captions.

    Attributes:
        name: of what drew them, for tables and the ledger.
        images: uint8 [N, 3, S, S].
        caption_rows: int64 [N], in `HeldOut.packed.all_captions`.
        seeds: of the noise.
    """

    name: str
    images: np.ndarray
    caption_rows: np.ndarray
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class DrawnFolder:
    """Pictures of a folder with the captions that stand in its captions.json, a sample each.

    Attributes:
        name: of the folder.
        images: uint8 [N, 3, S, S].
        captions: N texts.
        seeds: that the file names.
    """

    name: str
    images: np.ndarray
    captions: list[str]
    seeds: tuple[int, ...]

    @property
    def size(self) -> int:
        """S, or ValueError if the pictures are not square."""
        height, width = self.images.shape[2:]
        if height != width:
            raise ValueError(
                f"the pictures of {self.name} have {height} x {width} pixels (height x width): "
                "real ones are cut to squares, so draw squares"
            )
        return height


def draw_captions(
    name: str,
    generator: nn.Module,
    encoder: TextEncoder,
    held: HeldOut,
    caption_rows: np.ndarray,
    seed: int = 0,
    progress: bool = False,
) -> JudgedPictures:
    """Draw a picture for each of the captions: encode them (or find them in the cache), then draw.

    Args:
        name: of the generator, for tables and the ledger.
        generator: in eval mode.
        encoder: that it was trained with; see `generation.load_model`.
        held: the data.
        caption_rows: int64 [N], see `held_out.choose_captions`.
        seed: of the noise.
        progress: show bars.

    Raises:
        ValueError, FloatingPointError: see `draw_pictures`.
    """
    text = embed_captions(encoder, held.captions(caption_rows), progress=progress)  # [N, D]
    images = draw_pictures(generator, text, seed, progress)
    return JudgedPictures(name, images, caption_rows, (seed,))


def draw_pictures(
    generator: nn.Module,
    features: np.ndarray | Tensor,
    seed: int = 0,
    progress: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> np.ndarray:
    """Draw a picture for each caption, rounded to 8 bits.

    Args:
        generator: in eval mode.
        features: [N, D], of the captions.
        seed: of the noise, one vector a caption: the same for fewer captions, on every device.
        progress: show a bar.
        rank: the number of this process, if several share the work.
        processes: how many do; each draws every so many batches one, see `draw_together`.

    Returns:
        uint8 [N, 3, S, S]; of several processes, this one's part.

    Raises:
        ValueError: the seed is out of range.
        FloatingPointError: the generator draws what is not a finite number.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed} is out of range: choose 0 to {2**32 - 1}")
    device = next(generator.parameters()).device
    source = torch.Generator().manual_seed(seed)
    width = getattr(generator, "noise_dim", 0)
    pictures = [np.empty((0, 3, generator.image_size, generator.image_size), dtype=np.uint8)]
    with torch.no_grad(), tqdm(total=len(features), desc="drawing", disable=not progress) as bar:
        for number, start in enumerate(range(0, len(features), BATCH)):
            part = features[start : start + BATCH]
            text = (
                part if isinstance(part, Tensor) else torch.from_numpy(np.array(part, np.float32))
            )
            # Always as many: torch's numbers depend on how many are drawn at once.
            noise = torch.randn(BATCH, width, generator=source)[: len(text)]  # [B, Z]
            if number % processes != rank:
                continue
            images = generator(text.to(device), noise.to(device)).float()
            if not images.isfinite().all():
                raise FloatingPointError("the generator draws values that are not finite: train it "
                                         "anew, with a lower learning rate")  # fmt: skip
            pictures.append(to_uint8(images).cpu().numpy())
            bar.update(len(text))
    return np.concatenate(pictures)


def draw_together(
    generator: nn.Module, features: np.ndarray | Tensor, seed: int = 0
) -> np.ndarray | None:
    """Draw as `draw_pictures` does, shared by the processes that `accelerate` or torchrun started.

    Returns:
        uint8 [N, 3, S, S] in the first process, None in the others.
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

    Args:
        folder: holds RGB pictures of one size, and captions.json in COCO's form, which lists all
            of them, as `generate --output-dir` writes it.
        progress: show a bar.

    Raises:
        FileNotFoundError, NotADirectoryError: no folder, no captions.json, or a listed picture is
            not there.
        ValueError: see `read_pictures` and `read_captions_file`; also a picture that is not listed,
            or without a caption.
    """
    folder = Path(folder).expanduser()
    file = folder / "captions.json"
    if folder.is_dir() and not file.is_file():
        raise FileNotFoundError(
            f"no captions.json in {folder}: without captions, pictures cannot be judged. Draw them "
            "with `generate --output-dir`, which writes it."
        )
    pictures = read_pictures(folder, progress=progress)
    document = read_captions_file(file)
    listed = {image["file_name"]: image for image in document["images"]}
    place = {name: index for index, name in enumerate(pictures.names)}
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
    rows, captions, seeds = [], [], set()
    for name, image in listed.items():
        if image["id"] not in texts:
            raise ValueError(f"{folder / name} has no caption in captions.json: add it")
        if image.get("sample", 0) == 0:
            rows.append(place[name])
            captions.append(texts[image["id"]])
            seeds |= {image["seed"]} if type(image.get("seed")) is int else set()
    if not rows:
        raise ValueError(f"{file} lists no first sample (sample 0) of any prompt")
    return DrawnFolder(folder.resolve().name, pictures.images[rows], captions, tuple(sorted(seeds)))


def match_captions(drawn: DrawnFolder, held: HeldOut, samples: int | None = None) -> JudgedPictures:
    """Find the captions of drawn pictures in the data, each as often as it stands there.

    Args:
        drawn: the pictures.
        held: the data.
        samples: N, the first ones; None for all.

    Raises:
        ValueError: a caption is not one of the split, or there are fewer pictures than N.
    """
    rows_of: dict[str, list[int]] = {}
    starts = held.packed.caption_starts
    for image in held.image_rows.tolist():
        for row in range(starts[image], starts[image + 1]):
            rows_of.setdefault(held.packed.all_captions[row].strip(), []).append(row)
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
            "often, and one sample a caption is judged",
            stacklevel=2,
        )
    if len(kept) < max(2, samples or 2):
        raise ValueError(
            f"{drawn.name} holds {len(kept)} pictures of different captions, "
            f"{max(2, samples or 2)} are needed: draw more, or ask for fewer (--samples)"
        )
    kept, rows = np.array(kept)[:samples], np.array(rows)[:samples]
    return JudgedPictures(drawn.name, drawn.images[kept], rows, drawn.seeds)


def write_pairs(file: Path, judged: JudgedPictures, held: HeldOut, count: int = PAIRS) -> None:
    """Write a PNG file of pictures beside the real ones of the same captions.

    Nobody chooses them: they are the first of those that are judged.

    Args:
        file: where to; see `generation.check_picture_path`.
        judged: the pictures.
        held: the data that the captions are of.
        count: pairs; fewer if fewer are judged.
    """
    rows = judged.caption_rows[:count]
    drawn, real = judged.images[:count], held.packed.images[held.images_of(rows)]
    figure = pair_grid(torch.from_numpy(drawn), torch.from_numpy(real), held.captions(rows))
    with runtime.atomic_file(file) as partial:
        figure.savefig(partial, format="png", dpi=figure.dpi)
    plt.close(figure)
