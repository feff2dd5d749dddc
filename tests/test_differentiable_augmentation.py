import random

import numpy as np
import pytest
import torch

from t2i_course import data
from t2i_course.differentiable_augmentation import AUGMENTATIONS, augment
from t2i_course.scenes import drawing
from t2i_course.scenes.oracle import read_picture


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_the_shape_pass_the_gradient_and_differ_by_picture(name):
    torch.manual_seed(0)
    images = torch.rand(1, 3, 64, 64).expand(16, -1, -1, -1).clone().requires_grad_()
    changed = augment(images, [name])
    assert changed.shape == images.shape
    assert not torch.allclose(changed[0], changed[1]) or not torch.allclose(changed[0], changed[2])
    changed.sum().backward()
    assert images.grad.abs().sum() > 0


def test_no_operation_leaves_pictures_as_they_are():
    images = torch.rand(2, 3, 8, 8)
    assert augment(images, ()) is images


def test_translated_scenes_keep_their_colours_shapes_and_background():
    rng, kept = random.Random(5), 0
    torch.manual_seed(0)
    drawn = [drawing.sample_scene(rng, False) for _ in range(60)]
    images = np.stack([np.asarray(drawing.render(scene)) for scene in drawn]).transpose(0, 3, 1, 2)
    moved = data.to_uint8(augment(data.to_float(torch.from_numpy(images.copy())), ["translation"]))
    for scene, picture in zip(drawn, moved.numpy().transpose(0, 2, 3, 1), strict=True):
        inside = all(14 < v < 50 for thing in scene.objects for v in (thing.x, thing.y))
        if not inside or any(thing.size == "large" for thing in scene.objects):
            continue  # a shape at the border may be cut off
        read = read_picture(picture)
        said = [sorted((o.color, o.shape) for o in s.objects) for s in (scene, read)]
        assert said[0] == said[1] and read.background == scene.background
        kept += 1
    assert kept >= 5
