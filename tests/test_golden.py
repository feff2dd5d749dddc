"""Every shipped network and encoder gives the outputs that `golden.safetensors` holds.

Whoever moves or shortens code finds here whether it still computes the same. After weights were
trained anew, write the outputs anew and commit them with the weights:

    python tests/test_golden.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course import checkpoints
from t2i_course.gan import Discriminator
from t2i_course.generation import GENERATORS
from t2i_course.latent_space import SharedSpace
from t2i_course.metrics.scene_features import SceneFeatures
from t2i_course.metrics.sound_features import SoundFeatures
from t2i_course.multitask import Captioner
from t2i_course.text_encoder import TextEncoder
from t2i_course.video_to_audio import MELS, VideoToAudio

DATA = Path(__file__).resolve().parents[1] / "data"
GOLDEN = Path(__file__).with_name("golden.safetensors")
TOLERANCE = 1e-4
MOST = 1500  # values of an output that are kept, evenly spaced
CAPTIONS = [
    "a large red circle on a white background",
    "two small blue stars to the left of a green heart",
    "a cross above three gray squares",
]
BUILDERS = GENERATORS | {
    "discriminator": Discriminator,
    "scene-features": SceneFeatures,
    "caption-matcher": SharedSpace,
    "shared-space": SharedSpace,
    "captioner": Captioner,
    "video-to-audio": VideoToAudio,
    "sound-features": SoundFeatures,
}


def shipped(folder: str, marker: str) -> list[str]:
    """Names of what the repository ships; what a reader trains is called `my-...`."""
    names = [path.name.removesuffix(".safetensors") for path in (DATA / folder).glob(marker)]
    return sorted(name for name in names if not name.startswith("my-"))


NETWORKS, ENCODERS = shipped("checkpoints", "*.safetensors"), shipped("encoders", "*")


def pictures(side: int, seed: int) -> Tensor:
    """Blurred noise: uint8 [3, 3, side, side]."""
    coarse = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (255 * functional.interpolate(coarse, side, mode="bilinear")).to(torch.uint8)


def run_network(network: nn.Module, encoder: str) -> dict[str, Tensor]:
    """What a network makes of the captions, of noise and of pictures, by name."""
    generator = torch.Generator().manual_seed(1)
    images = pictures(getattr(network, "image_size", 64), seed=2)
    scaled = images.float() / 127.5 - 1
    if isinstance(network, VideoToAudio):
        frames = torch.stack([scaled.roll(4 * k, dims=2) for k in range(8)], dim=1)  # [3, 8, ...]
        return {"spectrogram": network(frames, torch.arange(8).expand(3, -1) / 20, 40)}
    if isinstance(network, SoundFeatures):
        return {"features": network(torch.rand(3, MELS, 100, generator=generator))}
    if isinstance(network, SceneFeatures):
        features = network(images)
        return {"features": features} | network.predict(features)
    if isinstance(network, Captioner):
        size = (len(images), 8)
        words = torch.randint(network.config["vocabulary"], size, generator=generator)
        return {"logits": network(network.see(scaled), words)}
    text = TextEncoder(DATA / "encoders" / encoder, device="cpu")(CAPTIONS)
    if isinstance(network, SharedSpace):
        embedded = network.embed_images(images.numpy()), network.embed_text(text.sentence)
        return dict(zip(("images", "text"), map(torch.from_numpy, embedded), strict=True))
    if isinstance(network, Discriminator):
        return {"logits": network(scaled, text)}
    noise = torch.randn(len(text), network.noise_dim, generator=generator)
    return {"images": network(text, noise)}


def outputs(kind: str, name: str) -> dict[str, Tensor]:
    """At most `MOST` values of each output of a network or an encoder, by "kind/name/output"."""
    with torch.inference_mode():
        if kind == "encoders":
            features = TextEncoder(DATA / kind / name, device="cpu")(CAPTIONS)
            words = features.words * features.mask[:, :, None]  # padding is anything
            found = {"sentence": features.sentence, "words": words}
        else:
            network, card = checkpoints.load_generator(DATA / kind / name, "cpu", BUILDERS)
            found = run_network(network, card["encoder"]["name"])
    values = {output: value.flatten().float() for output, value in found.items()}
    return {
        f"{kind}/{name}/{output}": value[:: math.ceil(len(value) / MOST)].clone()
        for output, value in values.items()
    }


def compare(found: dict[str, Tensor], stored: dict[str, Tensor]) -> list[str]:
    """Names of the outputs that are not the stored ones."""
    return sorted(
        name
        for name, value in found.items()
        if name not in stored
        or stored[name].shape != value.shape
        or not torch.allclose(value, stored[name], rtol=TOLERANCE, atol=TOLERANCE)
    )


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return safetensors.torch.load_file(GOLDEN)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_gives_the_stored_outputs(name, stored):
    assert compare(outputs("checkpoints", name), stored) == []


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_gives_the_stored_outputs(name, stored):
    assert compare(outputs("encoders", name), stored) == []


def test_nothing_is_stored_of_what_is_not_shipped(stored):
    there = {f"checkpoints/{name}" for name in NETWORKS} | {f"encoders/{n}" for n in ENCODERS}
    assert {name.rpartition("/")[0] for name in stored} == there
    assert GOLDEN.stat().st_size < 200_000


def test_changed_weights_and_missing_outputs_are_noticed(stored):
    card = json.loads((DATA / "checkpoints" / "scene-features.json").read_text("utf-8"))
    assert card["model"] == "scene-features"
    found = outputs("checkpoints", "scene-features")
    name = "checkpoints/scene-features/features"
    changed = found[name].clone()
    changed[3] += 0.001 + 0.001 * changed[3].abs()
    assert compare({name: changed}, stored) == [name]
    assert compare({"checkpoints/other/features": changed}, stored) == [
        "checkpoints/other/features"
    ]
    assert compare({name: changed[1:]}, stored) == [name]


if __name__ == "__main__":
    everything = [("checkpoints", name) for name in NETWORKS] + [("encoders", n) for n in ENCODERS]
    golden = {key: value for kind, name in everything for key, value in outputs(kind, name).items()}
    safetensors.torch.save_file(golden, GOLDEN)
    print(f"{len(golden)} outputs of {len(everything)} networks and encoders: {GOLDEN.name}")
