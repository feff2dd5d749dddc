"""Picture files of every kind become upright RGB pictures as people see them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from t2i_course.photos.pictures import decode_picture, upright

RAMP = np.linspace(0, 65_535, 40 * 30).reshape(40, 30)


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (RAMP.astype(np.uint16), "PNG"),
        (RAMP.astype(np.uint16), "TIFF"),
        (RAMP.astype(np.int32), "TIFF"),
        ((RAMP * 30_000).astype(np.int32), "TIFF"),
        ((RAMP / 65_535).astype(np.float32), "TIFF"),
        ((RAMP / 257).astype(np.float32), "TIFF"),
        ((RAMP * 7 - 1e5).astype(np.float32), "TIFF"),
    ],
)
def test_wide_values_are_scaled_by_their_range(values, form):
    found = np.asarray(decode_picture(encode(Image.fromarray(values), form), "x"))
    assert np.abs(found - RAMP[..., None] / 257).max() <= 1


def test_a_dark_picture_of_16_bits_stays_dark():
    dark = Image.fromarray(np.full((4, 4), 2570, np.uint16))
    assert decode_picture(encode(dark, "PNG"), "x").getpixel((0, 0)) == (10, 10, 10)


def test_values_that_are_no_numbers_are_an_error():
    values = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="x.tif cannot be read .*no numbers"):
        decode_picture(encode(values, "TIFF"), "x.tif")


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "WEBP"), ("RGBA", "GIF")],
)
def test_what_is_transparent_lies_on_white(mode, form):
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((60, 60, 60, 255), (5, 5, 15, 15))
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    options = {"lossless": True} if form == "WEBP" else {}
    found = decode_picture(encode(image, form, **options), "x")
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((10, 10)) == (60, 60, 60)


def test_a_colour_that_stands_for_transparent_and_half_transparent_pixels_lie_on_white():
    green = encode(Image.new("RGB", (4, 4), (0, 255, 0)), "PNG", transparency=(0, 255, 0))
    assert decode_picture(green, "x").getpixel((0, 0)) == (255, 255, 255)
    half = encode(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")
    assert decode_picture(half, "x").getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_once(orientation, form):
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(image, form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    found = upright(decode_picture(content, "x"))
    assert found.size == expected.size
    assert np.abs(np.int32(found) - np.int32(expected)).max() < 40
    assert upright(found).size == found.size


def test_turning_keeps_alpha_and_16_bits():
    exif = Image.Exif()
    exif[0x0112] = 8
    for image in (Image.new("RGBA", (8, 4)), Image.fromarray(RAMP[:4, :8].astype(np.uint16))):
        assert upright(decode_picture(encode(image, "PNG", exif=exif), "x")).size == (4, 8)


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [(10, 1, struct.pack("<ii", -1, 0)), (2, 6, b"hello\0\0\0"), (99, 7, b""), (5, 2**31, b"")],
)
def test_the_orientation_counts_beside_a_damaged_tag(kind, count, value):
    tags = struct.pack("<HHHIHH", 2, 0x112, 3, 1, 6, 0) + struct.pack(
        "<HHII", 0x11A, kind, count, 38
    )
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags + struct.pack("<I", 0) + value
    content = encode(Image.new("RGB", (64, 32)), "JPEG", exif=exif)
    assert upright(decode_picture(content, "x")).size == (32, 64)


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"II*\0\xff\xff\xff\x7f", b"\x89PNG\r\n\x1a\n" * 9]
)
def test_what_is_no_picture_is_named(content):
    with pytest.raises(ValueError, match="x cannot be read .*--on-bad-image skip"):
        decode_picture(content, "x")
