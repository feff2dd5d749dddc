import math
import random

import numpy as np
import pytest
import torch

from t2i_course import augmentation, data
from t2i_course.augmentation import FALSIFIES, KINDS, OPERATIONS, augment
from t2i_course.scenes import drawing
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.oracle import check_facts, read_picture
from t2i_course.scenes.wording import choose_facts, word_facts


@pytest.fixture(scope="module")
def drawn():
    """700 scenes, the facts of six captions of each, and pictures [N, 3, 64, 64] in [-1, 1]."""
    rng = random.Random(3)
    scenes = [drawing.sample_scene(rng) for _ in range(700)]
    facts = [[choose_facts(scene, rng) for _ in range(6)] for scene in scenes]
    pixels = np.stack([np.asarray(drawing.render(scene)) for scene in scenes])
    return scenes, facts, data.to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def shares(drawn):
    """For each operation and kind of statement, the share of captions that stay true."""
    _, facts, images = drawn
    torch.manual_seed(0)
    found = {}
    for name in ("nothing", *OPERATIONS):
        changed = augment(images, () if name == "nothing" else [name])
        answers = {kind: [] for kind in KINDS}
        for picture, captions in zip(data.to_uint8(changed.clone()), facts, strict=True):
            scene = read_picture(picture.permute(1, 2, 0).numpy(), any_background=True)
            for stated in captions:
                for kind, right in augmentation.check_statements(stated, scene).items():
                    answers[kind].append(right)
        found[name] = {kind: float(np.mean(right)) for kind, right in answers.items()}
    return found


# Pictures


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_change_each_picture_in_its_own_way_and_pass_the_gradient(name):
    torch.manual_seed(0)
    images = torch.rand(1, 3, 32, 32).repeat(16, 1, 1, 1).requires_grad_()
    images = images if name != "mixing" else torch.rand(16, 3, 32, 32, requires_grad=True)
    changed = augment(images, [name])
    assert changed.shape == images.shape and not torch.equal(changed, images)
    changed.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert (name == "flip") == all(torch.equal(changed[0], other) for other in changed)


def test_hue_is_a_turn_about_the_gray_axis():
    images = torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1)  # red
    third = augment(images, ["hue"], lambda n: torch.full((1, n), 0.25))  # by 120 degrees
    assert torch.allclose(third.flatten(), torch.tensor([-1.0, 1, -1]), atol=1e-6)  # green
    gray, any_picture = torch.full((1, 3, 4, 4), 0.3), torch.randn(1, 3, 4, 4)
    assert torch.allclose(augment(gray, ["hue"]), gray, atol=1e-6)
    turned = augment(any_picture, ["hue"])
    assert torch.allclose(turned.mean(1), any_picture.mean(1), atol=1e-6)
    assert torch.allclose(turned.square().sum(1), any_picture.square().sum(1), atol=1e-5)


def test_a_flip_twice_and_a_whole_crop_change_nothing():
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(augment(images, ["flip", "flip"]), images)
    whole = augment(images, ["crop"], lambda n: torch.full((2, n), 1.0))
    assert torch.allclose(whole, images, atol=1e-5)
    assert augment(images, ()) is images


def test_crops_reach_the_border_and_no_farther():
    ramp = torch.linspace(-1, 1, 64).expand(400, 3, 64, 64).clone()
    torch.manual_seed(0)
    cut = augment(ramp, ["crop"])
    width = (cut[:, 0, 32, -1] - cut[:, 0, 32, 0]).numpy()
    assert math.isclose(width.min(), 2 * augmentation.LEAST_CROP, abs_tol=0.06)
    assert cut.min() >= -1 and cut.max() <= 1


# Is the caption still true?


def test_every_caption_is_true_of_its_own_picture(shares):
    assert set(shares["nothing"].values()) == {1.0}


@pytest.mark.parametrize("name", OPERATIONS)
def test_table_of_what_an_operation_falsifies_is_what_the_oracle_measures(shares, name):
    false = {kind for kind in KINDS if shares[name][kind] < 0.93}
    assert false <= set(FALSIFIES[name]), "the table forgets a kind"
    if FALSIFIES[name] != KINDS:
        listed = [shares[name][kind] for kind in FALSIFIES[name]]
        assert all(share < 0.98 for share in listed), "the table forbids too much"


def test_captions_that_the_rule_lets_through_stay_true(drawn, shares):
    _, facts, images = drawn
    torch.manual_seed(1)
    for name in ("flip", "hue", "translation"):
        right = []
        for picture, captions in zip(data.to_uint8(augment(images, [name])), facts, strict=True):
            scene = read_picture(picture.permute(1, 2, 0).numpy(), any_background=True)
            right += [
                all(augmentation.check_statements(stated, scene).values())
                for stated in captions
                if augmentation.stays_true(name, stated)
            ]
        assert np.mean(right) > 0.97 and len(right) > 20, name


def test_statements_hold_each_fact_of_a_caption_once():
    facts = {
        "background": "sky",
        "objects": [{"shape": "star", "corner": "upper left"}, {"color": "red"}],
        "relations": [[0, "left of", 1], [1, "above", 0]],
    }
    found = augmentation.statements(facts)
    assert set(found) == {"count", "shape", "color", "sky", "corner", "left of", "above"}
    assert found["left of"]["relations"] == [[0, "left of", 1]]
    assert found["color"]["background"] is None and found["sky"]["background"] == "sky"
    assert all("corner" not in thing for thing in found["shape"]["objects"])


@pytest.mark.parametrize(
    ("operation", "caption", "bears"),
    [
        ("flip", "a dog on the grass", True),
        ("flip", "The Leftmost dog", False),
        ("flip", "a right-hand drive", False),
        ("flip", "an alright cake", True),
        ("flip", "a bright day", True),
        ("hue", "two dogs run", True),
        ("hue", "a brown dog", False),
        ("hue", "a discolored wall and a red car", False),
        ("brightness", "a dog before a dark wall", False),
        ("contrast", "a dog on the grass", True),
        ("cutout", "a dog", False),
        ("cutout", "", True),
        ("mixing", " ", True),
    ],
)
def test_words_decide_for_photos(operation, caption, bears):
    assert augmentation.stays_true(operation, caption) is bears


def test_words_overlook_nothing_that_facts_state():
    rng = random.Random(5)
    for _ in range(1500):
        facts = drawing.sample_facts(rng)
        caption = word_freely(facts, rng) if rng.random() < 0.5 else word_facts(facts, rng)
        assert set(augmentation.statements(facts)) <= augmentation.says(caption), caption
        for name in OPERATIONS:
            if augmentation.stays_true(name, caption):
                assert augmentation.stays_true(name, facts), (name, caption)


# Captions


def test_a_caption_that_leaves_out_is_true_of_every_picture_of_which_the_whole_is(drawn):
    scenes, facts, _ = drawn
    rng, shorter = random.Random(0), 0
    for scene, captions in zip(scenes, facts, strict=True):
        less = augmentation.leave_out(captions[0], rng, share=0.5)
        assert all(check_facts(less, scene).values())
        assert len(less["objects"]) == len(captions[0]["objects"])
        assert set(augmentation.statements(less)) <= set(augmentation.statements(captions[0]))
        assert word_facts(less, rng) and word_freely(less, rng)
        shorter += less != captions[0]
    assert shorter > 600


def test_nothing_is_left_out_with_no_chance_and_all_but_the_names_with_certainty():
    rng = random.Random(2)
    for _ in range(50):
        facts = drawing.sample_facts(rng)
        assert augmentation.leave_out(facts, rng, share=0) == facts
        bare = augmentation.leave_out(facts, rng, share=1)
        assert bare["background"] is None and bare["relations"] == []
        assert all(len(thing) == 1 for thing in bare["objects"])
