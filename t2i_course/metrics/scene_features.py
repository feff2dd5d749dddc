"""Features of scenes, for FD-scenes: a small network that has learnt to read their attributes.

FD-scenes is the Frechet distance (`evaluation.frechet`) on these 64 features, as FID is on
Inception's 2,048. It is never called FID: its numbers compare with each other and with nothing
else. The features know what scenes are made of: background, colours, shapes, sizes, numbers and
places. Whatever they were not trained to tell, they may still miss.

    extractor = load_scene_features()
    features = extract_features(extractor, images)  # uint8 [N, 3, 64, 64] -> float32 [N, 64]
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.data import Batch
from t2i_course.metrics.networks import GRID, PictureNetwork, Setting, Task, load_network
from t2i_course.metrics.picture_features import extract_features
from t2i_course.scenes import drawing

NAME = "scene-features"
WIDTH = 64
MOST = 3  # objects in a scene
KINDS = {"color": tuple(drawing.COLORS), "shape": drawing.SHAPES, "size": tuple(drawing.SIZES)}
VALUES = tuple((kind, value) for kind, values in KINDS.items() for value in values)  # 16


class SceneFeatures(nn.Module):
    """A picture network, and linear layers that read the attributes from its features.

    A `picture_features.Extractor`; `config` holds the arguments of the constructor.
    """

    def __init__(self, width: int = WIDTH) -> None:
        """Build it, with random weights."""
        super().__init__()
        self.name, self.config, self.width, self.fingerprint = NAME, {"width": width}, width, ""
        self.picture = PictureNetwork(width, drawing.SIDE)
        self.background = nn.Linear(width, len(drawing.BACKGROUNDS))
        self.count = nn.Linear(width, MOST)
        self.numbers = nn.Linear(width, len(VALUES) * (MOST + 1))  # of objects of each value
        self.places = nn.Linear(width, (1 + len(drawing.COLORS)) * GRID**2)  # any, each colour

    def forward(self, images: Tensor) -> Tensor:
        """Turn uint8 [B, 3, 64, 64] into features [B, 64]."""
        return self.picture.read(images)

    def predict(self, features: Tensor) -> dict[str, Tensor]:
        """Read the attributes from features [B, 64].

        Returns:
            Logits: "background" [B, 4], "count" [B, 3] of one to three objects, "numbers"
            [B, 16, 4] of none to three objects of each colour, shape and size, "places" [B, 9, 16]
            of an object, and of one of each colour, in each cell of a grid of 4 x 4.
        """
        return {
            "background": self.background(features),
            "count": self.count(features),
            "numbers": self.numbers(features).unflatten(1, (len(VALUES), MOST + 1)),
            "places": self.places(features).unflatten(1, (1 + len(drawing.COLORS), GRID**2)),
        }

    def loss(self, images: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """Sum of the cross-entropies; images [B, 3, 64, 64] in [-1, 1], `read_attributes`' rows."""
        found = {k: v.float() for k, v in self.predict(self.picture(images)).items()}
        numbers = functional.cross_entropy(found["numbers"].flatten(0, 1),
                                           labels["numbers"].flatten())  # fmt: skip
        places = functional.binary_cross_entropy_with_logits(found["places"], labels["places"])
        single = sum(functional.cross_entropy(found[k], labels[k]) for k in ("background", "count"))
        return single + len(VALUES) * numbers + 16 * places


def read_attributes(folder: str | os.PathLike[str], split: str) -> dict[str, Tensor]:
    """Read the attributes of all scenes of a split, in the order of their image ids.

    Returns:
        "background" [N], "count" [N] (objects less one), "numbers" [N, 16] of objects of each
        value of `VALUES`, all int64; "places" [N, 9, 16], float32, 1 where a cell holds an object,
        and where it holds one of each colour.

    Raises:
        FileNotFoundError: the folder holds no scenes.
    """
    drawn = [scene for _, scene in sorted(drawing.read_instances(folder, split).items())]
    column = {value: index for index, (_, value) in enumerate(VALUES)}
    backgrounds, colors = list(drawing.BACKGROUNDS), list(drawing.COLORS)
    numbers = torch.zeros(len(drawn), len(VALUES), dtype=torch.int64)
    places = torch.zeros(len(drawn), 1 + len(colors), GRID**2)
    for row, scene in enumerate(drawn):
        for thing in scene.objects:
            for value in (thing.color, thing.shape, thing.size):
                numbers[row, column[value]] += 1
            x, y = (int(place * GRID / drawing.SIDE) for place in (thing.x, thing.y))
            places[row, [0, 1 + colors.index(thing.color)], GRID * y + x] = 1
    return {
        "background": torch.tensor([backgrounds.index(scene.background) for scene in drawn]),
        "count": numbers[:, : len(colors)].sum(dim=1) - 1,
        "numbers": numbers,
        "places": places,
    }


def attribute_accuracy(
    network: SceneFeatures, images: np.ndarray, labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """Share of pictures, uint8 [N, 3, 64, 64], with everything of a kind read right.

    Returns:
        Shares by name: background, count, color, shape, size, places.
    """
    features = torch.from_numpy(extract_features(network, images))  # [N, D]
    with torch.inference_mode():
        found = network.predict(features.to(network.background.weight.device))
    found = {name: logits.cpu() for name, logits in found.items()}
    numbers = found["numbers"].argmax(dim=2) == labels["numbers"]  # [N, 16]
    right = {kind: found[kind].argmax(dim=1) == labels[kind] for kind in ("background", "count")}
    for kind in KINDS:
        columns = [index for index, (of, _) in enumerate(VALUES) if of == kind]
        right[kind] = numbers[:, columns].all(dim=1)
    right["places"] = ((found["places"] > 0) == labels["places"].bool()).flatten(1).all(1)
    return {name: values.double().mean().item() for name, values in right.items()}


def prepare(setting: Setting) -> Task:
    """A new network and its training, for `networks.train_network`; of scenes of 64 pixels only."""
    if setting.train.size != drawing.SIDE:
        raise ValueError(f"{NAME} read pictures of {drawing.SIDE} pixels, not {setting.train.size}")
    network, device = SceneFeatures().to(setting.device), setting.device
    labels = {k: v.to(device) for k, v in read_attributes(setting.folder, "train").items()}

    def loss(batch: Batch) -> Tensor:
        rows = batch.image_rows.to(device)
        return network.loss(batch.images.to(device), {k: v[rows] for k, v in labels.items()})

    def measure() -> dict[str, float]:
        known = read_attributes(setting.folder, "val")
        shares = attribute_accuracy(network, setting.val.images, known)
        return {f"{name} read right, val": share for name, share in shares.items()}

    return Task(network, loss, measure, batch_size=128)


def load_scene_features(
    name: str | os.PathLike[str] = NAME, device: torch.device | str | None = None
) -> SceneFeatures:
    """Load the trained network, in eval mode; errors as `checkpoints.load_generator`."""
    network, card = load_network(name, {NAME: SceneFeatures}, device)
    network.name = f"scene-features {network.fingerprint[:8]}, {network.width} features at 64 px"
    return network
