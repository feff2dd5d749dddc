"""The text encoder on a real BERT of two layers: masked mean, limits and errors."""

from __future__ import annotations

import shutil

import pytest
import torch

from t2i_course import text_encoder
from t2i_course.text_encoder import TextEncoder, masked_mean

SHORT = "a red circle"
LONG = "on a white background, at the top there is a large red star, at the bottom a small heart"


@pytest.fixture(scope="module")
def encoder(tiny_bert) -> TextEncoder:
    return TextEncoder(tiny_bert)


def test_masked_mean_is_the_mean_of_the_real_tokens():
    hidden = torch.arange(12.0).reshape(1, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0]])
    assert torch.equal(masked_mean(hidden, mask), torch.tensor([[1.5, 2.5, 3.5]]))
    with pytest.raises(ValueError, match="no token"):
        masked_mean(torch.ones(2, 3, 4), torch.tensor([[1, 1, 0], [0, 0, 0]]))


def test_same_caption_same_vector_in_any_batch(encoder):
    alone = encoder([SHORT]).sentence[0]
    padded = encoder([LONG, SHORT, LONG]).sentence[1]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=1e-5)


def test_cls_pooling_is_the_first_token(tiny_bert):
    features = TextEncoder(tiny_bert, pooling="cls")([SHORT, LONG])
    assert torch.equal(features.sentence, features.words[:, 0])
    with pytest.raises(ValueError, match="'max'"):
        TextEncoder(tiny_bert, pooling="max")


def test_shapes_and_mask(encoder):
    features = encoder([SHORT, LONG])
    length = features.mask.shape[1]
    assert features.words.shape == (2, length, 32) and encoder.width == 32
    assert features.mask.sum(dim=1).tolist() == [5, length]  # [CLS] a red circle [SEP]


def test_frozen_encoder_has_no_dropout_and_no_gradient(encoder):
    encoder.train()
    first, second = encoder([SHORT]).sentence, encoder([SHORT]).sentence
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())


def test_unfrozen_encoder_learns(tiny_bert):
    encoder = TextEncoder(tiny_bert, frozen=False)
    encoder([SHORT]).sentence.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_longer_captions_are_cut_at_the_limit(encoder):
    features = encoder(["red circle " * 100])
    assert features.mask.shape[1] == encoder.max_tokens == 48
    assert text_encoder.count_tokens(encoder, "red circle " * 100) == 202
    with pytest.warns(UserWarning, match="1 captions are longer than 48"):
        assert text_encoder.warn_if_cut(encoder, [SHORT, "red circle " * 100]) == 1


def test_words_outside_the_vocabulary_are_named(encoder):
    assert text_encoder.unknown_words(encoder, "a red circle") == []
    unknown = ["\U0001f388", "\u5706"]
    assert text_encoder.unknown_words(encoder, f"a red {' '.join(unknown)}") == unknown


def test_what_is_no_caption_is_an_error(encoder):
    for captions in ([], ["a star", "  \n"]):
        with pytest.raises(ValueError, match="caption"):
            encoder(captions)
    with pytest.raises(TypeError, match="caption 0 is a Tensor, no text: are images and captions"):
        encoder.tokenize(torch.zeros(2, 3, 64, 64))


def test_missing_and_broken_folders_are_named(tmp_path, tiny_bert):
    with pytest.raises(FileNotFoundError, match="no encoder folder"):
        TextEncoder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="config.json"):
        TextEncoder(tmp_path / "empty")
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="broken"):
        TextEncoder(broken)


def test_fingerprint_tells_weights_and_pooling_apart(tiny_bert, encoder):
    assert TextEncoder(tiny_bert).fingerprint == encoder.fingerprint
    assert TextEncoder(tiny_bert, pooling="cls").fingerprint != encoder.fingerprint
    other = TextEncoder(tiny_bert)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-3
    assert other.fingerprint != encoder.fingerprint
