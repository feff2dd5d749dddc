"""Drawn pictures and their captions, from real small networks and real folders of files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course.data import to_uint8
from t2i_course.generation import sample, write_samples
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.metrics.held_out import choose_captions, open_held_out
from t2i_course.metrics.judged_pictures import (
    draw_captions,
    draw_pictures,
    match_captions,
    read_drawn,
)
from t2i_course.text_encoder import TextEncoder


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path_factory.getbasetemp()))


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
    assert (images != draw_pictures(generator, text, seed=4)).any()


def test_fewer_captions_get_the_same_pictures():
    generator, text = small_generator(), torch.randn(90, 32)
    some, all_of_them = draw_pictures(generator, text[:70]), draw_pictures(generator, text)
    assert np.abs(some.astype(int) - all_of_them[:70]).max() <= 1


def test_captions_are_encoded_and_drawn(held, encoder):
    rows = choose_captions(held, 10)
    judged = draw_captions("small", small_generator(0), encoder, held, rows, seed=2)
    with torch.no_grad():
        text = encoder(held.captions(rows)).sentence
    expected = draw_pictures(small_generator(0), text)
    assert np.abs(judged.images.astype(int) - expected).max() <= 1
    assert (judged.name, judged.seeds) == ("small", (2,))
    assert (judged.caption_rows == rows).all()


def test_what_is_no_number_and_a_seed_out_of_range_are_refused():
    generator = small_generator()
    with pytest.raises(ValueError, match="seed -1 is out of range"):
        draw_pictures(generator, torch.randn(2, 32), seed=-1)
    torch.nn.init.constant_(generator.start.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        draw_pictures(generator, torch.randn(2, 32))


def test_a_folder_gives_the_first_sample_of_each_prompt(drawn, held):
    folder = read_drawn(drawn)
    assert (folder.name, folder.seeds, folder.size) == ("stars", (4,), 16)
    assert folder.captions == held.captions(choose_captions(held, 6))
    for index, pixels in enumerate(folder.images):
        written = np.asarray(Image.open(drawn / f"{2 * index + 1:06d}.png"))
        assert (pixels == np.moveaxis(written, -1, 0)).all()


def test_pictures_of_a_folder_find_their_captions(drawn, held):
    judged = match_captions(read_drawn(drawn), held)
    assert held.captions(judged.caption_rows) == read_drawn(drawn).captions
    assert len(match_captions(read_drawn(drawn), held, samples=4).images) == 4
    with pytest.raises(ValueError, match="holds 6 pictures of different captions, 7 are needed"):
        match_captions(read_drawn(drawn), held, samples=7)


def test_a_caption_is_judged_as_often_as_it_stands_in_the_data(drawn, held):
    file = drawn / "captions.json"
    document = json.loads(file.read_text())
    for image in document["images"]:
        del image["sample"]  # another program's file: two pictures of each caption
    file.write_text(json.dumps(document))
    folder = read_drawn(drawn)
    assert len(folder.images) == 12
    with pytest.warns(UserWarning, match="pictures of stars left out"):
        judged = match_captions(folder, held)
    assert 6 <= len(judged.images) < 12
    assert len(set(judged.caption_rows.tolist())) == len(judged.caption_rows)


def test_captions_of_other_data_or_of_the_other_split_are_refused(drawn, small_scenes):
    with pytest.raises(ValueError, match="are not captions of scenes, val_seen, such as"):
        match_captions(read_drawn(drawn), open_held_out(small_scenes, "val_seen"))
    file = drawn / "captions.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["caption"] = "a dog on a surfboard"
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"1 of 6 captions .* such as 'a dog on a surfboard'"):
        match_captions(read_drawn(drawn), open_held_out(small_scenes))


def test_a_folder_that_is_not_whole_is_refused(drawn):
    file = drawn / "captions.json"
    text = file.read_text()
    (drawn / "000003.png").rename(drawn / "stray.png")
    with pytest.raises(FileNotFoundError, match="000003.png is missing"):
        read_drawn(drawn)
    document = json.loads(text)
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
    file.write_text(text[:500])
    with pytest.raises(ValueError, match="captions.json is not JSON"):
        read_drawn(drawn)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no captions.json"):
        read_drawn(drawn)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_drawn(drawn / "nothing")


def test_pictures_that_are_not_square_are_refused(drawn):
    for file in drawn.glob("*.png"):
        Image.open(file).resize((16, 20)).save(file)
    with pytest.raises(ValueError, match="20 x 16 pixels"):
        _ = read_drawn(drawn).size
