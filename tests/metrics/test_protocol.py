"""The protocol from end to end, on real scenes and small real networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from t2i_course import evaluation, report
from t2i_course.metrics.caption_matcher import CaptionMatcher
from t2i_course.metrics.clip_score import ClipNetwork, clip_score
from t2i_course.metrics.evaluation_result import REAL, SHUFFLED, Evaluation
from t2i_course.metrics.held_out import HeldOut, choose_captions, open_held_out, other_real
from t2i_course.metrics.instruments import Instruments
from t2i_course.metrics.judged_pictures import JudgedPictures
from t2i_course.metrics.protocol import check_samples, evaluate
from t2i_course.metrics.scene_features import SceneFeatures, load_scene_features
from t2i_course.scenes import drawing
from t2i_course.text_encoder import TextEncoder

WEIGHTS = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scene-features"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes: 80 to train on, 160 held out; and a data folder for the caches."""
    base = tmp_path_factory.mktemp("protocol")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_HOME", str(base))
        yield drawing.make_scenes(base / "scenes", train=80, val=160, progress=False)


@pytest.fixture(scope="module")
def held(folder) -> HeldOut:
    return open_held_out(folder)


@pytest.fixture(scope="module")
def instruments(held, tiny_bert) -> Instruments:
    """The course's own network for distances, and a matcher that knows these pictures."""
    extractor = load_scene_features(WEIGHTS, device="cpu")
    torch.manual_seed(0)
    encoder = TextEncoder(tiny_bert)
    matcher = CaptionMatcher(encoder.width, width=16).eval()
    matcher.fingerprint = "fedcba9876543210"
    matcher.encoder = {"name": str(tiny_bert), "fingerprint": encoder.fingerprint}
    matcher.encoder["pooling"] = "mean"
    captions = held.captions(choose_captions(held, 160))
    images = held.packed.images[held.images_of(choose_captions(held, 160))]
    with torch.no_grad():
        text = encoder(captions).sentence
        seen = matcher.picture.layers(torch.from_numpy(images) / 127.5 - 1)  # [160, 2048]
    heads = [*matcher.picture.features.parameters(), *matcher.text.parameters()]
    optimizer = torch.optim.Adam(heads, lr=3e-3)
    for _ in range(150):
        one = functional.normalize(matcher.picture.features(seen), dim=1)
        other = functional.normalize(matcher.text(text), dim=1)
        loss = functional.cross_entropy(20 * one @ other.T, torch.arange(160))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Instruments(extractor, matcher)


def judged(held: HeldOut, change=lambda images: images, samples: int = 160) -> JudgedPictures:
    rows = choose_captions(held, samples)
    images = np.asarray(held.packed.images[held.images_of(rows)])
    return JudgedPictures("drawn", change(images), rows, seeds=(0,))


def blur(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images.astype(np.float32), (0, 0, 2, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def blurred(held, instruments) -> Evaluation:
    return evaluate(judged(held, blur), held, instruments, repeats=20)


def test_the_splits_own_pictures_are_perfect(held, instruments):
    found = evaluate(judged(held), held, instruments, repeats=20)
    assert found.find("FD-scenes").value == pytest.approx(0, abs=1e-4)
    assert found.find("precision").value == found.find("recall").value == 1
    assert found.find("scene accuracy: all").value >= 0.97
    assert found.find("R@1").value > 0.5
    for metric in ("scene accuracy: all", "scene accuracy: color", "R@1", "R@5"):
        assert found.find(metric) == found.find(metric, REAL)
    assert found.find("FD-scenes", REAL).value > 1e-3  # other real pictures are not the same ones


def test_what_is_worse_in_the_pictures_is_worse_in_the_table(held, instruments, blurred):
    for metric in ("scene accuracy: all", "R@1"):
        assert blurred.find(metric).value < blurred.find(metric, REAL).value
    for metric in ("FD-scenes", "kernel distance"):
        assert blurred.find(metric).value > blurred.find(metric, REAL).value
    inverted = evaluate(judged(held, lambda images: 255 - images), held, instruments, repeats=20)
    for metric in ("FD-scenes", "kernel distance"):
        assert inverted.find(metric).interval[0] > blurred.find(metric).interval[1]


def test_shuffled_captions_find_and_show_what_chance_allows(held, instruments):
    found = evaluate(judged(held), held, instruments, repeats=0)
    assert found.find("scene accuracy: all", SHUFFLED).value < 0.08
    assert found.find("R@1", SHUFFLED).value < 0.06
    assert found.find("R@5", SHUFFLED).value < 0.2
    assert "FD-scenes" not in [m.metric for m in found.measures if m.judged == SHUFFLED]


def test_numbers_are_those_of_the_metrics_on_the_same_pictures(held, instruments, blurred):
    features = [
        evaluation.extract_features(instruments.extractor, images)
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


def test_all_but_the_seconds_repeats_also_with_a_warm_cache(held, instruments, blurred):
    again = evaluate(judged(held, blur), held, instruments, repeats=20)
    for first, second in zip(blurred.measures, again.measures, strict=True):
        assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_every_number_becomes_a_row_of_the_ledger(blurred, tmp_path):
    rows = blurred.rows("study", "python -m t2i_course evaluate")
    assert len({row.id for row in rows}) == len(rows) == len(blurred.measures)
    report.add_rows(tmp_path / "study.json", rows)
    assert len(report.read_rows(tmp_path)) == len(rows)
    by_id = {row.id: row for row in rows}
    distance = by_id["study-drawn-fd-scenes-val-n160"]
    assert "FID" not in distance.metric and "160 real pictures of val" in distance.metric
    assert load_scene_features(WEIGHTS).fingerprint in distance.extractor
    assert by_id["study-drawn-scene-accuracy-unseen-pairs-val-n160"].split == "val_unseen"
    assert by_id["study-shuffled-captions-r-1-val-n160"].samples == 160
    assert all(row.interval is not None for row in rows)


def test_without_references_only_the_pictures_are_measured(held, instruments, blurred):
    found = evaluate(judged(held, blur), held, instruments, references=False, repeats=20)
    assert {measure.judged for measure in found.measures} == {"drawn"}
    for measure in found.measures:
        assert measure.estimate == blurred.find(measure.metric)


def test_several_captions_of_an_image_are_judged_and_one_each_is_looked_for(held, instruments):
    found = evaluate(judged(held, samples=400), held, instruments, repeats=0)
    assert found.find("scene accuracy: all").samples == 400
    assert found.find("scene accuracy: all").value >= 0.97
    assert found.find("scene accuracy: all", SHUFFLED).value < 0.08
    assert found.find("R@1").samples == 160


def test_a_half_of_val_is_measured_against_itself(folder, instruments):
    held = open_held_out(folder, "val_unseen")
    found = evaluate(judged(held, samples=120), held, instruments, repeats=0)
    assert found.find("scene accuracy: unseen pairs") == found.find("scene accuracy: all")
    with pytest.raises(KeyError):
        found.find("scene accuracy: seen pairs")
    assert any("80 pictures of different images, 100 are needed" in r for r in found.left_out)


def test_what_few_pictures_cannot_tell_is_left_out_with_the_reason(held, instruments):
    found = evaluate(judged(held, samples=6), held, instruments)
    assert {m.metric.split(":")[0] for m in found.measures} == {"kernel distance", "scene accuracy"}
    assert any(r.startswith("FD-scenes, drawn: 6 pictures") for r in found.left_out)
    assert any(r.startswith("retrieval: 6 pictures") for r in found.left_out)


def test_photos_have_no_scene_accuracy_and_no_fd_scenes(folder, instruments, as_photos, tmp_path):
    photos = as_photos(folder, tmp_path / "photos")
    held = open_held_out(photos)
    found = evaluate(judged(held, blur), held, instruments, repeats=0)
    metrics = {measure.metric for measure in found.measures}
    assert metrics == {"Frechet distance", "kernel distance", "precision", "recall", "R@1", "R@5"}
    assert any(r.startswith("scene accuracy: ") for r in found.left_out)
    assert found.find("Frechet distance", REAL).samples == 80  # training pictures
    wide = SceneFeatures(170)  # more features than val has pictures, and train has 80
    wide.fingerprint = "0123456789abcdef"
    found = evaluate(judged(held, blur), held, Instruments(wide.eval()), repeats=0)
    assert any(r.startswith("Frechet distance, real: 80 pictures") for r in found.left_out)
    with pytest.raises(ValueError, match="nothing could be measured: distances"):
        evaluate(judged(held), held, Instruments())


def test_fid_stands_beside_fd_scenes_and_only_with_enough_pictures(held, instruments):
    torch.manual_seed(1)
    inception = SceneFeatures(8).eval()  # in Inception's place, with what it has to tell
    inception.fingerprint, inception.metric, inception.published = "abcdef0123456789", "FID", True
    both = replace(instruments, inception=inception, matcher=None)
    found = evaluate(judged(held, lambda images: 255 - images), held, both, repeats=0)
    assert found.find("FID").value != found.find("FD-scenes").value
    assert found.find("KID").value != found.find("kernel distance").value
    assert found.find("FID", REAL).value < found.find("FID").value
    assert "precision, Inception-v3 abcdef01" in {m.metric for m in found.measures}
    inception.width = 2048
    with pytest.raises(ValueError, match="160 drawn and 160 real pictures: FID needs more than"):
        evaluate(judged(held), held, both)
    with pytest.raises(ValueError, match="--samples"):
        check_samples(160, held)


def test_pictures_called_real_do_not_take_the_place_of_real_ones(held, instruments):
    named = replace(judged(held, blur), name=REAL)
    found = evaluate(named, held, replace(instruments, matcher=None), repeats=0)
    assert list(found.table().columns) == ["real (judged)", REAL, SHUFFLED]
    assert found.find("FD-scenes").value > found.find("FD-scenes", REAL).value


def test_clip_score_stands_beside_that_of_real_pictures_and_of_false_captions(held, tiny_clip):
    clip = ClipNetwork(tiny_clip, device="cpu")
    pictures = judged(held, blur, samples=400)  # several captions of an image
    found = evaluate(pictures, held, Instruments(clip=clip), repeats=20)
    text = clip.embed_captions(held.captions(pictures.caption_rows))
    images = held.images_of(pictures.caption_rows)
    real = clip.embed_images(held.packed.images[images])
    drawn = clip.embed_images(pictures.images)
    assert found.find("CLIP score").value == pytest.approx(clip_score(drawn, text).value, rel=1e-6)
    assert found.find("CLIP score", REAL).value == pytest.approx(
        clip_score(real, text).value, rel=1e-6
    )
    assert found.find("CLIP score", SHUFFLED).value != found.find("CLIP score").value
    for judged_set in ("drawn", REAL, SHUFFLED):
        estimate = found.find("CLIP score", judged_set)
        assert estimate.samples == 400 and estimate.interval[0] < estimate.interval[1]
    again = evaluate(pictures, held, Instruments(clip=clip), repeats=20)  # with a warm cache
    assert again.find("CLIP score", REAL) == found.find("CLIP score", REAL)
    row = {row.id: row for row in found.rows("s", "c")}["s-drawn-clip-score-val-n400"]
    assert row.extractor == f"CLIP tiny-clip ({clip.fingerprint})" and row.samples == 400
    assert "100 max(cos, 0)" in row.metric
    cut = clip.count_cut(held.captions(pictures.caption_rows))
    assert (cut > 0) == any(f"{cut} captions are cut at 77 tokens" in n for n in found.notes)


def test_on_photos_the_result_says_what_the_distances_are_to(
    folder, instruments, as_photos, tmp_path
):
    held = open_held_out(as_photos(folder, tmp_path / "photos"))
    found = evaluate(judged(held, blur), held, replace(instruments, matcher=None), repeats=0)
    assert found.notes == (
        "Frechet distance to 160 real pictures of val; all at 64 pixels",
        "Frechet distance, column real: 80 pictures of train, seed 1",
    )
    assert "\nnote: Frechet distance to 160 real pictures" in str(found)
    few = held.image_rows[:4]  # fewer than features: the training pictures stand in
    found = evaluate(
        judged(held, samples=100), replace(held, image_rows=few),
        replace(instruments, matcher=None), repeats=0,
    )  # fmt: skip
    assert "to 80 real pictures of train, as 4 of val are too few for it;" in found.notes[0]


def test_a_fid_of_few_samples_says_that_it_is_not_that_of_papers(folder, as_photos, tmp_path):
    photos = as_photos(folder, tmp_path / "photos")
    torch.manual_seed(1)
    inception = SceneFeatures(8).eval()  # in Inception's place, with what it has to tell
    inception.fingerprint, inception.metric, inception.published = "abcdef0123456789", "FID", True
    held = open_held_out(photos)
    found = evaluate(judged(held, blur), held, Instruments(inception=inception), repeats=0)
    note = "FID of N=160 samples; papers use 30,000 of val2014: not comparable"
    assert note in found.notes and f"note: {note}" in str(found)
    inception.published, inception.metric = False, "Frechet distance, Inception-v3 abcdef01"
    found = evaluate(judged(held, blur), held, Instruments(inception=inception), repeats=0)
    assert not any("papers" in note for note in found.notes)  # it is called no FID


def test_scenes_get_no_notes(blurred):
    assert blurred.notes == ()
