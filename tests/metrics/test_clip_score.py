"""CLIP score against the formula written out, with a small real CLIP of random weights on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from t2i_course.metrics.clip_score import ClipNetwork, clip_score, clip_source

CAPTIONS = ["two dogs run on the grass", "a man rides a wave", "people at a table", "a red bus"]
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def clip(tiny_clip) -> ClipNetwork:
    return ClipNetwork(tiny_clip, device="cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)


def by_hand(clip: ClipNetwork, image: np.ndarray, caption: str) -> float:
    """100 max(cos, 0) of one picture of CLIP's own size and one caption, part by part."""
    network, vocabulary = clip.network, clip.tokenizer.get_vocab()
    scaled = image / 255 - np.array(MEAN)[:, None, None]
    pixels = torch.tensor(scaled / np.array(DEVIATION)[:, None, None], dtype=torch.float32)
    words = ["<|startoftext|>"]
    for word in caption.split():
        words += [*word[:-1], f"{word[-1]}</w>"]
    tokens = torch.tensor([[vocabulary[word] for word in [*words, "<|endoftext|>"]]])
    with torch.no_grad():
        seen = network.visual_projection(network.vision_model(pixels[None]).pooler_output)[0]
        hidden = network.text_model(tokens).last_hidden_state[0, -1]  # at the last token
        read = network.text_projection(hidden)
    cosine = (seen @ read / (seen.norm() * read.norm())).item()
    return 100 * max(cosine, 0)


def test_score_is_the_formulas(clip, images):
    expected = [by_hand(clip, *pair) for pair in zip(images, CAPTIONS, strict=True)]
    assert max(expected) - min(expected) > 0.1, "scores that are all alike would agree, too"
    found = clip_score(clip.embed_images(images), clip.embed_captions(CAPTIONS))
    assert found.value == pytest.approx(np.mean(expected), rel=1e-3, abs=1e-3)
    assert found.samples == 4 and found.interval[0] < found.value < found.interval[1]


def test_score_of_known_angles():
    """Cosines 1, 0.6, 0 and -1: the last is cut before the mean is taken, and lengths are free."""
    pictures = np.array([[2.0, 0], [0, 3], [1, 0], [1, 0]])
    captions = np.array([[5.0, 0], [0.8, 0.6], [0, 7], [-1, 0]])
    assert clip_score(pictures, captions, repeats=0).value == pytest.approx((100 + 60) / 4)


def test_features_depend_on_nothing_else_in_the_batch(clip, images):
    together = clip.embed_captions(CAPTIONS)
    for k, caption in enumerate(CAPTIONS):
        assert clip.embed_captions([caption])[0] == pytest.approx(together[k], abs=1e-5)
    assert clip.embed_images(images[:3]) == pytest.approx(clip.embed_images(images)[:3], abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_pictures_of_any_size_are_resized_by_clips_transform(clip, images):
    large = images.repeat(4, axis=2).repeat(4, axis=3)  # [4, 3, 128, 128]
    assert clip.embed_images(large).shape == (4, 8)
    flat = np.full((1, 3, 64, 64), 77, dtype=np.uint8)
    assert clip.embed_images(flat) == pytest.approx(
        clip.embed_images(flat[..., :32, :32]), abs=1e-5
    )


def test_long_captions_are_cut(clip):
    features = clip.embed_captions(["d" * 76 + " " + "x" * 50, "d" * 76 + " and more"])
    assert features[0] == pytest.approx(features[1], abs=1e-6)


def test_name_and_fingerprint_tell_weights_apart(clip, tiny_clip, tmp_path):
    assert clip.name == "CLIP tiny-clip" and len(clip.fingerprint) == 16
    shutil.copytree(tiny_clip, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["logit_scale"] = weights["logit_scale"] + 1
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    assert ClipNetwork(tmp_path / "other", device="cpu").fingerprint != clip.fingerprint


# Errors


def edit_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def take_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if k != "text_projection.weight"}
    save_file(kept, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda f: [file.unlink() for file in f.iterdir()], ""),
        (lambda f: edit_config(f, model_type="bert"), "of the kind bert"),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut short"), ""),
        (take_weights, "1 weights are missing, such as text_projection.weight"),
        (lambda f: [x.unlink() for x in f.glob("token*")], "the vocabulary has 2 words"),
    ],
    ids=["empty", "another network", "cut", "a weight", "no words"],
)
def test_a_folder_that_holds_no_clip_is_refused(tiny_clip, tmp_path, fault, reason):
    folder = tmp_path / "weights"
    shutil.copytree(tiny_clip, folder)
    fault(folder)
    with pytest.raises(ValueError, match=f"weights holds no whole CLIP.*{reason}"):
        ClipNetwork(folder, device="cpu")


@pytest.mark.parametrize("name", ["weights", "./a/b", "~/clip"])
def test_a_folder_that_is_not_there_is_not_looked_for_in_the_network(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder of CLIP's weights at .*config\.json"):
        ClipNetwork(name)


def test_a_name_on_the_hub_is_taken_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert clip_source("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    Path("openai/mine").mkdir(parents=True)
    assert clip_source("openai/mine") == str(Path("openai/mine"))


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 pictures and 2 captions"):
        clip_score(np.ones((3, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="one set has 4 features"):
        clip_score(np.ones((3, 4)), np.ones((3, 5)))
