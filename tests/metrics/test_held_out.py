"""What an evaluation compares: captions, real pictures and drawn ones, on small real data sets."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course.data import to_uint8
from t2i_course.generation import sample, write_samples
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.metrics.held_out import (
    choose_captions,
    draw_captions,
    draw_pictures,
    draw_varied,
    match_captions,
    open_held_out,
    other_real,
    read_drawn,
    reference,
)
from t2i_course.scenes import drawing
from t2i_course.scenes.oracle import read_picture
from t2i_course.text_encoder import TextEncoder


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path_factory.getbasetemp()))  # the cache is shared


def test_facts_and_subsets_belong_to_the_captions_beside_them(small_scenes):
    held = open_held_out(small_scenes)
    entries = drawing.read_captions(small_scenes, "val")
    assert [e["caption"] for e in entries] == held.packed.all_captions
    assert [e["facts"] for e in entries] == held.facts
    assert held.subsets == ["val_seen", "val_unseen"] * 20
    assert (held.data, len(held.packed)) == ("scenes", 40)
    rows = np.arange(200)
    assert [held.packed.captions[k // 5][k % 5] for k in rows] == held.captions(rows)
    assert held.images_of(rows).tolist() == [k // 5 for k in rows]


def test_the_test_split_holds_other_scenes_of_the_same_kind(small_scenes, photos):
    held, val = open_held_out(small_scenes, "test"), open_held_out(small_scenes)
    assert (held.split, held.subsets[:2]) == ("test", ["test_seen", "test_unseen"])
    assert not (held.packed.images[:, None] == val.packed.images).all(axis=(2, 3, 4)).any()
    entries = drawing.read_captions(small_scenes, "test")
    assert [e["facts"] for e in entries] == held.facts
    assert "kind of test" in other_real(held, 4)[2]
    assert open_held_out(photos, "test").facts is None
    shutil.rmtree(photos / "test")
    with pytest.raises(ValueError, match="has no split test"):
        open_held_out(photos, "test")


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


@pytest.mark.parametrize("samples", [1, 201])
def test_too_many_or_too_few_captions_are_refused(small_scenes, samples):
    with pytest.raises(ValueError, match="has 200 captions in val"):
        choose_captions(open_held_out(small_scenes), samples)


def test_other_real_scenes_are_new_ones_half_of_them_with_unseen_pairs(small_scenes):
    held = open_held_out(small_scenes)
    key, images, words = other_real(held, 30)
    assert (images == other_real(held, 30)[1]).all()
    assert not (images[:, None] == held.packed.images).all(axis=(2, 3, 4)).any()
    things = [read_picture(pixels).objects for pixels in np.moveaxis(images, 1, -1)]
    unseen = [any((t.shape, t.color) in drawing.UNSEEN_PAIRS for t in some) for some in things]
    assert unseen == [False, True] * 15
    assert "val" in key and "val" in words


def test_photos_have_no_facts_and_other_real_ones_are_training_pictures_each_once(photos):
    held = open_held_out(photos, size=32)
    assert (held.facts, held.subsets, held.data) == (None, None, "photos")
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
    held = open_held_out(small_scenes)
    key, images, split = reference(held, 39)
    assert (images == held.packed.images).all() and split == "val"
    other_key, images, split = reference(held, 40)
    assert (len(images), split) == (60, "train")
    assert key != other_key


def test_unknown_splits_and_scenes_of_another_size_are_refused(small_scenes, tmp_path):
    with pytest.raises(ValueError, match="unknown split 'train'"):
        open_held_out(small_scenes, "train")
    with pytest.raises(ValueError, match="16 x 16 pixels cannot be measured as scenes"):
        open_held_out(small_scenes, size=16)
    with pytest.raises(FileNotFoundError, match="no data folder"):
        open_held_out(tmp_path / "nowhere")


# Drawn pictures


@pytest.fixture(scope="module")
def encoder(tiny_bert) -> TextEncoder:
    return TextEncoder(tiny_bert)


def small_generator(noise_dim: int = 3, image_size: int = 16) -> ResidualDecoder:
    torch.manual_seed(0)
    return ResidualDecoder(32, noise_dim, image_size, width=16).eval()


@pytest.fixture
def held(small_scenes):
    return open_held_out(small_scenes)


@pytest.fixture
def drawn(held, encoder, tmp_path) -> Path:
    """A folder as `generate --output-dir --count 2` writes it, of six captions of val."""
    prompts = held.captions(choose_captions(held, 6))
    batches = sample(small_generator(), encoder, prompts, 2, seed=4, progress=False)
    write_samples(tmp_path / "stars", batches, prompts, 2, 4, "small")
    return tmp_path / "stars"


def test_pictures_follow_caption_and_seed_and_are_the_generators_rounded():
    generator, text = small_generator(), torch.randn(150, 32)
    images = draw_pictures(generator, text, seed=3)
    assert images.shape == (150, 3, 16, 16) and images.dtype == np.uint8
    noise = torch.randn(64, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = to_uint8(generator(text[:9], noise[:9])).numpy()
    assert np.abs(images[:9].astype(int) - expected).max() <= 1  # sums in another order
    assert (images == draw_pictures(generator, text.numpy(), seed=3)).all()
    assert (images[:128] == draw_pictures(generator, text[:128], seed=3)).all()
    assert (images != draw_pictures(generator, text, seed=4)).any()


def test_captions_are_encoded_and_drawn(held, encoder):
    rows = choose_captions(held, 10)
    found = draw_captions("small", small_generator(0), encoder, held, rows, seed=2)
    with torch.no_grad():
        text = encoder(held.captions(rows)).sentence
    expected = draw_pictures(small_generator(0), text)
    assert np.abs(found.images.astype(int) - expected).max() <= 1
    assert (found.name, found.seeds) == ("small", (2,))
    assert (found.caption_rows == rows).all()


def test_varied_pictures_are_several_of_each_caption_that_names_all(held, encoder, photos):
    found = draw_varied("small", small_generator(), encoder, held, captions=2, count=3)
    first, second = found.caption_rows[::3]
    assert found.caption_rows.tolist() == [first] * 3 + [second] * 3 and first != second
    for row in (first, second):
        (thing,) = held.facts[row]["objects"]
        assert set(thing) == {"shape", "color", "size"} and held.facts[row]["background"]
    assert (found.images[0] != found.images[1]).any()
    assert draw_varied("small", small_generator(), encoder, open_held_out(photos)) is None


def test_what_is_no_number_is_refused():
    generator = small_generator()
    torch.nn.init.constant_(generator.start.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        draw_pictures(generator, torch.randn(2, 32))


def test_a_folder_gives_the_first_sample_of_each_prompt(drawn, held):
    folder = read_drawn(drawn)
    assert (folder.name, folder.seeds) == ("stars", (4,))
    assert folder.captions == held.captions(choose_captions(held, 6))
    for index, pixels in enumerate(folder.images):
        written = np.asarray(Image.open(drawn / f"{2 * index + 1:06d}.png"))
        assert (pixels == np.moveaxis(written, -1, 0)).all()


def test_pictures_of_a_folder_find_their_captions(drawn, held):
    found = match_captions(read_drawn(drawn), held)
    assert held.captions(found.caption_rows) == read_drawn(drawn).captions
    assert len(match_captions(read_drawn(drawn), held, samples=4).images) == 4
    with pytest.raises(ValueError, match="holds 6 pictures of different captions, 7 are needed"):
        match_captions(read_drawn(drawn), held, samples=7)
    foreign = replace(read_drawn(drawn), captions=["a dog on a surfboard"] * 6)
    with pytest.raises(ValueError, match=r"6 of 6 captions .* such as 'a dog on a surfboard'"):
        match_captions(foreign, held)


def test_a_caption_is_measured_as_often_as_it_stands_in_the_data(drawn, held):
    file = drawn / "captions.json"
    document = json.loads(file.read_text())
    for image in document["images"]:
        del image["sample"]  # another program's file: two pictures of each caption
    file.write_text(json.dumps(document))
    folder = read_drawn(drawn)
    assert len(folder.images) == 12
    with pytest.warns(UserWarning, match="pictures of stars left out"):
        found = match_captions(folder, held)
    assert 6 <= len(found.images) < 12
    assert len(set(found.caption_rows.tolist())) == len(found.caption_rows)


def test_a_folder_that_is_not_whole_is_refused(drawn):
    file = drawn / "captions.json"
    document = json.loads(file.read_text())
    (drawn / "000003.png").rename(drawn / "stray.png")
    with pytest.raises(FileNotFoundError, match="000003.png is missing"):
        read_drawn(drawn)
    document["images"] = [i for i in document["images"] if i["id"] != 3]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 3]
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="stray.png has no caption"):
        read_drawn(drawn)
    (drawn / "stray.png").unlink()
    assert len(read_drawn(drawn).images) == 5  # sample 0 of the second prompt is gone
    document["annotations"] = document["annotations"][1:]
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="000001.png has no caption"):
        read_drawn(drawn)
    for picture in drawn.glob("*.png"):
        Image.open(picture).resize((16, 20)).save(picture)
    with pytest.raises(ValueError, match="20 x 16 pixels"):
        read_drawn(drawn)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_drawn(drawn / "nothing")
