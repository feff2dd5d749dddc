"""Pre-training: masking, the contrastive loss, and a short run from nothing to a saved encoder."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from t2i_course.photos.coco_folder import find_split
from t2i_course.scenes import pretraining
from t2i_course.text_encoder import TextEncoder


def test_fifteen_percent_are_hidden_and_eighty_percent_of_them_masked():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, 1000, (400, 100), generator=generator)
    maskable = torch.ones_like(tokens, dtype=torch.bool)
    maskable[:, 0] = False
    inputs, labels = pretraining.mask_words(tokens, maskable, 4, 1000, generator)
    hidden = labels != pretraining.IGNORED
    assert hidden[:, 1:].float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert not hidden[:, 0].any()
    assert (inputs[hidden] == 4).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (inputs[hidden] == tokens[hidden]).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(inputs[~hidden], tokens[~hidden])
    assert torch.equal(labels[hidden], tokens[hidden])


def test_contrastive_loss_is_the_log_of_the_choices_and_zero_for_a_perfect_match():
    ones, own, features = torch.ones(4, 8), torch.eye(4).bool(), torch.eye(4, 8)
    loss = pretraining.contrastive_loss(ones, ones, torch.ones(3, 8), own)
    assert loss.item() == pytest.approx(math.log(7), abs=1e-4)
    assert pretraining.contrastive_loss(features, features, -features, own) < 1e-6
    assert pretraining.contrastive_loss(features, features, features, own) > 0.5  # hard negatives
    same = torch.ones(4, 4, dtype=torch.bool)  # what says the same is no negative
    assert pretraining.contrastive_loss(ones, ones, -ones, same) < 1e-6


def coco_captions(path, captions):
    entries = [{"id": k, "image_id": k // 2, "caption": text} for k, text in enumerate(captions)]
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(len(captions))]
    path.write_text(json.dumps({"images": images, "annotations": entries}), encoding="utf-8")
    return path


def test_captions_of_one_image_stay_together(tmp_path):
    file = coco_captions(tmp_path / "captions.json", ["a dog", " a  brown dog ", "a cat", ""])
    assert pretraining.read_captions([file]) == [["a dog", "a brown dog"], ["a cat"]]


def test_a_file_that_holds_no_captions_is_named(tmp_path):
    (tmp_path / "bad.json").write_text('{"annotations": [{"image_id": 1}]}', encoding="utf-8")
    with pytest.raises(ValueError, match="bad.json"):
        pretraining.read_captions([tmp_path / "bad.json"])
    with pytest.raises(FileNotFoundError, match="absent.json"):
        pretraining.read_captions([tmp_path / "absent.json"])


def test_a_short_run_learns_and_saves_an_encoder_that_loads(tmp_path):
    dogs = ["a dog runs on the grass", "a brown dog in a field", "a man on a surf board", "a wave"]
    file = coco_captions(tmp_path / "captions.json", dogs * 5)
    output = tmp_path / "encoder"
    folder = pretraining.pretrain([file], output, 12, 6, 4, batch_size=12, progress=False)
    assert folder == output
    card = json.loads((output / "card.json").read_text("utf-8"))
    assert card["steps"] == {"masked words": 12, "contrastive": 6, "reading": 4}
    assert "CC BY 4.0" in card["credit"]
    assert 0 < card["losses"]["masked words"] < 9
    encoder = TextEncoder(output)
    assert encoder(["a red circle", "a dog runs"]).sentence.shape == (2, 256)
    first = TextEncoder(tmp_path / "encoder-masked-words")
    assert first.fingerprint != encoder.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "captions.json",
        "encoder",
        "encoder-contrastive",
        "encoder-masked-words",
    ]
    with pytest.raises(FileExistsError, match="encoder"):
        pretraining.pretrain([file], output, 1, 1, 1, progress=False)


def test_own_captions_are_learnt_without_those_that_are_held_out(photos, tmp_path):
    for file in (photos / "annotations").glob("*_val.json"):
        file.unlink()
    shutil.rmtree(photos / "val")  # a folder with train alone is divided
    output = tmp_path / "own"
    pretraining.pretrain([], output, 2, 2, 0, batch_size=4, folder=photos, progress=False)
    train = find_split(photos, "train")
    assert 0 < len(train.image_ids) < 60
    said = f"{5 * len(train.image_ids)} captions of {len(train.image_ids)} images"
    card = json.loads((output / "card.json").read_text("utf-8"))
    assert card["data"] == said and card["credit"] == "none needed"
    assert TextEncoder(output)(["a red circle"]).sentence.shape == (1, 256)
