"""Pictures for a metric: 8 bits, right errors, features once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course.metrics import picture_features
from t2i_course.metrics.picture_features import check_pictures, extract_features, read_pictures


class MeanColor:
    """A real extractor, of three features: the mean of each channel."""

    name, fingerprint, width = "mean colour", "0" * 16, 3

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        self.batches.append(len(images))
        return images.float().mean(dim=(2, 3))


def some_bytes(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


# Bytes


def test_floats_are_rounded_to_the_nearest_byte():
    pixels = some_bytes(4)
    exact = torch.from_numpy(pixels).float() / 127.5 - 1
    shaken = exact + (torch.rand(exact.shape) - 0.5) * 2 * 0.45 / 127.5
    for images in (exact, shaken, shaken.numpy(), exact.double(), exact.numpy()):
        found = check_pictures(images)
        assert found.dtype == np.uint8 and np.array_equal(found, pixels)


def test_bytes_stay_as_they_are_also_when_memory_mapped(tmp_path):
    pixels = some_bytes(4)
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert check_pictures(mapped, size=8) is mapped
    assert np.array_equal(check_pictures(torch.from_numpy(pixels)), pixels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "no stars"),
        (torch.zeros(2, 4, 8, 8), "4 channels.*RGB"),
        (torch.zeros(2, 8, 8, 3), "move the channels"),
        (torch.zeros(2, 3, 8, 9), "8 x 9 pixels: 8 x 8 pixels are needed"),
        (torch.zeros(2, 3, 16, 16), "16 x 16 pixels: 8 x 8"),
        (torch.full((2, 3, 8, 8), 200.0), r"values from 200 to 200.*uint8"),
        (torch.full((2, 3, 8, 8), float("nan")), "values from nan to nan"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "int64"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused_with_the_reason(images, message: str):
    with pytest.raises(ValueError, match=message):
        check_pictures(images, size=8, name="stars")


def test_values_in_zero_to_one_are_suspected():
    images = torch.rand(16, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"are they in \[0, 1\]"):
        check_pictures(images)
    images[3, 0, 0, 0] = -0.5
    with warnings.catch_warnings(action="error"):
        check_pictures(images)


# Folders


def save(path, size=(8, 8), mode="RGB"):
    Image.new(mode, size, 120).save(path)
    return path


def test_folder_is_read_in_the_order_of_names_past_other_files(tmp_path):
    for index, name in enumerate(("b.png", "a.BMP", "c.jpg")):
        Image.new("RGB", (8, 6), (100 * index, 0, 0)).save(tmp_path / name)
    (tmp_path / "captions.json").write_text("{}")
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "sub.png").mkdir()
    images, names = read_pictures(tmp_path)
    assert names == ["a.BMP", "b.png", "c.jpg"]
    assert images.shape == (3, 3, 6, 8) and images.dtype == np.uint8
    assert images[:2, 0, 0, 0].tolist() == [100, 0]


def test_missing_empty_and_mistaken_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_pictures(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no picture"):
        read_pictures(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        read_pictures(save(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["text", "cut"])
def test_unreadable_file_is_named(tmp_path, kind: str):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name, (64, 64))
    whole = (tmp_path / "b.png").read_bytes()
    content = {"text": b"not a picture", "cut": whole[: len(whole) // 2]}[kind]
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        read_pictures(tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_file_of_other_channels_is_named(tmp_path, mode: str):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", mode=mode)
    with pytest.raises(ValueError, match=rf"b\.png has the mode {mode}, not RGB"):
        read_pictures(tmp_path)


def test_file_of_another_size_is_named(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", (9, 8))
    with pytest.raises(ValueError, match=r"b\.png has 8 x 9 pixels.*a\.png has 8 x 8"):
        read_pictures(tmp_path)


# Features


def test_features_do_not_depend_on_the_batches():
    images, extractor = some_bytes(10), MeanColor()
    found = extract_features(extractor, images, batch_size=4)
    assert extractor.batches == [4, 4, 2] and found.dtype == np.float32
    assert found == pytest.approx(images.mean(axis=(2, 3)), rel=1e-6)


def test_features_that_are_not_finite_are_refused():
    class Broken(MeanColor):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return super().__call__(images) / 0 * 0

    with pytest.raises(ValueError, match="mean colour gave features that are not finite"):
        extract_features(Broken(), some_bytes(2))


def test_features_are_kept_by_key_and_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    extractor, images = MeanColor(), some_bytes(6)

    def kept(key: str) -> np.ndarray:
        return picture_features.cached_features(key, lambda: extract_features(extractor, images))

    first = kept("real")
    assert np.array_equal(kept("real"), first) and extractor.batches == [6]
    kept("other")
    assert extractor.batches == [6, 6]
