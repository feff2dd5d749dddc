"""Features of captions on disk: in order, each encoded once, whole or not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2i_course.text_cache import embed_captions, embed_words
from t2i_course.text_encoder import TextEncoder

SHORT = "a red circle"
LONG = "on a white background, at the top there is a large red star, at the bottom a small heart"


@pytest.fixture(scope="module")
def encoder(tiny_bert) -> TextEncoder:
    return TextEncoder(tiny_bert)


def test_features_are_those_of_the_encoder_in_order_and_each_is_made_once(
    encoder, tmp_path, monkeypatch
):
    captions = [LONG, SHORT, "two blue stars", SHORT]
    alone = [encoder([caption]) for caption in captions]
    read = encoded(monkeypatch)
    features = embed_captions(encoder, captions, tmp_path, progress=False)
    words = embed_words(encoder, captions, tmp_path, progress=False)
    assert sorted(read) == sorted(2 * list(set(captions)))
    assert (features.shape, features.dtype, words.shape) == ((4, 32), np.float32, (4, 32))
    for row, one in enumerate(alone):
        np.testing.assert_allclose(features[row], one.sentence[0].numpy(), atol=1e-5)
        found, length = words[row : row + 1], one.words.shape[1]
        np.testing.assert_allclose(found.sentence, one.sentence, atol=1e-5)
        np.testing.assert_allclose(found.words[:, :length], one.words, atol=2e-3)
        assert found.mask.sum() == length


def test_cache_is_read_and_not_made_again(encoder, tmp_path):
    embed_captions(encoder, [SHORT, LONG], tmp_path, progress=False)
    (path,) = tmp_path.glob("*.npy")
    marked = np.load(path)
    marked[0] = 7
    np.save(path, marked)
    assert (embed_captions(encoder, [SHORT, LONG], tmp_path, progress=False)[0] == 7).all()
    other = embed_captions(encoder, [LONG, SHORT], tmp_path, progress=False)
    assert not (other == 7).any()


def test_cache_of_another_encoder_is_not_used(tiny_bert, encoder, tmp_path):
    mean = embed_captions(encoder, [LONG], tmp_path, progress=False)
    cls = embed_captions(TextEncoder(tiny_bert, "cls"), [LONG], tmp_path, progress=False)
    assert not np.allclose(mean, cls)
    with pytest.raises(ValueError, match="frozen"):
        embed_captions(TextEncoder(tiny_bert, frozen=False), [LONG], tmp_path)


def encoded(monkeypatch) -> list[str]:
    """All captions that an encoder reads from now on."""
    read, forward = [], TextEncoder.forward

    def count(self, captions):
        read.extend(captions)
        return forward(self, captions)

    monkeypatch.setattr(TextEncoder, "forward", count)
    return read


def test_an_empty_caption_is_named_by_its_row_before_any_work(encoder, tmp_path):
    with pytest.raises(ValueError, match="caption 2 is empty"):
        embed_captions(encoder, [SHORT, SHORT, "", LONG], tmp_path, progress=False)
    assert list(tmp_path.glob("*.npy")) == []


def test_half_precision_is_kept_beside_the_other_where_features_fit_into_it(tiny_bert, tmp_path):
    large, captions = TextEncoder(tiny_bert), [LONG, SHORT, "two blue stars", SHORT]
    whole = embed_captions(large, captions, tmp_path, progress=False)
    half = embed_captions(large, captions, tmp_path, progress=False, dtype="float16")
    assert half.dtype == np.float16 and np.array_equal(half, whole.astype(np.float16))
    assert len(list(tmp_path.glob("*.npy"))) == 2
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        embed_captions(large, captions, tmp_path, dtype="int8")
    with torch.no_grad():
        large.bert.encoder.layer[-1].output.LayerNorm.bias.fill_(1e5)
    with pytest.raises(ValueError, match="above 65,504: keep them as float32"):
        embed_captions(large, [SHORT], tmp_path, progress=False, dtype="float16")
    assert len(list(tmp_path.glob("*.npy"))) == 2
