"""Tests of scenes.part_lessons: what a discriminator's third head learns before the game."""

import json
import random

import pytest
import torch

from t2i_course import checkpoints, data
from t2i_course.gan import Discriminator
from t2i_course.scenes import drawing, part_lessons
from t2i_course.scenes.oracle import check_facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return drawing.make_scenes(
        tmp_path_factory.mktemp("lessons") / "scenes", train=80, val=40, test=4, progress=False,
        crowded=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def taught(folder, tmp_path_factory):
    """Of the GAN that comes with the course, 150 steps of 16 pictures, learnt by heart."""
    return part_lessons.teach_part_judge(
        str(folder), str(tmp_path_factory.mktemp("weights") / "few"), steps=150, batch_size=16,
        device="cpu", command="test", progress=False,
    )  # fmt: skip


def test_half_of_the_lessons_turn_the_third_thing_and_all_false_captions_are_false(folder):
    lessons, chance = part_lessons.Lessons(folder, "train", 64, progress=False), random.Random(0)
    images, told, false = lessons.draw(20, chance)
    assert images.shape == (20, 3, 64, 64) and len(told) == len(false) == 20
    assert all("both" in caption for caption in told[:10] + false[:10])
    for row in lessons.aside:
        image = lessons.entries[row]["image_id"]
        assert not all(check_facts(lessons.turned[row], lessons.scenes[image]).values())
    # Every picture is the one that its caption is of.
    where = {caption: row for row, caption in enumerate(lessons.packed.all_captions)}
    for image, caption in zip(images, told, strict=True):
        shown = lessons.packed.images[lessons.packed.images_of(where[caption])]
        if lessons.packed.all_captions.count(caption) == 1:
            assert torch.equal(image, data.to_float(torch.from_numpy(shown[None].copy()))[0])


def test_only_the_third_head_learns_and_it_learns_something(folder, taught):
    builders = {Discriminator.name: Discriminator}
    after, card = checkpoints.load_generator(taught.with_suffix(""), "cpu", builders)
    before, earlier = checkpoints.load_generator("gan-discriminator", "cpu", builders)
    still = {name: weight for name, weight in before.state_dict().items()
             if not name.startswith(("part_judge", "reader"))}  # fmt: skip
    assert still and all(torch.equal(after.state_dict()[name], still[name]) for name in still)
    generator, _ = checkpoints.load_generator(
        "gan", "cpu", {"gan": part_lessons.generation.GENERATORS["gan"]}
    )
    for name, weight in generator.reader.state_dict().items():
        assert torch.equal(after.reader.state_dict()[name], weight)
    assert taught.name == "few-discriminator.safetensors"
    assert card["begun_with"]["sha256"] == earlier["sha256"] and card["command"] == "test"
    assert card["encoder"] == earlier["encoder"] and card["words"] == earlier["words"]
    assert card["trained_on"][:-1] == earlier["trained_on"] and card["steps"] == 150
    assert len(card["metrics"]) == 2 and all(0 <= value <= 1 for value in card["metrics"].values())
    assert json.loads(taught.with_suffix(".json").read_text())["config"]["parts"] is True
    # By heart, it tells true captions from false ones; a head that has learnt nothing cannot.
    encoder = part_lessons.TextEncoder(device="cpu")
    lessons = part_lessons.Lessons(folder, "train", 64, progress=False)
    drawn = lessons.draw(80, random.Random(1))
    torch.manual_seed(0)
    anew = Discriminator(**after.config)
    anew.reader.load_state_dict(generator.reader.state_dict())
    with torch.no_grad():
        (true, false), by_chance = (
            part_lessons.read(network, encoder, *drawn) for network in (after, anew)
        )
    right = (true > false).float().mean()
    assert right > (by_chance[0] > by_chance[1]).float().mean() + 0.1
    assert (true.mean() + false.mean()).abs() < (true - false).abs().mean()  # 0 lies between them


def test_photos_and_a_gan_without_parts_are_errors(tmp_path, folder):
    with pytest.raises(ValueError, match="baseline has no parts: train it with --set parts=on"):
        part_lessons.teach_part_judge(str(folder), str(tmp_path / "none"), begin="baseline")
    (folder / drawing.MARKER).rename(tmp_path / "marker")
    try:
        with pytest.raises(ValueError, match="learns from scenes"):
            part_lessons.teach_part_judge(str(folder), str(tmp_path / "none"))
    finally:
        (tmp_path / "marker").rename(folder / drawing.MARKER)
    assert not list(tmp_path.iterdir())
