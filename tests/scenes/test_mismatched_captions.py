import random

import numpy as np
import pytest
import torch

from t2i_course import data
from t2i_course.processes import TrainingBatch
from t2i_course.scenes import caption_reader, drawing
from t2i_course.scenes.mismatched_captions import (
    MismatchedCaptions,
    contradicting_captions,
    like_worded_pair,
    photos_truth,
    scenes_truth,
)
from t2i_course.text_cache import EmbeddedCaptions


@pytest.fixture(scope="module")
def packed(small_scenes):
    return data.pack(small_scenes, "train", 64, progress=False)


def batch_of(packed, rows):
    rows = torch.tensor(rows)
    captions = torch.from_numpy(packed.caption_starts)[rows]
    return TrainingBatch(
        images=torch.zeros(len(rows), 3, 64, 64),
        captions=[packed.all_captions[i] for i in captions],
        caption_rows=captions,
        image_rows=rows,
        text=torch.zeros(len(rows), 4),
        noise=None,
        step=1,
    )


def test_contradicting_captions_are_false_of_their_pictures(small_scenes, packed):
    scenes = drawing.read_instances(small_scenes, "train")
    texts = contradicting_captions(small_scenes, "train", packed)
    for text, entry in zip(texts, drawing.read_captions(small_scenes, "train"), strict=True):
        assert caption_reader.is_true(text, scenes[entry["image_id"]]) is False


def test_drawn_captions_are_false_of_their_pictures(small_scenes, packed):
    is_true = scenes_truth(small_scenes, "train", packed)
    assert all(is_true(5 * row + k, row) for row in range(len(packed)) for k in range(5))
    text = np.arange(len(packed.all_captions), dtype=np.float32)[:, None]  # a caption's row
    draw = MismatchedCaptions(packed, text, is_true)
    torch.manual_seed(0)
    batch = batch_of(packed, list(range(40)))
    rows = draw(batch)[0, :, 0].long().tolist()
    assert not any(is_true(row, image) for row, image in zip(rows, range(40), strict=True))
    torch.manual_seed(0)
    assert draw(batch)[0, :, 0].long().tolist() == rows
    assert draw(batch)[0, :, 0].long().tolist() != rows


def test_each_picture_gets_several_false_captions_and_contradictions_of_its_own(packed):
    rows = np.arange(len(packed.all_captions), dtype=np.float32)[:, None]  # what is contradicted
    text = np.zeros_like(rows)
    draw = MismatchedCaptions(packed, text, photos_truth(packed), rows, share=1.0, number=3)
    torch.manual_seed(0)
    drawn = draw(batch_of(packed, list(range(40))))[..., 0].long().numpy()
    assert drawn.shape == (3, 40)
    starts = packed.caption_starts
    assert ((starts[:40] <= drawn) & (drawn < starts[1:41])).all()
    assert len({*(drawn - starts[:40]).ravel().tolist()}) > 1  # of all the picture's captions


def test_words_come_with_the_sentences_of_the_same_captions(packed):
    """Caption n has n % 3 + 2 words, all of them, and its sentence, filled with n."""
    count = len(packed.all_captions)
    sizes = np.arange(count) % 3 + 2
    starts = np.cumsum([0, *sizes])
    words = np.repeat(np.arange(count, dtype=np.float32), sizes)[:, None]

    def embedded(shift):
        sentence = np.arange(count, dtype=np.float32)[:, None] + shift
        return EmbeddedCaptions(sentence, words + shift, starts, np.arange(count))

    draw = MismatchedCaptions(
        packed, embedded(0), photos_truth(packed), embedded(1000), share=0.5, number=3
    )
    torch.manual_seed(0)
    drawn = draw(batch_of(packed, list(range(40))))
    assert drawn.sentence.shape == (3, 40, 1) and drawn.words.shape[:2] == drawn.mask.shape[:2]
    numbers = drawn.sentence[..., 0].long()
    assert 0.3 < (numbers >= 1000).float().mean() < 0.7
    assert torch.equal(drawn.mask.sum(dim=2), numbers % 1000 % 3 + 2)
    own = torch.where(drawn.mask > 0, drawn.words[..., 0].long(), numbers[..., None])
    assert torch.equal(own, numbers[..., None].expand_as(own))


def test_captions_with_the_words_of_a_photos_own_are_true_of_it(packed):
    class Photos:
        all_captions = [
            "A dog runs.",
            "a caf\u00e9",
            "a dog, runs!",
            "A CAFE\u0301",
            "\U0001f426",
        ]
        caption_starts = np.array([0, 2, 3, 5])

    is_true = photos_truth(Photos())
    assert [[is_true(c, i) for c in range(5)] for i in range(3)] == [
        [True, True, True, True, False],
        [True, False, True, False, False],
        [False, True, False, True, True],
    ]


def test_captions_of_another_folder_are_refused(small_scenes, tmp_path, packed):
    other = drawing.make_scenes(tmp_path / "other", train=60, val=4, seed=1, test=4, progress=False)
    with pytest.raises(ValueError, match="pack the data again"):
        scenes_truth(other, "train", packed)


def test_pairs_differ_in_little_but_what_their_facts_differ_in(small_scenes):
    found = drawing.read_instances(small_scenes, "train")
    rng, lengths, places = random.Random(0), [], []
    for entry in drawing.read_captions(small_scenes, "train")[:200]:
        words = [c.split() for c in like_worded_pair(entry, found[entry["image_id"]], rng)]
        assert words[0] != words[1]
        lengths.append([len(caption) for caption in words])
        if lengths[-1][0] == lengths[-1][1]:
            places.append(sum(a != b for a, b in zip(*words, strict=True)))
    true, false = np.array(lengths, dtype=float).T
    assert abs((true - false).mean()) < 0.2 and len(places) > 150
    assert np.median(places) <= 2 and np.mean(places) < 3  # worded anew: 7 and more
