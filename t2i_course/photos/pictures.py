"""A picture file and its captions, and how the file becomes an upright RGB picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

SKIP_HINT = 'pass on_bad_image="skip" (--on-bad-image skip) to leave such images out'


@dataclass(frozen=True)
class Sample:
    """A picture that is not decoded yet, and its captions.

    Attributes:
        number: the image's id.
        name: of the picture, for lists of what was left out.
        captions: what is said of it.
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


def decode_picture(picture: Path | bytes, name: str) -> Image.Image:
    """Read a picture as RGB.

    Args:
        picture: its file, or the file's bytes.
        name: what the error calls it.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} cannot be read ({error}): it is cut short or damaged. Copy it again, "
            f"or {SKIP_HINT}."
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """Turn a photo as its EXIF orientation says: "left" in a caption is left in the upright photo.

    Orientation data that cannot be read leaves the photo as it is stored.
    """
    if "exif" not in image.info:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError):
        return image
