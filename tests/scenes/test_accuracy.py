"""Scene accuracy: what it counts, on real scenes, real captions and the real oracle."""

from __future__ import annotations

import random

import numpy as np
import pytest

from t2i_course.data import pack
from t2i_course.estimates import wilson_interval
from t2i_course.scenes import drawing
from t2i_course.scenes.accuracy import (
    KINDS,
    accuracy,
    check_scenes,
    derangement,
    judge,
    read_scenes,
)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[drawing.Scene], list[dict]]:
    """300 pictures [300, 3, 64, 64], their true scenes, and the facts of a caption of each."""
    rng = random.Random(0)
    true = [drawing.sample_scene(rng) for _ in range(300)]
    images = np.stack([np.moveaxis(np.asarray(drawing.render(s)), -1, 0) for s in true])
    return images, true, [drawing.describe(s, rng)[1] for s in true]


@pytest.fixture(scope="module")
def found(drawn) -> list[drawing.Scene]:
    return read_scenes(drawn[0])


def test_real_pictures_show_what_their_captions_say(drawn, found):
    shares = accuracy(check_scenes(found, drawn[2]), drawn[2])
    assert shares["all"].value >= 0.98
    assert all(share.value >= 0.98 for share in shares.values())
    assert set(KINDS) < set(shares)


def test_shuffled_captions_are_right_by_accident_only(drawn, found):
    images, _, facts = drawn
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
    assert accuracy(verdicts[None], [facts])["all"].value == 0


def test_gray_pictures_have_nothing_right_but_gray_backgrounds(drawn):
    facts = drawn[2]
    verdicts = judge(np.full((len(facts), 3, 64, 64), 128, dtype=np.uint8), facts)
    shares = accuracy(verdicts, facts)
    stated = [f["background"] for f in facts if f["background"] is not None]
    assert shares["background"].value == pytest.approx(stated.count("gray") / len(stated))
    assert shares["all"].value == shares["color"].value == shares["count"].value == 0


def test_parts_add_up_to_the_whole_and_intervals_are_wilsons(drawn, found):
    images, true, facts = drawn
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


def test_floats_count_as_the_bytes_they_round_to(drawn):
    images, _, facts = drawn
    floats = images[:20].astype(np.float32) / 127.5 - 1
    assert (judge(floats, facts[:20]) == judge(images[:20], facts[:20])).all()


def test_captions_of_a_split_are_true_of_its_pictures_and_kinds_nobody_asks_for_are_left_out(
    small_scenes, tmp_path
):
    packed = pack(small_scenes, "val", 64, cache=tmp_path, progress=False)
    facts = drawing.read_facts(small_scenes, "val")
    first = [facts[image][0] for image in packed.image_ids.tolist()]
    assert accuracy(judge(packed.images, first), first)["all"].value >= 0.95
    single = [{"background": None, "objects": [{"color": "red"}], "relations": []}]
    assert set(accuracy(judge(packed.images[:1], single), single)) == {
        "all", "one object", "color", "count",
    }  # fmt: skip


@pytest.mark.parametrize(
    "groups", [range(2), range(7), range(500), [0, 0, 1, 1], [5, 5, 5, 1, 2, 3], list("aabbccdde")]
)
def test_no_picture_meets_a_caption_of_its_own_group(groups):
    groups = list(groups)
    for seed in range(20):
        others = derangement(groups, seed)
        assert sorted(others) == list(range(len(groups)))
        assert all(groups[i] != groups[k] for i, k in enumerate(others))


def test_derangement_follows_its_seed_and_reaches_everyone():
    assert (derangement(range(50), 3) == derangement(range(50), 3)).all()
    assert (derangement(range(50), 3) != derangement(range(50), 4)).any()
    reached = {int(derangement(range(5), seed)[0]) for seed in range(60)}
    assert reached == {1, 2, 3, 4}


@pytest.mark.parametrize("groups", [[], [1], [1, 1], [1, 1, 1, 2, 3]])
def test_derangement_that_cannot_be_is_refused(groups):
    with pytest.raises(ValueError, match="cannot be given captions of others"):
        derangement(groups)


def test_pictures_and_captions_that_do_not_fit_are_refused(drawn):
    images, _, facts = drawn
    with pytest.raises(ValueError, match="2 captions' facts for 3 pictures"):
        judge(images[:3], facts[:2])
    with pytest.raises(ValueError, match="at least one"):
        judge(images[:0], [])
    with pytest.raises(ValueError, match="64 x 64 pixels are needed"):
        judge(np.zeros((2, 3, 32, 32), np.uint8), facts[:2])
    with pytest.raises(ValueError, match="subsets for 2 pictures"):
        accuracy(np.zeros((2, 7), np.int8), facts[:2], ["val_seen"])
