"""Faults that are made on purpose are the faults that they are called."""

import numpy as np
import pytest

from t2i_course.metrics import distortions
from t2i_course.metrics.distortions import FAULTS
from t2i_course.scenes import accuracy


@pytest.fixture(scope="module")
def perfect():
    return distortions.draw_perfect(30)


def right(perfect, images, rows):
    verdicts = accuracy.check_images(images, [perfect.facts[row] for row in rows])
    return (verdicts != 0).all(axis=1)  # [N]


def test_the_perfect_generator_shows_every_caption_and_repeats(perfect):
    assert right(perfect, perfect.images, range(30)).all()
    again = distortions.draw_perfect(30)
    assert np.array_equal(again.images, perfect.images) and again.captions == perfect.captions
    assert not np.array_equal(distortions.draw_perfect(30, seed=1).images, perfect.images)


@pytest.mark.parametrize("name", FAULTS)
def test_strength_0_spoils_nothing_and_more_spoils_more(perfect, name):
    images, rows = FAULTS[name].spoil(perfect, 0)
    assert np.array_equal(images, perfect.images) and rows.tolist() == list(range(30))
    changed = []
    for strength in FAULTS[name].strengths:
        images, rows = FAULTS[name].spoil(perfect, strength)
        assert images.shape == perfect.images.shape and images.dtype == np.uint8
        difference = np.abs(images.astype(float) - perfect.images[rows]).mean()
        changed.append((difference, np.mean(rows != np.arange(30))))
    assert changed == sorted(changed) and changed[0] < changed[-1]


def test_same_answers_are_right_and_depend_on_the_caption_alone(perfect):
    images, rows = FAULTS["same answers"].spoil(perfect, 1)
    assert right(perfect, images, rows).all()
    stated = perfect.facts[3]
    assert distortions.same_answer(stated) == distortions.same_answer(dict(stated))
    with pytest.raises(ValueError, match="no layout"):
        distortions.same_answer({"background": None, "objects": [{}, {}],
                                 "relations": [(0, "left of", 1), (1, "left of", 0)]})  # fmt: skip


def test_missing_shapes_and_captions_of_others_are_wrong(perfect):
    images, rows = FAULTS["objects missing"].spoil(perfect, 1)
    assert not right(perfect, images, rows).any()
    images, rows = FAULTS["captions shuffled"].spoil(perfect, 1)
    assert sorted(rows) == list(range(30)) and not (rows == np.arange(30)).any()
    assert right(perfect, images, rows).mean() < 0.2
    lost = distortions.without_shapes(perfect)
    circles = [any(o.shape in distortions.LOST for o in s.objects) for s in perfect.scenes]
    moved = (lost != perfect.images).any(axis=(1, 2, 3))
    assert moved.tolist() == circles


def test_repeated_pictures_are_few(perfect):
    images, rows = FAULTS["pictures repeated"].spoil(perfect, 4)
    assert len(np.unique(images, axis=0)) == len(set(rows.tolist())) == 8
