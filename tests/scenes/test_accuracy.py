"""Scene accuracy: what it counts, on real scenes, real captions and the real oracle."""

from __future__ import annotations

import random

import numpy as np
import pytest

from t2i_course.evaluation import wilson_interval
from t2i_course.scenes import drawing, wording
from t2i_course.scenes.accuracy import (
    KINDS,
    accuracy,
    check_images,
    check_scenes,
    derangement,
    names_all,
    read_scenes,
    scenes_like,
    variety,
)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[drawing.Scene], list[dict]]:
    """300 pictures [300, 3, 64, 64], their true scenes, and the facts of a caption of each."""
    rng = random.Random(0)
    true = [drawing.sample_scene(rng) for _ in range(300)]
    images = drawing.render_all(true)
    return images, true, [wording.describe(s, rng)[1] for s in true]


@pytest.fixture(scope="module")
def found(drawn) -> list[drawing.Scene]:
    return read_scenes(drawn[0])


def test_real_pictures_show_what_their_captions_say_and_others_by_accident(drawn, found):
    facts = drawn[2]
    shares = accuracy(check_scenes(found, facts), facts)
    assert all(share.value >= 0.98 for share in shares.values())
    assert set(KINDS) < set(shares)
    others = [facts[i] for i in derangement(range(len(facts)))]
    shares = accuracy(check_scenes(found, others), others)
    assert shares["all"].value < 0.05
    assert 0.15 < shares["background"].value < 0.35  # one of four
    assert shares["count"].value > shares["all"].value


def test_a_wrong_colour_costs_the_colour_and_the_whole_and_nothing_else():
    one = drawing.SceneObject("circle", "red", "large", 30, 30, 25, (222, 30, 34))
    scene = drawing.Scene("white", (one,))
    facts = {"background": "white", "objects": [{"color": "blue", "shape": "circle"}]}
    facts["relations"] = []
    (verdicts,) = check_scenes([scene], [facts])
    expected = {"color": 0, "shape": 1, "count": 1, "background": 1}
    assert dict(zip(KINDS, verdicts, strict=True)) == {kind: -1 for kind in KINDS} | expected
    shares = accuracy(verdicts[None], [facts])
    assert shares["all"].value == 0 and set(shares) == {"all", "one object", *expected}


def test_parts_add_up_to_the_whole_and_intervals_are_wilsons(drawn, found):
    facts = drawn[2]
    others = [facts[i] if k % 2 else facts[k] for k, i in enumerate(derangement(range(300)))]
    subsets = ["val_unseen" if k % 3 else "val_seen" for k in range(300)]
    shares = accuracy(check_scenes(found, others), others, subsets)
    for parts in (("one object", "two objects", "three objects"), ("seen pairs", "unseen pairs")):
        assert sum(shares[part].samples for part in parts) == shares["all"].samples == 300
        right = sum(shares[part].value * shares[part].samples for part in parts)
        assert right == pytest.approx(300 * shares["all"].value)
    for share in shares.values():
        assert share.interval == wilson_interval(share.value, share.samples)
    assert shares["seen pairs"].samples == 100
    assert shares["relation"].samples == sum(bool(f["relations"]) for f in others)
    assert shares["corner"].samples == sum("corner" in f["objects"][0] for f in others)


@pytest.mark.parametrize("groups", [range(2), range(500), [0, 0, 1, 1], list("aabbccdde")])
def test_no_picture_meets_a_caption_of_its_own_group(groups):
    for seed in range(20):
        others = derangement(groups, seed)
        assert sorted(others) == list(range(len(groups)))
        assert all(groups[i] != groups[k] for i, k in enumerate(others))


def test_derangement_reaches_everyone():
    reached = {int(derangement(range(5), seed)[0]) for seed in range(60)}
    assert reached == {1, 2, 3, 4}


@pytest.mark.parametrize("groups", [[], [1], [1, 1, 1, 2, 3]])
def test_derangement_that_cannot_be_is_refused(groups):
    with pytest.raises(ValueError, match="cannot be given captions of others"):
        derangement(groups)


def test_pictures_and_captions_that_do_not_fit_are_refused(drawn):
    images, _, facts = drawn
    with pytest.raises(ValueError, match="2 captions' facts for 3 pictures"):
        check_images(images[:3], facts[:2])
    with pytest.raises(ValueError, match="at least one"):
        check_images(images[:0], [])
    with pytest.raises(ValueError, match="64 x 64 pixels are needed"):
        check_images(np.zeros((2, 3, 32, 32), np.uint8), facts[:2])


# Variety within a caption

RED = {"background": "sky", "relations": [],
       "objects": [{"shape": "star", "color": "red", "size": "large"}]}  # fmt: skip


def test_variety_is_the_standard_deviation_within_a_caption():
    def scene(x, y, diameter, rgb, color="red"):
        thing = drawing.SceneObject("star", color, "large", x, y, diameter, rgb)
        return drawing.Scene("sky", (thing,))

    captions = [
        [scene(20, 30, 22, (200, 30, 30)), scene(26, 30, 26, (206, 30, 30)),
         scene(60, 60, 28, (0, 0, 200), "blue")],  # another colour than stated: it does not count
        [scene(40, 40, 24, (200, 30, 30)), scene(40, 40, 24, (200, 30, 30))],
        [scene(1, 1, 22, (200, 30, 30))],  # a single one says nothing
    ]  # fmt: skip
    found = variety(captions, [RED] * 3, repeats=0)
    assert found["place, px"].value == pytest.approx(np.sqrt(18 / 2 / 2))
    assert found["diameter, px"].value == pytest.approx(np.sqrt(8 / 2))
    assert found["shade, levels"].value == pytest.approx(np.sqrt(18 / 3 / 2))
    assert {e.samples for e in found.values()} == {2}
    assert variety(captions[1:], [RED] * 2) == {}


def test_scenes_like_a_caption_show_it_and_vary_as_the_data_set_does():
    scenes = scenes_like(RED, 400)
    assert (check_scenes(scenes, [RED] * 400) != 0).all()
    true = variety([scenes[:200], scenes[200:]], [RED] * 2, repeats=0)
    assert true["diameter, px"].value == pytest.approx(2, abs=0.15)  # uniform, 22 to 28


def test_only_a_caption_that_leaves_place_diameter_and_shade_open_names_all():
    assert names_all(RED) and not names_all(RED | {"background": None})
    (thing,) = RED["objects"]
    assert not names_all(RED | {"objects": [thing, thing]})
    assert not names_all(RED | {"objects": [thing | {"corner": "upper left"}]})
    assert not names_all(RED | {"objects": [{"shape": "star", "color": "red"}]})
