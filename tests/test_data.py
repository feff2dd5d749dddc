from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pytest
import torch
from photo_folder import SIZE, photo
from PIL import Image

from t2i_course import data


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Transforms and collate


def test_transform_gives_a_square_in_minus_one_to_one():
    for image in (photo(640, 480, 1), photo(48, 200, 2), photo(10, 10, 3)):
        result = data.image_transform(64)(image)
        assert result.shape == (3, 64, 64)
        assert result.dtype == torch.float32
        assert -1 <= result.min() < result.max() <= 1


def test_transform_keeps_a_circle_round_and_takes_the_centre():
    y, x = np.mgrid[:480, :640]
    disc = np.hypot(y - 239.5, x - 319.5) < 150
    image = Image.fromarray(np.repeat(disc[..., None] * np.uint8(255), 3, axis=2))
    result = data.image_transform(64)(image)[0] > 0
    rows, columns = result.any(1).nonzero().flatten(), result.any(0).nonzero().flatten()
    for covered in (rows, columns):
        assert 39 <= len(covered) <= 41  # 300 of 480 pixels are 40 of 64
        assert abs(float(covered.float().mean()) - 31.5) <= 1


def test_downscaling_is_antialiased():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    result = data.image_transform(64)(Image.fromarray(stripes))
    assert result.abs().max() < 0.05  # grey, not a pattern of its own


def test_photo_stored_on_its_side_is_turned_upright():
    image = Image.new("RGB", (60, 40))
    image.paste((255, 255, 255), (0, 0, 30, 40))  # stored: white on the left
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, exif=exif)
    result = data.image_transform(16)(Image.open(file).convert("RGB"))
    assert result[:, :6].min() > 0.9  # shown: white above
    assert result[:, -6:].max() < -0.9


def test_bytes_and_floats_convert_both_ways():
    values = torch.arange(256, dtype=torch.uint8)
    floats = data.to_float(values)
    assert floats.dtype == torch.float32
    assert floats[0] == -1 and floats[-1] == 1
    assert torch.equal(data.to_uint8(floats), values)
    assert data.to_uint8(torch.tensor([-3.0, 1.5])).tolist() == [0, 255]
    kept = floats.clone()
    data.to_uint8(floats)
    assert torch.equal(floats, kept)


def test_collate_draws_a_caption_of_each_image_with_the_generator(coco_folder):
    dataset = data.load_split(coco_folder, "train", data.image_transform(SIZE))
    items = [dataset[index] for index in range(len(dataset))]
    assert {len(captions) for _, captions in items} == {5, 6}  # the default collate fails here
    images, captions = data.CaptionCollate(seeded(3))(items)
    assert images.shape == (len(items), 3, SIZE, SIZE)
    assert torch.equal(images[4], items[4][0])
    assert all(caption in group for caption, (_, group) in zip(captions, items, strict=True))
    assert captions == data.CaptionCollate(seeded(3))(items)[1]
    collate = data.CaptionCollate(seeded())
    drawn = {collate(items[:1])[1][0] for _ in range(100)}
    assert drawn == set(items[0][1])


def test_statistics_count_captions_and_words():
    captions = [["A dog runs.", "a dog"], ["The dog's ball, a ball"]]
    assert data.caption_statistics(captions, most_common=2) == {
        "images": 2,
        "captions": 3,
        "captions_per_image": {1: 1, 2: 1},
        "words_per_caption": {2: 1, 3: 1, 5: 1},
        "vocabulary": 6,
        "most_common_words": [("a", 3), ("ball", 2)],
    }


# A part of the packed cache


def test_part_holds_some_pictures_with_their_captions_and_rows_in_the_whole(packed):
    part = data.PackedPart(packed, [4, 1])
    assert len(part) == 2 and part.size == SIZE
    assert part.image_ids.tolist() == packed.image_ids[[4, 1]].tolist()
    for row, whole in enumerate((4, 1)):
        image, captions = part[row]
        assert torch.equal(image, packed[whole][0]) and captions == packed[whole][1]
    assert [packed.all_captions[row] for row in part.caption_rows] == part.all_captions
    assert part.caption_starts.tolist()[-1] == len(part.all_captions)
    assert data.PackedPart(packed, [1, 4]).key != part.key != packed.key
    batch = next(data.CaptionBatches(part, 2, seeded()))
    for image, row in zip(batch.images, batch.caption_rows, strict=True):
        whole = int(packed.images_of(part.caption_rows[row]))
        assert torch.equal(data.to_uint8(image), packed[whole][0])


def test_part_in_another_size_holds_the_mean_of_the_pixels(packed):
    part = data.PackedPart(packed, [0, 2], size=SIZE // 4)
    squares = packed.images[2].reshape(3, SIZE // 4, 4, SIZE // 4, 4).astype(float).mean((2, 4))
    assert part.images.dtype == np.uint8 and part.size == SIZE // 4
    assert np.abs(part.images[1] - squares).max() <= 0.5
    with pytest.raises(ValueError, match="choose a divisor"):
        data.PackedPart(packed, [0], size=SIZE - 1)


def test_part_keeps_the_captions_that_are_asked_for(packed):
    first = int(packed.caption_starts[3])
    part = data.PackedPart(packed, [3], captions=[first, 0])
    assert part.all_captions == [packed.all_captions[first]]
    assert part.caption_rows.tolist() == [first]
    with pytest.raises(ValueError, match="no caption left"):
        data.PackedPart(packed, [3, 4], captions=[first])
    with pytest.raises(ValueError, match="no picture"):
        data.PackedPart(packed, [])


# Batches


def take(batches: data.CaptionBatches, number: int) -> list[data.Batch]:
    return [next(batches) for _ in range(number)]


def same(first: data.Batch, second: data.Batch) -> bool:
    return (
        torch.equal(first.images, second.images)
        and first.captions == second.captions
        and torch.equal(first.caption_rows, second.caption_rows)
        and torch.equal(first.image_rows, second.image_rows)
    )


def test_batch_holds_the_pictures_and_captions_that_its_rows_say(packed):
    for batch in take(data.CaptionBatches(packed, 4, seeded()), 6):
        assert batch.images.shape == (4, 3, SIZE, SIZE)
        assert batch.images.dtype == torch.float32
        for image, caption, caption_row, row in zip(
            batch.images, batch.captions, batch.caption_rows, batch.image_rows, strict=True
        ):
            assert torch.equal(image, data.to_float(packed[int(row)][0]))
            assert caption == packed.all_captions[int(caption_row)]
            assert caption in packed.captions[int(row)]


@pytest.mark.parametrize("batch_size", [1, 4, 11, 35])
def test_every_image_is_seen_once_an_epoch_for_any_batch_size(packed, batch_size):
    number = len(packed)
    batches = take(data.CaptionBatches(packed, batch_size, seeded()), -(-3 * number // batch_size))
    rows = torch.cat([batch.image_rows for batch in batches]).tolist()
    epochs = [rows[start : start + number] for start in range(0, len(rows) - number + 1, number)]
    assert len(epochs) >= 3
    assert all(sorted(epoch) == list(range(number)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_captions_are_drawn_anew_each_epoch_and_all_alike_often(packed):
    batches = data.CaptionBatches(packed, len(packed), seeded())
    epochs = [dict(zip(b.image_rows.tolist(), b.captions, strict=True)) for b in take(batches, 600)]
    assert epochs[0] != epochs[1]
    drawn = Counter(caption for epoch in epochs for caption in epoch.values())
    assert set(drawn) == set(packed.all_captions)
    assert min(drawn[caption] for caption in packed.captions[0]) > 75  # of 120 expected


@pytest.mark.parametrize("stop", [0, 1, 4, 11, 12])
def test_resumed_batches_equal_continuous_ones(packed, stop):
    continuous = take(data.CaptionBatches(packed, 5, seeded(1)), 20)
    first = data.CaptionBatches(packed, 5, seeded(1))
    take(first, stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    assert json.loads(json.dumps(state)) == state
    resumed = data.CaptionBatches(packed, 5, seeded(99))
    resumed.load_state_dict(state)
    for expected, batch in zip(continuous[stop:], resumed, strict=False):
        assert same(expected, batch)


def test_batches_depend_on_the_seed_and_on_nothing_else_drawn(packed):
    generator = seeded(5)
    batches = data.CaptionBatches(packed, 4, generator)
    torch.rand(100, generator=generator)  # what a training step draws
    torch.rand(100)
    assert all(map(same, take(batches, 8), take(data.CaptionBatches(packed, 4, seeded(5)), 8)))
    other = take(data.CaptionBatches(packed, 4, seeded(6)), 8)
    assert not all(map(same, take(data.CaptionBatches(packed, 4, seeded(5)), 8), other))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batch_of_one_process(packed, world_size):
    whole = data.CaptionBatches(packed, 6, seeded())
    ranks = [data.CaptionBatches(packed, 6, seeded(), r, world_size) for r in range(world_size)]
    for _ in range(5):
        batch, parts = next(whole), [next(rank) for rank in ranks]
        assert {len(part.captions) for part in parts} == {6 // world_size}
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.caption_rows for part in parts]), batch.caption_rows)
        assert sum((part.captions for part in parts), []) == batch.captions


def test_state_of_other_data_is_refused(coco_folder, packed, tmp_path):
    state = data.CaptionBatches(packed, 4, seeded()).state_dict()
    val = data.pack(coco_folder, "val", SIZE, cache=tmp_path / "cache", progress=False)
    with pytest.raises(ValueError, match="belongs to other data"):
        data.CaptionBatches(val, 4, seeded()).load_state_dict(state)


def test_impossible_shares_are_errors(packed):
    with pytest.raises(ValueError, match="batch of 5 cannot be shared by 2"):
        data.CaptionBatches(packed, 5, seeded(), world_size=2)
    with pytest.raises(ValueError, match="batch of 0"):
        data.CaptionBatches(packed, 0, seeded())


# Mirrored photos


def test_half_of_the_photos_are_mirrored_anew_each_epoch_and_none_that_names_a_side(
    small_scenes, tmp_path
):
    packed = data.pack(small_scenes, "train", SIZE, tmp_path, progress=False)
    number = len(packed)
    plain = take(data.CaptionBatches(packed, number, seeded()), 6)
    flipped = take(data.CaptionBatches(packed, number, seeded(), flips=True), 6)
    mirrored, patterns = 0, set()
    for batch, before in zip(flipped, plain, strict=True):
        order = {row: k for k, row in enumerate(before.image_rows.tolist())}
        pattern = []
        for k, row in enumerate(batch.image_rows.tolist()):
            image, real = batch.images[k], before.images[order[row]]
            turned = not torch.equal(image, real)
            assert torch.equal(image, real.flip(2) if turned else real)
            if "left" in batch.captions[k] or "right" in batch.captions[k]:
                assert not turned
            pattern.append(turned)
        mirrored += sum(pattern)
        patterns.add(tuple(pattern))
    sided = sum("left" in c or "right" in c for batch in flipped for c in batch.captions)
    may = 6 * number - sided
    assert 0.3 * may < mirrored < 0.7 * may and sided and len(patterns) == 6
