"""A picture file and its captions, and how the file becomes an upright RGB picture."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

SKIP_HINT = 'pass on_bad_image="skip" (--on-bad-image skip) to leave such images out'
TURNS = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTED_BY = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # in a picture's info
AT_ONCE = 64  # samples that are in memory together

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """A picture that is not decoded yet, and its captions.

    Attributes:
        number: the image's id.
        name: of the picture, for lists of what was left out.
        picture: the file, or its bytes.
        where: what errors call the picture.
        fault: what is wrong with the sample; "" if nothing.
    """

    number: int
    name: str
    captions: list[str]
    picture: Path | bytes
    where: str
    fault: str = ""


def in_threads(
    work: Callable[[Sample], Result], samples: Iterator[Sample]
) -> Iterator[tuple[Sample, Result]]:
    """Yield each sample with what is made of it, in order; Pillow releases the interpreter."""
    with ThreadPoolExecutor() as pool:
        while some := list(itertools.islice(samples, AT_ONCE)):
            yield from zip(some, pool.map(work, some), strict=True)


def decode_picture(picture: Path | bytes, name: str) -> Image.Image:
    """Read a picture as RGB.

    Values of 16 bits are divided by 257; wider ones and floats are scaled by their range. What is
    transparent lies on white. The picture keeps its orientation tag, for `upright`.

    Args:
        picture: its file, or the file's bytes.
        name: what the error calls it.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return _to_rgb(image)
    except Exception as error:  # of damaged files nearly any: struct.error, IndexError, ...
        raise ValueError(
            f"{name} cannot be read ({error}): it is cut short or damaged, or of a kind that "
            f"Pillow does not know. Copy it again, or {SKIP_HINT}."
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        rgb = Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    elif image.has_transparency_data:
        shown = image.convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    else:
        return image.convert("RGB")
    rgb.info = {name: image.info[name] for name in ORIENTED_BY if name in image.info}
    return rgb


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale gray values [H, W] to bytes.

    Of 16 bits the range is that of the type. Of 32 bits and of floats nobody says what is white:
    it is 1, or 255, or 65,535, as for the same picture in another form, if no value is larger or
    negative; else the lowest value becomes black and the highest white.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds values that are no numbers")
    if values.dtype.itemsize == 2:
        low, high = 0, 65_535
    else:
        whites = (1,) if values.dtype.kind == "f" else (255, 65_535)
        white = next((white for white in whites if high <= white), None)
        if low >= 0 and white:
            low, high = 0, white
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
    return scaled.round().clip(0, 255).astype(np.uint8)


def upright(image: Image.Image) -> Image.Image:
    """Turn a photo as its EXIF orientation says: "left" in a caption is left in the upright photo.

    Only that tag is read: damage in others does not matter. What cannot be read leaves the photo
    as it is stored.
    """
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # of damaged data nearly any
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in ORIENTED_BY:
        turned.info.pop(name, None)  # or it would be turned once more
    return turned
