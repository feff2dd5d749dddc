import numpy as np
import pytest
import torch

from t2i_course.generation import (
    check_prompts,
    grid_picture,
    read_prompts,
    training_words,
)
from t2i_course.text_encoder import TextEncoder

CAPTIONS = ["A red circle.", "two red circles, on white", "a red star"]


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(device="cpu")


def test_words_of_captions_are_sorted_without_capitals_and_the_rare_ones_are_cut_off():
    assert training_words(CAPTIONS) == "a circle circles on red star two white"
    assert training_words(CAPTIONS, most=2) == "a red"


def test_words_of_no_training_caption_are_named_once(encoder):
    card = {"words": training_words(CAPTIONS)}
    assert check_prompts(encoder, ["a red star on white", "Two Red circles!"], card) == []
    (note,) = check_prompts(encoder, ["a dog, a dog and a red sofa"], card)
    assert "'dog', 'and', 'sofa' in" in note and "does not know" in note


def test_a_card_without_words_leaves_the_encoders_own_check(encoder):
    assert check_prompts(encoder, ["a dog on a sofa"]) == []
    (note,) = check_prompts(encoder, ["a dog \u5706"], {"words": "a dog"})
    assert note.count("\u5706") == 2 and "cannot read" in note  # the word, and the prompt


def test_what_no_scene_shows_is_said(encoder):
    card = {"words": training_words(CAPTIONS), "data": "scenes"}
    (note,) = check_prompts(encoder, ["four red circles on white"], card)
    assert "three objects at most: 'four' in" in note
    (note,) = check_prompts(encoder, ["two red circles, two red circles on white"], card)
    assert "three objects at most" in note and "will not be drawn" in note
    (note,) = check_prompts(encoder, ["a red star, no circle"], card)
    assert "never what is not: 'no' in" in note
    assert check_prompts(encoder, ["a tiny red star"], {**card, "words": "a red star"}) == []
    (note,) = check_prompts(encoder, ["four red circles"], {**card, "data": "photos"})
    assert "does not know 'four'" in note


def test_a_prompt_that_is_too_long_is_an_error(encoder):
    with pytest.raises(ValueError, match="shorten it"):
        check_prompts(encoder, ["a red circle " * 40])


def test_lines_of_a_prompt_file_end_where_an_editor_ends_them(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("a red\u2028star\x0b\x85here\x1c\r\na cross\ra heart\n".encode())
    assert read_prompts([], file) == ["a red\u2028star\x0b\x85here", "a cross", "a heart"]


def test_grid_picture_has_every_image_in_its_place():
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    picture = np.asarray(grid_picture(images, columns=3, padding=2))
    assert picture.shape == (2 + 2 * 18, 2 + 3 * 18, 3)
    for index in range(5):
        top, left = 2 + index // 3 * 18, 2 + index % 3 * 18
        expected = images[index].permute(1, 2, 0).numpy()
        assert np.array_equal(picture[top : top + 16, left : left + 16], expected)
    assert (picture[20:36, 38:54] == 255).all(), "an empty place is white"
