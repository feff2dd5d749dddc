"""The oracle: right on real renderings, silent where it cannot tell."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from t2i_course.scenes import drawing, oracle


def look(scene: drawing.Scene) -> tuple:
    """What a scene shows, without the order of the objects."""
    return scene.background, sorted((o.shape, o.color, o.size) for o in scene.objects)


def drawn(count: int, name: str) -> list[drawing.Scene]:
    return [drawing.sample_scene(random.Random(f"{name} {k}")) for k in range(count)]


def read(scene: drawing.Scene) -> drawing.Scene:
    return oracle.read_picture(np.asarray(drawing.render(scene)))


def test_reads_995_of_1000_renderings_right():
    right = 0
    for scene in drawn(1000, "read"):
        found = read(scene)
        right += found.readable and look(found) == look(scene)
    assert right >= 995


def test_reads_places_to_half_a_pixel():
    for scene in drawn(100, "places"):
        found = sorted((o.x, o.y) for o in read(scene).objects)
        true = sorted((o.x, o.y) for o in scene.objects)
        # the box of a star or a heart is not centred on the point it is drawn around
        assert np.abs(np.array(found) - np.array(true)).max() <= 1.6


def test_noise_blank_and_blurred_pictures_are_unreadable_rather_than_guessed():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert not oracle.read_picture(noise).readable
    blank = oracle.read_picture(np.full((64, 64, 3), 250, dtype=np.uint8))
    assert blank.background == "white" and not blank.readable
    blur = ImageFilter.GaussianBlur(6)
    scenes = drawn(100, "blur")
    found = [oracle.read_picture(np.asarray(drawing.render(s).filter(blur))) for s in scenes]
    assert sum(not scene.readable for scene in found) >= 85
    guessed = [f for f, s in zip(found, scenes, strict=True) if f.readable and look(f) != look(s)]
    assert len(guessed) <= 5


def test_a_blot_has_no_shape_and_a_colour_off_the_palette_no_name():
    rng = random.Random(3)
    pixels = drawing.draw_background("white").copy()
    for _ in range(60):  # a ragged blot
        x, y = rng.randint(22, 38), rng.randint(22, 38)
        pixels[y : y + rng.randint(1, 5), x : x + rng.randint(1, 5)] = drawing.COLORS["red"]
    (thing,) = oracle.read_picture(pixels).objects
    assert (thing.shape, thing.color) == (None, "red")
    pixels[15:45, 15:45] = 250
    pixels[20:40, 20:40] = (90, 90, 20)
    (thing,) = oracle.read_picture(pixels).objects
    assert (thing.shape, thing.color, thing.size) == ("square", None, "large")


def test_a_thing_lighter_and_darker_than_the_ground_has_no_shape_and_no_colour():
    """Such as an untrained generator draws: the two parts cancel in the mean."""
    pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
    pixels[20:40, 20:30], pixels[20:40, 30:40] = 188, 68
    scene = oracle.read_picture(pixels)
    (thing,) = scene.objects
    assert scene.background == "gray"
    assert (thing.shape, thing.color) == (None, None)
    assert (thing.x, thing.y) == (30, 30)


def test_no_picture_is_too_strange_to_be_read():
    """Smooth random colours on a plain ground, as generators draw them in early steps."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        coarse = rng.normal(128, rng.uniform(20, 200), (6, 6, 3)).clip(0, 255).astype(np.uint8)
        inner = np.asarray(Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC))
        pixels = np.full((64, 64, 3), rng.choice([0, 128, 255]), dtype=np.uint8)
        pixels[12:52, 12:52] = inner
        oracle.read_picture(pixels)


def test_wrong_count_fails_whatever_else_is_right():
    scene = next(s for s in drawn(200, "count") if len(s.objects) == 2)
    fewer = replace(scene, objects=scene.objects[:1])
    facts = {"background": None, "objects": [{}, {}], "relations": []}
    assert oracle.check_facts(facts, scene) == {"count": True}
    assert oracle.check_facts(facts, fewer) == {"count": False}


def test_relation_needs_the_right_objects_on_the_right_sides():
    red = drawing.SceneObject("circle", "red", "small", 15, 30, 14, (0, 0, 0))
    blue = drawing.SceneObject("star", "blue", "small", 45, 32, 14, (0, 0, 0))
    objects = [{"color": "red"}, {"color": "blue"}]
    facts = {"background": None, "objects": objects, "relations": [[0, "left of", 1]]}
    assert all(oracle.check_facts(facts, drawing.Scene("white", (blue, red))).values())
    swapped = (replace(red, x=45), replace(blue, x=15))
    checks = oracle.check_facts(facts, drawing.Scene("white", swapped))
    assert checks == {"count": True, "color": True, "relation": False}


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="to_uint8"):
        oracle.read_picture(np.zeros((64, 64, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r"\[32, 32, 3\]"):
        oracle.read_picture(np.asarray(Image.new("RGB", (32, 32))))
