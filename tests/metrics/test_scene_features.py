import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from t2i_course import data
from t2i_course.metrics import scene_features
from t2i_course.metrics.networks import train_network
from t2i_course.metrics.picture_features import extract_features
from t2i_course.metrics.scene_features import (
    VALUES,
    SceneFeatures,
    attribute_accuracy,
    load_scene_features,
    prepare,
    read_attributes,
)
from t2i_course.scenes import drawing

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scene-features"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("scene_features") / "scenes"
    return drawing.make_scenes(place, train=60, val=40, test=4, progress=False)


def test_attributes_are_those_of_the_drawn_scene(folder):
    found = read_attributes(folder, "train")
    rng = random.Random("scenes 1 0 train 7")  # as make_scenes draws picture 7
    scene = drawing.sample_scene(rng, False)
    assert list(drawing.BACKGROUNDS)[found["background"][7]] == scene.background
    assert found["count"][7] == len(scene.objects) - 1
    for index, (kind, value) in enumerate(VALUES):
        number = sum(getattr(thing, kind) == value for thing in scene.objects)
        assert found["numbers"][7, index] == number
    for thing in scene.objects:
        cell = 4 * int(thing.y / 16) + int(thing.x / 16)
        assert found["places"][7, 0, cell] == 1
        assert found["places"][7, 1 + list(drawing.COLORS).index(thing.color), cell] == 1
    assert found["places"][7].sum() <= 2 * len(scene.objects)


def test_attributes_are_in_the_order_of_packed_pictures(folder):
    packed = data.pack(folder, "val", 64, progress=False)
    found = read_attributes(folder, "val")
    images = json.loads((folder / "annotations" / "instances_val.json").read_text())["images"]
    backgrounds = {image["id"]: image["background"] for image in images}
    assert [backgrounds[i] for i in packed.image_ids.tolist()] == [
        list(drawing.BACKGROUNDS)[b] for b in found["background"]
    ]


def test_a_few_steps_teach_the_background(folder, tmp_path):
    file = train_network(
        prepare, str(folder), tmp_path / "few", steps=40, batch_size=32, device="cpu",
        command="test", progress=False,
    )  # fmt: skip
    network = load_scene_features(tmp_path / "few", "cpu")
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["sha256"][:16] == network.fingerprint and network.fingerprint[:8] in network.name
    val = data.pack(folder, "val", 64, progress=False)
    shares = attribute_accuracy(network, val.images, read_attributes(folder, "val"))
    assert set(shares) == {"background", "count", "color", "shape", "size", "places"}
    assert shares["background"] > 0.6  # chance is a quarter
    assert shares["background"] == pytest.approx(
        card["metrics"]["background read right, val"], abs=1e-4
    )
    features = extract_features(network, val.images)
    assert features.shape == (40, 64) and features.dtype == np.float32


def test_accuracy_is_one_where_everything_is_right_and_zero_for_the_opposite(folder):
    labels = read_attributes(folder, "val")

    class Perfect(SceneFeatures):
        """Hand the rows on as features, and look the answers up."""

        def forward(self, images):
            return images[:, 0, 0, 0].float()[:, None]

        def predict(self, rows):
            rows = rows[:, 0].long()
            one_hot = torch.nn.functional.one_hot
            return {
                "background": one_hot(labels["background"][rows], 4).float(),
                "count": one_hot(labels["count"][rows], 3).float(),
                "numbers": one_hot(labels["numbers"][rows], 4).float(),
                "places": labels["places"][rows] - 0.5,
            }

    images = np.zeros((40, 3, 64, 64), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(40)
    assert set(attribute_accuracy(Perfect(), images, labels).values()) == {1.0}
    wrong = labels | {"background": (labels["background"] + 1) % 4, "places": 1 - labels["places"]}
    shares = attribute_accuracy(Perfect(), images, wrong)
    assert shares["background"] == shares["places"] == 0 and shares["color"] == 1


def test_shipped_network_reads_new_scenes():
    network = load_scene_features(SHIPPED, "cpu")
    rng = random.Random(123)
    drawn = [drawing.sample_scene(rng, False) for _ in range(64)]
    images = drawing.render_all(drawn)
    with torch.inference_mode():
        found = network.predict(network(torch.from_numpy(images.copy())))
    count = torch.tensor([len(scene.objects) - 1 for scene in drawn])
    assert (found["count"].argmax(1) == count).float().mean() > 0.95
    assert scene_features.NAME in network.name
