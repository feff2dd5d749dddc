"""The protocol from end to end, on real scenes and small real networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from t2i_course import checkpoints, evaluation, report
from t2i_course.latent_space import SharedSpace
from t2i_course.metrics.clip_score import ClipNetwork, clip_score
from t2i_course.metrics.held_out import (
    GeneratedPictures,
    HeldOut,
    choose_captions,
    open_held_out,
    other_real,
)
from t2i_course.metrics.networks import NO_ENCODER
from t2i_course.metrics.picture_features import extract_features
from t2i_course.metrics.protocol import (
    MetricNetworks,
    check_samples,
    evaluate,
    evaluate_captions,
    load_networks,
)
from t2i_course.metrics.scene_features import SceneFeatures
from t2i_course.report import REAL, SHUFFLED, Evaluation
from t2i_course.scenes import accuracy, drawing
from t2i_course.text_encoder import TextEncoder

SHIPPED = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes: 80 to train on, 160 held out; a data folder for the caches, with shipped weights."""
    base = tmp_path_factory.mktemp("protocol")
    for name in ("encoders", "checkpoints"):
        (base / name).symlink_to(SHIPPED / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_HOME", str(base))
        yield drawing.make_scenes(base / "scenes", train=80, val=160, test=4, progress=False)


@pytest.fixture(scope="module")
def held(folder) -> HeldOut:
    return open_held_out(folder)


@pytest.fixture(scope="module")
def networks(held) -> MetricNetworks:
    return load_networks(held, device="cpu")


def drawn(held: HeldOut, change=lambda images: images, samples: int = 160) -> GeneratedPictures:
    rows = choose_captions(held, samples)
    images = np.asarray(held.packed.images[held.images_of(rows)])
    return GeneratedPictures("drawn", change(images), rows, seeds=(0,))


def blur(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images.astype(np.float32), (0, 0, 2, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def blurred(held, networks) -> Evaluation:
    return evaluate(drawn(held, blur), held, networks, repeats=20)


def test_the_splits_own_pictures_are_perfect(held, networks):
    found = evaluate(drawn(held), held, networks, repeats=20)
    assert found.find("FD-scenes").value == pytest.approx(0, abs=1e-4)
    assert found.find("precision").value == found.find("recall").value == 1
    assert found.find("scene accuracy: all").value >= 0.97
    assert found.find("R@1").value > 0.5
    for metric in ("scene accuracy: all", "scene accuracy: color", "R@1", "R@5"):
        assert found.find(metric) == found.find(metric, REAL)
    assert found.find("FD-scenes", REAL).value > 1e-3  # other real pictures are not the same ones
    assert found.find("scene accuracy: all", SHUFFLED).value < 0.08  # chance
    assert found.find("R@1", SHUFFLED).value < 0.06
    assert "FD-scenes" not in [m.metric for m in found.measures if m.source == SHUFFLED]


def test_what_is_worse_in_the_pictures_is_worse_in_the_table(blurred):
    for metric in ("scene accuracy: all", "R@1"):
        assert blurred.find(metric).value < blurred.find(metric, REAL).value
    for metric in ("FD-scenes", "kernel distance"):
        assert blurred.find(metric).value > blurred.find(metric, REAL).value


def test_numbers_are_those_of_the_metrics_on_the_same_pictures(held, networks, blurred):
    features = [
        extract_features(networks.extractor, images)
        for images in (held.packed.images, blur(held.packed.images[:]), other_real(held, 160)[1])
    ]
    order = held.images_of(choose_captions(held, 160))
    expected = evaluation.frechet(features[0], features[1][order], 20)
    assert blurred.find("FD-scenes").value == pytest.approx(expected.value, rel=1e-6)
    assert blurred.find("FD-scenes").interval == pytest.approx(expected.interval, rel=1e-6)
    expected = evaluation.frechet(features[0], features[2], 20)
    assert blurred.find("FD-scenes", REAL).value == pytest.approx(expected.value, rel=1e-6)
    expected = evaluation.precision_recall(features[0], features[1], repeats=0)
    assert blurred.find("precision").value == pytest.approx(expected.precision.value)
    assert blurred.find("recall").value == pytest.approx(expected.recall.value)


def test_every_number_becomes_a_row_of_the_ledger(blurred, networks, tmp_path):
    rows = blurred.rows("study", "python -m t2i_course evaluate")
    assert len({row.id for row in rows}) == len(rows) == len(blurred.measures)
    report.add_rows(tmp_path / "study.json", rows)
    assert len(report.read_rows(tmp_path)) == len(rows)
    by_id = {row.id: row for row in rows}
    distance = by_id["study-drawn-fd-scenes-val-n160"]
    assert "FID" not in distance.metric and "160 real pictures of val" in distance.metric
    assert networks.extractor.fingerprint in distance.extractor
    assert by_id["study-drawn-scene-accuracy-unseen-pairs-val-n160"].split == "val_unseen"
    assert by_id["study-shuffled-captions-r-1-val-n160"].samples == 160
    assert all(row.interval is not None for row in rows)
    assert blurred.notes == ()


def test_without_references_only_the_pictures_are_measured(held, networks, blurred):
    found = evaluate(drawn(held, blur), held, networks, references=False, repeats=20)
    assert {measure.source for measure in found.measures} == {"drawn"}
    for measure in found.measures:
        assert measure.estimate == blurred.find(measure.metric)


def test_several_captions_of_an_image_are_judged_and_one_each_is_looked_for(held, networks):
    found = evaluate(drawn(held, samples=400), held, networks, repeats=0)
    assert found.find("scene accuracy: all").samples == 400
    assert found.find("scene accuracy: all").value >= 0.97
    assert found.find("scene accuracy: all", SHUFFLED).value < 0.08
    assert found.find("R@1").samples == 160


def test_what_few_pictures_cannot_tell_is_left_out_with_the_reason(held, networks):
    found = evaluate(drawn(held, samples=6), held, networks)
    assert {m.metric.split(":")[0] for m in found.measures} == {"kernel distance", "scene accuracy"}
    assert any(r.startswith("FD-scenes, drawn: 6 pictures") for r in found.left_out)
    assert any(r.startswith("retrieval: 6 pictures") for r in found.left_out)


@pytest.fixture
def as_held_photos(folder, as_photos, tmp_path) -> HeldOut:
    return open_held_out(as_photos(folder, tmp_path / "photos"))


def test_photos_have_no_scene_accuracy_and_the_result_says_what_distances_are_to(
    as_held_photos, networks
):
    held = as_held_photos
    found = evaluate(drawn(held, blur), held, networks, repeats=0)
    metrics = {measure.metric for measure in found.measures}
    assert metrics == {"Frechet distance", "kernel distance", "precision", "recall", "R@1", "R@5"}
    assert any(r.startswith("scene accuracy: ") for r in found.left_out)
    assert found.find("Frechet distance", REAL).samples == 80  # training pictures
    assert found.notes == (
        "Frechet distance to 160 real pictures of val; all at 64 pixels",
        "Frechet distance, column real: 80 pictures of train, seed 1",
    )
    assert "\nnote: Frechet distance to 160 real pictures" in str(found)
    wide = SceneFeatures(170)  # more features than val has pictures, and train has 80
    wide.fingerprint = "0123456789abcdef"
    found = evaluate(drawn(held, blur), held, MetricNetworks(wide.eval()), repeats=0)
    assert any(r.startswith("Frechet distance, real: 80 pictures") for r in found.left_out)
    with pytest.raises(ValueError, match="nothing could be measured: distances"):
        evaluate(drawn(held), held, MetricNetworks())


def test_fid_stands_beside_fd_scenes_and_only_with_enough_pictures(held, networks):
    torch.manual_seed(1)
    inception = SceneFeatures(8).eval()  # in Inception's place, with what it has to tell
    inception.fingerprint, inception.metric, inception.published = "abcdef0123456789", "FID", True
    both = replace(networks, inception=inception, matcher=None)
    found = evaluate(drawn(held, lambda images: 255 - images), held, both, repeats=0)
    assert found.find("FID").value != found.find("FD-scenes").value
    assert found.find("KID").value != found.find("kernel distance").value
    assert found.find("FID", REAL).value < found.find("FID").value
    assert "precision, Inception-v3 abcdef01" in {m.metric for m in found.measures}
    inception.width = 2048
    with pytest.raises(ValueError, match="160 drawn and 160 real pictures: FID needs more than"):
        evaluate(drawn(held), held, both)
    with pytest.raises(ValueError, match="--samples"):
        check_samples(160, held)


def test_variety_stands_beside_that_of_real_scenes(held, networks):
    rows = [row for row in choose_captions(held, 800) if accuracy.names_all(held.facts[row])][:4]
    scenes = [accuracy.scenes_like(held.facts[row], 6, seed=1) for row in rows]
    images = drawing.render_all(scene for some in scenes for scene in some)
    varied = GeneratedPictures("drawn", images, np.repeat(rows, 6))
    pictures = drawn(held, samples=4)
    found = evaluate(pictures, held, MetricNetworks(), repeats=20, varied=varied)
    for name in ("place, px", "diameter, px", "shade, levels"):
        own, real = found.find(f"variety: {name}"), found.find(f"variety: {name}", REAL)
        assert own.samples == real.samples == 4 and 0.5 < own.value / real.value < 2
    same = replace(varied, images=varied.images[::6].repeat(6, axis=0))
    found = evaluate(pictures, held, MetricNetworks(), repeats=0, varied=same)
    assert found.find("variety: place, px").value == 0
    gray = replace(varied, images=np.full_like(varied.images, 128))
    found = evaluate(pictures, held, MetricNetworks(), repeats=0, varied=gray)
    assert any(reason.startswith("variety, drawn: hardly any") for reason in found.left_out)


class OneScene(nn.Module):
    """A generator that draws the same scene for every caption."""

    noise_dim, image_size = 0, 64

    def __init__(self, scene: drawing.Scene) -> None:
        super().__init__()
        pixels = torch.from_numpy(np.asarray(drawing.render(scene)).copy())
        self.image = nn.Parameter(pixels.permute(2, 0, 1) / 127.5 - 1)

    def forward(self, text, noise):
        return self.image.expand(len(noise), -1, -1, -1)


def test_captions_of_other_authors_are_measured_by_what_they_state(tmp_path, tiny_bert):
    file = tmp_path / "mine.txt"
    file.write_text(
        "a star, big and red | | large red star |\nthere is one blue heart | | blue heart |\n"
    )
    facts = {"background": None, "objects": [{"shape": "star", "color": "red", "size": "large"}]}
    (scene,) = accuracy.scenes_like(facts | {"background": "white"}, 1)
    model = OneScene(scene), TextEncoder(tiny_bert)
    found = evaluate_captions("one scene", *model, file, count=3)
    for part in ("all", "one object"):
        assert found.find(f"scene accuracy: {part}").value == 0.5
    assert found.find("scene accuracy: all", SHUFFLED).value == 0.5
    other = tmp_path / "other.txt"
    other.write_text("a cross | | cross |\na square | | square |")
    never = evaluate_captions("one scene", *model, other, count=3).find("scene accuracy: all")
    assert never.value == never.low == 0 < never.high < 0.5
    assert str(found).startswith("one scene on scenes, mine: 6 pictures, 3 a caption, 8 bits")
    row = found.rows("mine", "c")[0]
    assert row.id == "mine-one-scene-scene-accuracy-all-mine-n6" and "mine.txt" in row.metric
    with pytest.raises(FileNotFoundError):
        evaluate_captions("one scene", *model, tmp_path / "nothing.txt")


def test_pictures_called_real_do_not_take_the_place_of_real_ones(held, networks):
    named = replace(drawn(held, blur), name=REAL)
    found = evaluate(named, held, replace(networks, matcher=None), repeats=0)
    assert list(found.table().columns) == ["real (generated)", REAL, SHUFFLED]
    assert found.find("FD-scenes").value > found.find("FD-scenes", REAL).value


def test_clip_score_stands_beside_that_of_real_pictures_and_of_false_captions(held, tiny_clip):
    clip = ClipNetwork(tiny_clip, device="cpu")
    pictures = drawn(held, blur, samples=400)  # several captions of an image
    found = evaluate(pictures, held, MetricNetworks(clip=clip), repeats=20)
    text = clip.embed_captions(held.captions(pictures.caption_rows))
    images = held.images_of(pictures.caption_rows)
    real = clip.embed_images(held.packed.images[images])
    seen = clip.embed_images(pictures.images)
    assert found.find("CLIP score").value == pytest.approx(clip_score(seen, text).value, rel=1e-6)
    assert found.find("CLIP score", REAL).value == pytest.approx(
        clip_score(real, text).value, rel=1e-6
    )
    assert found.find("CLIP score", SHUFFLED).value != found.find("CLIP score").value
    for source in ("drawn", REAL, SHUFFLED):
        estimate = found.find("CLIP score", source)
        assert estimate.samples == 400 and estimate.interval[0] < estimate.interval[1]
    again = evaluate(pictures, held, MetricNetworks(clip=clip), repeats=20)  # with a warm cache
    assert again.find("CLIP score", REAL) == found.find("CLIP score", REAL)
    row = {row.id: row for row in found.rows("s", "c")}["s-drawn-clip-score-val-n400"]
    assert row.extractor == f"CLIP tiny-clip ({clip.fingerprint})" and row.samples == 400
    assert "100 max(cos, 0)" in row.metric


def test_where_val_is_too_small_the_result_says_that_train_is_the_reference(photos, networks):
    held = open_held_out(photos)  # 40 pictures, 60 in train; 64 features
    found = evaluate(drawn(held, samples=40), held, MetricNetworks(networks.extractor), repeats=0)
    assert "to 60 real pictures of train, as 40 of val are too few for it;" in found.notes[0]


def test_a_fid_of_few_samples_says_that_it_is_not_that_of_papers(as_held_photos):
    held = as_held_photos
    inception = SceneFeatures(8).eval()  # in Inception's place, with what it has to tell
    inception.fingerprint, inception.metric, inception.published = "abcdef0123456789", "FID", True
    found = evaluate(drawn(held, blur), held, MetricNetworks(inception=inception), repeats=0)
    note = "FID of N=160 samples; papers use 30,000 of val2014: not comparable"
    assert note in found.notes and f"note: {note}" in str(found)
    inception.published, inception.metric = False, "Frechet distance, Inception-v3 abcdef01"
    found = evaluate(drawn(held, blur), held, MetricNetworks(inception=inception), repeats=0)
    assert not any("papers" in note for note in found.notes)  # it is called no FID


# Which networks measure


CARD = {
    "data": "scenes", "command": "none", "steps": 0, "seconds": 0, "hardware": "none",
    "metrics": {}, "license": "Apache-2.0",
}  # fmt: skip


@pytest.fixture
def two_of_each(tmp_path, tiny_bert, monkeypatch):
    """A data folder with both networks under their names, and one more of each."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path))
    encoder = TextEncoder(tiny_bert)
    named = {"name": str(tiny_bert), "fingerprint": encoder.fingerprint, "pooling": "mean"}
    for seed, prefix in enumerate(("", "my-")):
        torch.manual_seed(seed)
        save = checkpoints.save_weights
        save(f"{prefix}scene-features", SceneFeatures(8), CARD | {"encoder": NO_ENCODER})
        matcher = SharedSpace(32, width=16, name="caption-matcher")
        save(f"{prefix}caption-matcher", matcher, CARD | {"encoder": named})
    return tmp_path


def test_scenes_get_the_courses_networks_or_those_named(two_of_each, small_scenes):
    held = open_held_out(small_scenes)
    usual = load_networks(held, device="cpu")
    named = load_networks(held, "my-scene-features", "my-caption-matcher", device="cpu")
    assert usual.extractor.width == 8 and usual.inception is None
    assert usual.extractor.fingerprint != named.extractor.fingerprint
    assert usual.matcher.fingerprint != named.matcher.fingerprint


def test_photos_get_no_network_that_learnt_from_scenes_unless_it_is_named(two_of_each, photos):
    held = open_held_out(photos)
    with pytest.raises(ValueError, match="nothing to measure photos with"):
        load_networks(held, device="cpu")
    found = load_networks(held, matcher="my-caption-matcher", device="cpu")
    assert found.extractor is None and found.matcher is not None


def test_missing_weights_are_named(two_of_each, small_scenes):
    held = open_held_out(small_scenes)
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        load_networks(held, extractor="nothing", device="cpu")
    with pytest.raises(FileNotFoundError, match="no Inception weights at none.pth"):
        load_networks(held, inception_weights="none.pth", device="cpu")
