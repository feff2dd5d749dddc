"""Held-out captions and real pictures: which ones an evaluation gets, on small real data sets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from t2i_course.metrics.held_out import choose_captions, open_held_out, other_real, reference
from t2i_course.scenes import drawing
from t2i_course.scenes.oracle import check_facts, read_picture


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path_factory.getbasetemp()))  # the cache is shared


def test_facts_and_subsets_belong_to_the_captions_beside_them(small_scenes):
    held = open_held_out(small_scenes)
    entries = drawing.read_captions(small_scenes, "val")
    assert [e["caption"] for e in entries] == held.packed.all_captions
    assert [e["facts"] for e in entries] == held.facts
    assert held.subsets == ["val_seen", "val_unseen"] * 20
    assert (held.data, len(held.image_rows)) == ("scenes", 40)


def test_captions_lead_back_to_their_images(small_scenes):
    held = open_held_out(small_scenes)
    rows = np.arange(len(held.packed.all_captions))
    images = held.images_of(rows)
    assert [held.packed.captions[i][k % 5] for k, i in enumerate(images)] == held.captions(rows)


def test_splits_are_halves_of_val(small_scenes):
    halves = [open_held_out(small_scenes, split) for split in ("val_seen", "val_unseen")]
    assert halves[0].image_rows.tolist() == list(range(0, 40, 2))
    assert halves[1].image_rows.tolist() == list(range(1, 40, 2))
    for held in halves:
        rows = choose_captions(held, 100)
        assert set(held.images_of(rows)) == set(held.image_rows)


def test_every_image_gives_a_caption_before_any_gives_a_second(small_scenes):
    held = open_held_out(small_scenes)
    for samples in (2, 17, 40, 63, 200):
        rows = choose_captions(held, samples)
        assert len(set(rows.tolist())) == samples
        times = Counter(held.images_of(rows).tolist())
        assert max(times.values()) - min(times.values()) <= (samples > 40 or samples == 40)
        assert len(times) == min(samples, 40)
        assert (rows == choose_captions(held, 200)[:samples]).all()
    assert sorted(choose_captions(held, 40)) == held.packed.caption_starts[:-1].tolist()
    assert (choose_captions(held, 40, seed=1) != choose_captions(held, 40)).any()


@pytest.mark.parametrize("samples", [-1, 0, 1, 201])
def test_too_many_or_too_few_captions_are_refused(small_scenes, samples):
    with pytest.raises(ValueError, match="has 200 captions in val"):
        choose_captions(open_held_out(small_scenes), samples)


@pytest.mark.parametrize("split", ["val", "val_seen", "val_unseen"])
def test_other_real_scenes_are_new_ones_of_the_splits_kind(small_scenes, split):
    held = open_held_out(small_scenes, split)
    key, images, words = other_real(held, 30)
    assert (images == other_real(held, 30)[1]).all()
    assert not (images[:, None] == held.packed.images).all(axis=(2, 3, 4)).any()
    unseen = []
    for pixels in np.moveaxis(images, 1, -1):
        things = read_picture(pixels).objects
        unseen.append(any((t.shape, t.color) in drawing.UNSEEN_PAIRS for t in things))
    expected = {"val": [False, True] * 15, "val_seen": [False] * 30, "val_unseen": [True] * 30}
    assert unseen == expected[split]
    assert split in key and split in words


def test_photos_have_val_alone_and_no_facts(photos):
    held = open_held_out(photos, size=32)
    assert (held.facts, held.subsets, held.data) == (None, None, "photos")
    assert held.packed.size == 32
    with pytest.raises(ValueError, match="has no split val_seen, only scenes have"):
        open_held_out(photos, "val_seen")


def test_other_real_photos_are_training_pictures_each_once(photos):
    held = open_held_out(photos, size=32)
    key, images, words = other_real(held, 30)
    assert images.shape == (30, 3, 32, 32)
    assert len(np.unique(images.reshape(30, -1), axis=0)) == 30
    assert len(other_real(held, 500)[1]) == 60  # all there are
    assert words in key and words == "30 pictures of train, seed 1"


def test_no_photo_is_measured_against_itself(photos):
    """With a wide extractor the training pictures are the reference."""
    held = open_held_out(photos, size=32)
    for more_than in (10, 50):
        key, images, split = reference(held, more_than)
        other_key, others, _ = other_real(held, 30, split)
        assert not (others[:, None] == images).all(axis=(2, 3, 4)).any()
        assert key.partition(",")[0] != other_key.partition(",")[0]


def test_reference_is_the_split_unless_it_has_too_few_pictures(small_scenes):
    held = open_held_out(small_scenes, "val_seen")
    key, images, split = reference(held, 19)
    assert (images == held.packed.images[::2]).all() and split == "val_seen"
    other_key, images, split = reference(held, 20)
    assert (len(images), split) == (60, "train")
    assert key != other_key


def test_unknown_splits_and_scenes_of_another_size_are_refused(small_scenes, tmp_path):
    with pytest.raises(ValueError, match="unknown split 'test'"):
        open_held_out(small_scenes, "test")
    with pytest.raises(ValueError, match="16 x 16 pixels cannot be judged as scenes"):
        open_held_out(small_scenes, size=16)
    with pytest.raises(FileNotFoundError, match="no data folder"):
        open_held_out(tmp_path / "nowhere")


def test_what_real_pictures_show_is_what_their_facts_state(small_scenes):
    held = open_held_out(small_scenes)
    rows = choose_captions(held, 20)
    for row, image in zip(rows, held.images_of(rows), strict=True):
        scene = read_picture(np.moveaxis(held.packed.images[image], 0, -1))
        assert all(check_facts(held.facts[row], scene).values())
