"""Pictures as a metric gets them: checked, rounded to 8 bits, turned into features once.

A picture that a model draws is made of floats; one on disk is made of bytes. A metric that reads
the floats of one and the bytes of the other compares the rounding, too. Here every picture becomes
bytes first, and what is not a set of RGB pictures of one size is refused with the reason.

    images, names = read_pictures("stars")                            # uint8 [N, 3, S, S]
    features = extract_features(extractor, images)                    # float32 [N, D]
    features = cached_features("real, val", lambda: extract_features(extractor, images))
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.data import to_uint8

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
ROUNDING = 1 / 255  # floats may leave [-1, 1] by half a step of a byte


class Extractor(Protocol):
    """What turns pictures into features."""

    name: str  # for the ledger: network, weights, how it resizes
    fingerprint: str  # hex digits of the weights, for keys of caches and for results
    width: int  # D, number of features

    def __call__(self, images: Tensor) -> Tensor:
        """Turn uint8 [B, 3, H, W] into features [B, D]."""
        ...


def check_pictures(
    images: Tensor | np.ndarray, size: int | None = None, name: str = "pictures"
) -> np.ndarray:
    """Return pictures as bytes, or say what is wrong with them.

    Takes [N, 3, H, W], of that height and width if `size` is given: floats in [-1, 1], as a
    generator draws them, are rounded; uint8 stays what it is, memory-mapped, too.

    Raises:
        ValueError: none, another shape, channel count, size or type, or values outside [-1, 1];
            with that `name`.
    """
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = images.float().numpy() if images.is_floating_point() else images.numpy()
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise ValueError(f"{name} have the shape {shape}: give [N, 3, height, width]")
    if not len(images):
        raise ValueError(f"no {name}: a metric needs some")
    if shape[1] != 3:
        last = ": move the channels to the second place" if shape[3] == 3 else ": give RGB pictures"
        raise ValueError(f"{name} have {shape[1]} channels, as their shape is {shape}{last}")
    if 0 in shape[2:] or (size is not None and shape[2:] != (size, size)):
        wanted = "some pixels" if size is None else f"{size} x {size} pixels"
        raise ValueError(f"{name} have {shape[2]} x {shape[3]} pixels: {wanted} are needed")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{name} are {images.dtype}: give uint8, or floats in [-1, 1]")
    low, high = float(images.min()), float(images.max())  # NaN if there is one
    if not -1 - ROUNDING <= low <= high <= 1 + ROUNDING:
        raise ValueError(
            f"{name} have values from {low:.4g} to {high:.4g}: floats lie in [-1, 1], "
            "and what lies in [0, 255] belongs into uint8"
        )
    if low >= 0 and len(images) >= 16:
        warnings.warn(
            f"no value of {len(images)} {name} is below 0: are they in [0, 1]? [-1, 1] is expected",
            stacklevel=2,
        )
    return to_uint8(torch.tensor(images)).numpy()


def read_pictures(
    folder: str | os.PathLike[str], progress: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Read all pictures of a folder, in the order of their names; other files are passed over.

    Returns:
        uint8 [N, 3, H, W], and their file names.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: it holds no picture, or one that cannot be read, is not RGB or has another size.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: name the folder that holds the pictures")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: check the path")
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        raise ValueError(f"{folder} holds no picture: {', '.join(SUFFIXES)} are looked for")
    first = _read_picture(files[0]).shape
    images = np.empty((len(files), *first), dtype=np.uint8)
    for index, file in enumerate(tqdm(files, desc="reading pictures", disable=not progress)):
        pixels = _read_picture(file)
        if pixels.shape != first:
            raise ValueError(
                f"{file} has {pixels.shape[1]} x {pixels.shape[2]} pixels (height x width), but "
                f"{files[0].name} has {first[1]} x {first[2]}: draw or resize all of them to one "
                "size"
            )
        images[index] = pixels
    return images, [file.name for file in files]


def _read_picture(file: Path) -> np.ndarray:
    """Decode an RGB file: uint8 [3, H, W]."""
    try:
        with Image.open(file) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): it is cut short or damaged. Copy it again, or "
            "remove it."
        ) from error
    if mode != "RGB":
        raise ValueError(f"{file} has the mode {mode}, not RGB: convert it, or remove it")
    return np.moveaxis(pixels, -1, 0)


def extract_features(
    extractor: Extractor,
    images: Tensor | np.ndarray,
    batch_size: int = 64,
    progress: bool = False,
) -> np.ndarray:
    """Run an extractor over N pictures, see `check_pictures`: finite features, float32 [N, D]."""
    images = check_pictures(images)
    features = np.empty((len(images), extractor.width), dtype=np.float32)
    with tqdm(total=len(images), desc="features", unit="image", disable=not progress) as bar:
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size]))  # [B, 3, H, W]
            with torch.inference_mode():
                features[start : start + len(batch)] = extractor(batch).float().cpu().numpy()
            bar.update(len(batch))
    if not np.isfinite(features).all():
        raise ValueError(f"{extractor.name} gave features that are not finite: check its weights")
    return features


def cached_features(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the features of that key; compute them once, while other processes wait.

    Args:
        key: all that the features depend on: the pictures (such as `PackedCaptions.key`), how many,
            and the extractor's fingerprint.
        make: computes them, [N, D].
    """
    key = f"features: {key}"
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    path = runtime.data_folder() / "cache" / "features" / f"{name}.npz"
    with runtime.locked(path):
        if not path.exists():
            with runtime.atomic_file(path) as unfinished:
                np.savez(unfinished, key=np.array(key), features=make())
        with np.load(path) as file:
            return file["features"]
