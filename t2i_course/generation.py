"""From prompts to pictures on disk: what `python -m t2i_course generate` does, step by step."""

from __future__ import annotations

import json
import os
import re
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.checkpoints import load_generator
from t2i_course.data import to_uint8
from t2i_course.flow_matching import FlowGenerator
from t2i_course.gan import TextGenerator
from t2i_course.image_decoder import DECODERS
from t2i_course.plots import to_pixels
from t2i_course.scenes.caption_reader import count_objects
from t2i_course.scenes.wording import BEYOND, NUMBERS, UNSEEN_WORDS
from t2i_course.style_decoder import StyleGenerator
from t2i_course.text_encoder import (
    TextEncoder,
    TextFeatures,
    count_tokens,
    load_trained_encoder,
    unknown_words,
)

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    **DECODERS,
    TextGenerator.name: TextGenerator,
    StyleGenerator.name: StyleGenerator,
    FlowGenerator.name: FlowGenerator,
}
BATCH = 64  # pictures drawn at once
COLUMNS = 8
TITLE_SIZE = 12  # pixels
LETTER = 7  # pixels of a letter's width, on average less
LEAST_TITLE_WIDTH = 280  # pixels
OWN_FILES = re.compile(r"captions\.json|\d{6,}\.png")  # what `write_samples` leaves in a folder
SYSTEM_FILES = ("thumbs.db", "desktop.ini")  # and all that begins with a dot


def read_prompts(prompts: Sequence[str], file: str | Path | None = None) -> list[str]:
    """Put prompts and the lines of a file (UTF-8, one prompt a line) into one list.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not UTF-8, there is no prompt, or one is empty.
    """
    prompts = list(prompts)
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"no prompt file {path}: check the path")
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"
            ) from error
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        where = f"{file} holds no prompt" if file is not None else "no prompt"
        raise ValueError(f'{where}: give at least one, such as "a large red circle"')
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise ValueError(f"prompt {number} is empty: say what to draw")
        if any("\ud800" <= c <= "\udfff" for c in prompt):
            raise ValueError(f"prompt {number} holds bytes that are not UTF-8 text: type it anew")
    return prompts


def load_model(
    name_or_path: str | os.PathLike[str],
    device: torch.device | str | None = None,
    truncation: float = 1.0,
) -> tuple[nn.Module, TextEncoder, dict[str, Any]]:
    """Load a trained generator, the text encoder that reads its prompts, and its model card.

    Args:
        name_or_path: as `checkpoint_path` takes it.
        device: where the networks go; the CPU if None.
        truncation: of the style decoder, 0 to 1; other generators know none but 1.

    Raises:
        FileNotFoundError: the checkpoint or the encoder is missing.
        ValueError: the checkpoint is damaged, the encoder is not the one that its card names, or
            the generator cannot be truncated so.
    """
    generator, card = load_generator(name_or_path, device, GENERATORS)
    if not 0 <= truncation <= 1:
        raise ValueError(f"truncation {truncation}: give 0 (one picture a caption) to 1 (none)")
    if truncation != 1:
        if not hasattr(generator, "truncation"):
            raise ValueError(
                f"{name_or_path} is of the kind {generator.name}, which has no truncation: that is "
                "the style decoder's"
            )
        generator.truncation = truncation
    encoder = load_trained_encoder(card["encoder"], str(name_or_path), device)
    return generator, encoder, card


def check_prompts(
    encoder: TextEncoder, prompts: Sequence[str], card: Mapping[str, Any] | None = None
) -> list[str]:
    """Look for words that mean nothing to the encoder or to the generator, or more than it draws.

    Args:
        encoder: of the generator.
        prompts: what is to be drawn.
        card: of the generator; its "words" are those of the captions that it was trained with. An
            encoder knows more words than the generator that learns from it ever gets to draw.

    Returns:
        A note for each prompt with such words.

    Raises:
        ValueError: a prompt is too long.
    """
    card, notes = card or {}, []
    known = set(card.get("words", "").split())
    beyond = BEYOND if card.get("data") == "scenes" else {}
    if beyond:  # the encoder has read these words, on text alone
        known.update(caption_words(" ".join(UNSEEN_WORDS)))
    for prompt in prompts:
        length = count_tokens(encoder, prompt)
        if length > encoder.max_tokens:
            raise ValueError(
                f"the prompt {_shorten(prompt)!r} is {length} tokens long, the encoder takes "
                f"{encoder.max_tokens}: shorten it"
            )
        unspelt = unknown_words(encoder, prompt)
        if unspelt:
            notes.append(f"the encoder cannot read {_listed(unspelt)} in {_shorten(prompt)!r}")
        unread = [word for word in caption_words(prompt) if known and word not in known]
        unread = [word for word in dict.fromkeys(unread) if not any(word in u for u in unspelt)]
        if beyond and count_objects(prompt) > max(NUMBERS):
            notes.append(f"{next(iter(beyond))}: {_shorten(prompt)!r} will not be drawn")
        for limit, words in beyond.items():
            if asked := [word for word in unread if word in words]:
                notes.append(f"{limit}: {_listed(asked)} in {_shorten(prompt)!r} will not be drawn")
                unread = [word for word in unread if word not in asked]
        if unread:
            notes.append(
                f"the model does not know {_listed(unread)} in {_shorten(prompt)!r}: no caption "
                "that it was trained with says so"
            )
    return notes


def caption_words(caption: str) -> list[str]:
    """Words of a caption in small letters, in order, without punctuation."""
    return re.findall(r"\w+", caption.lower())


def training_words(captions: Iterable[str], most: int = 5000) -> str:
    """Words of the captions that a model is trained with, for its card: the most frequent ones."""
    counts = Counter(word for caption in captions for word in caption_words(caption))
    return " ".join(sorted(word for word, _ in counts.most_common(most)))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)


def sample(
    generator: nn.Module,
    encoder: TextEncoder,
    prompts: Sequence[str],
    count: int = 8,
    seed: int = 0,
    progress: bool | None = None,
) -> Iterator[Tensor]:
    """Draw `count` pictures of each prompt, prompt after prompt.

    Sample s of every prompt is drawn from the same noise, which depends on seed and s alone.

    Args:
        generator: in eval mode.
        encoder: the one that the generator was trained with.
        prompts: P texts.
        count: C, 1 or more.
        seed: 0 to 2**32 - 1.
        progress: show a bar; None where there is a terminal.

    Yields:
        uint8 [B, 3, S, S], P * C pictures in all.
    """
    if count < 1:
        raise ValueError(f"cannot draw {count} samples: choose a count of 1 or more")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed} is out of range: choose 0 to {2**32 - 1}")
    device = encoder.device
    chance = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, generator.noise_dim, generator=chance).to(device)  # [C, Z]
    drawn = torch.arange(len(prompts) * count, device=device)
    hidden = None if progress is None else not progress
    for rows in tqdm(drawn.split(BATCH), desc="drawing", disable=hidden):
        asked, which = (rows // count).unique(return_inverse=True)
        text = encoder([prompts[number] for number in asked.tolist()])[which]
        yield draw(generator, text, noise[rows % count])


@torch.inference_mode()
def draw(generator: nn.Module, text: TextFeatures | Tensor, noise: Tensor) -> Tensor:
    """Draw a picture for each of B captions, uint8 [B, 3, S, S] on the CPU, by noise [B, Z].

    Raises:
        FloatingPointError: the generator draws what is not a finite number.
    """
    device = next(generator.parameters()).device
    images = generator(text.to(device), noise.to(device)).float()
    if not images.isfinite().all():
        raise FloatingPointError("the generator draws values that are not finite: train it anew, "
                                 "with a lower learning rate")  # fmt: skip
    return to_uint8(images).cpu()


def grid_picture(images: Tensor, columns: int = 8, padding: int = 2) -> Image.Image:
    """Lay pictures [N, 3, H, W], floats in [-1, 1] or uint8, out in rows on white."""
    pixels = to_pixels(images)  # [N, H, W, 3]
    count, height, width, _ = pixels.shape
    columns = min(columns, count)
    rows, height, width = -(-count // columns), height + padding, width + padding
    cells = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    cells[:count, padding:, padding:] = pixels
    grid = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    grid = grid.reshape(rows * height, columns * width, 3)
    return Image.fromarray(np.pad(grid, [(0, padding), (0, padding), (0, 0)], constant_values=255))


def prompt_grid(images: Tensor, prompts: Sequence[str]) -> Image.Image:
    """Lay samples [P * C, 3, S, S] of P prompts out in rows; if several, each above its own."""
    strips = [grid_picture(part, COLUMNS) for part in images.chunk(len(prompts))]
    if len(prompts) == 1:
        return strips[0]
    font, line = ImageFont.load_default(TITLE_SIZE), TITLE_SIZE + 4
    width = max(LEAST_TITLE_WIDTH, strips[0].width)
    titles = ["\n".join(textwrap.wrap(prompt, width // LETTER)) for prompt in prompts]
    tops = [(title.count("\n") + 1) * line + 6 for title in titles]
    canvas = Image.new("RGB", (width, sum(tops) + len(prompts) * strips[0].height), "white")
    pen, top = ImageDraw.Draw(canvas), 0
    for title, above, strip in zip(titles, tops, strips, strict=True):
        pen.text((4, top + 3), title, fill="black", font=font, spacing=4)
        canvas.paste(strip, (0, top + above))
        top += above + strip.height
    return canvas


# Files


def check_picture_path(path: Path) -> None:
    """Raise OSError or ValueError unless a PNG file can be put there."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as PNG, name a file that ends in .png")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file, or use --output-dir")
    _check_folder(Path(os.path.realpath(path)).parent)


def check_sample_folder(folder: Path, overwrite: bool = False) -> None:
    """Raise OSError unless samples can be put there.

    The folder has to be empty, or to hold nothing that `generate` did not write, and `overwrite` be
    asked for. What systems leave in folders, such as .DS_Store, does not count.
    """
    folder = Path(os.path.realpath(folder))  # of a link, what it leads to
    if not folder.exists():
        _check_folder(folder.parent)
        return
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder")
    _check_folder(folder)
    names = [entry.name for entry in folder.iterdir()]
    names = [n for n in names if not n.startswith(".") and n.lower() not in SYSTEM_FILES]
    if names and not overwrite:
        raise FileExistsError(f"{folder} is not empty: name another folder, or add --overwrite")
    foreign = [n for n in names if not OWN_FILES.fullmatch(n)]
    if foreign:
        raise FileExistsError(
            f"{folder} holds {foreign[0]!r}, which generate did not write: name another folder"
        )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: make it first, or name another place")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written to: name another place")


def write_samples(
    folder: Path,
    batches: Iterator[Tensor],
    prompts: Sequence[str],
    count: int,
    seed: int,
    model: str,
) -> None:
    """Write one PNG a sample and captions.json, in COCO's captions form, once all are drawn.

    Args:
        folder: checked by `check_sample_folder`; what was drawn into it is replaced at the end.
        batches: uint8 [B, 3, S, S] as `sample` yields them.
        prompts: P texts, the captions.
        count: samples of each prompt.
        seed: of the noise, written beside each picture.
        model: name of the checkpoint.
    """
    folder, images, annotations = Path(os.path.realpath(folder)), [], []
    beside = folder if folder.is_dir() else folder.parent  # the folder may be a disk of its own
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=beside) as unfinished:
        for pixels in (picture for batch in batches for picture in batch.permute(0, 2, 3, 1)):
            row, sample_number = divmod(len(images), count)
            number, name = len(images) + 1, f"{len(images) + 1:06d}.png"
            Image.fromarray(pixels.numpy()).save(Path(unfinished, name))
            images.append({
                "id": number, "file_name": name,
                "width": pixels.shape[1], "height": pixels.shape[0],
                "prompt": prompts[row], "seed": seed, "sample": sample_number,
            })  # fmt: skip
            annotations.append({"id": number, "image_id": number, "caption": prompts[row]})
        info = {"description": f"drawn by {model}", "seed": seed}
        document = {"info": info, "images": images, "annotations": annotations}
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        Path(unfinished, "captions.json").write_text(text, encoding="utf-8", newline="\n")
        folder.mkdir(exist_ok=True)
        for old in list(folder.iterdir()):
            if OWN_FILES.fullmatch(old.name):
                old.unlink()
        for file in sorted(Path(unfinished).iterdir()):  # captions.json comes last
            os.replace(file, folder / file.name)


def write_grid(file: Path, images: Tensor, prompts: Sequence[str]) -> None:
    """Write the grid of `prompt_grid` as a PNG file."""
    with runtime.atomic_file(file) as partial:
        prompt_grid(images, prompts).save(partial, format="PNG")


def _shorten(prompt: str) -> str:
    return prompt if len(prompt) <= 60 else prompt[:57] + "..."
