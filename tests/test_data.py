from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import CocoCaptions

from t2i_course import data, listed_captions

SIZE = 32
WORDS = "a red bus and two people wait near the old station in rain".split()


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours with edges, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_photo(path: Path, kind: str, seed: int) -> None:
    """Write a real JPEG: of some size, grey, CMYK, or stored lying on its side."""
    shapes = {"wide": (640, 480), "tall": (213, 320), "tiny": (20, 28), "odd": (101, 67)}
    image = photo(*shapes.get(kind, (160, 120)), seed)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise
        image.save(path, quality=90, exif=exif)
    elif kind == "bad exif":
        image.save(path, quality=90, exif=b"Exif\0\0no such thing")
    else:
        mode = {"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        image.convert(mode).save(path, quality=90)


KINDS = [
    "wide",
    "tall",
    "gray",
    "cmyk",
    "turned",
    "tiny",
    "odd",
    "bad exif",
    "wide",
    "plain",
    "gray",
]


def make_split(folder: Path, name: str, kinds: list[str], first_id: int) -> None:
    """Write one split in COCO's layout; its ids do not rise with the order of its list."""
    (folder / name).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(first_id)
    images, annotations = [], []
    for number, kind in enumerate(kinds):
        image_id = first_id + 7 * (-number % len(kinds))
        file_name = f"{image_id:012d}.jpg"
        write_photo(folder / name / file_name, kind, image_id)
        images.append({"id": image_id, "file_name": file_name, "license": 1})
        for _ in range(6 if number == 2 else 5):
            caption = f"{' '.join(rng.choice(WORDS, 6))} {len(annotations)}"
            entry = {"id": 10_000 + len(annotations), "image_id": image_id, "caption": caption}
            annotations.append(entry)
    rng.shuffle(annotations)
    write_captions(folder, name, {"info": {}, "images": images, "annotations": annotations})


def read_captions(folder: Path, name: str = "train2017") -> dict:
    file = folder / "annotations" / f"captions_{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def write_captions(folder: Path, name: str, document: dict) -> None:
    text = json.dumps(document, ensure_ascii=False)
    (folder / "annotations" / f"captions_{name}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """A small folder in COCO's own layout, with JPEGs of mixed sizes and colour modes."""
    folder = tmp_path / "coco"
    make_split(folder, "train2017", KINDS, first_id=100)
    make_split(folder, "val2017", ["plain", "gray", "tall"], first_id=500)
    return folder


@pytest.fixture
def packed(coco_folder: Path, tmp_path: Path) -> data.PackedCaptions:
    return data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def files_of(key: str) -> list[str]:
    """All that a whole cache consists of."""
    return [f"{key}.{name}" for name in ("captions.npy", "json", "npy", "offsets.npy")]


def cache_files(cache: Path) -> list[str]:
    """What a killed or failed process could have left, hidden files too; locks do not count."""
    return sorted(file.name for file in cache.iterdir() if file.suffix != ".lock")


# The folder


def test_coco_names_and_short_names_are_found(coco_folder, tmp_path):
    assert data.find_split(coco_folder, "train").name == "train2017"
    assert data.find_split(coco_folder, "val").name == "val2017"
    make_split(tmp_path / "other", "train", ["plain"], 1)
    make_split(tmp_path / "other", "dev", ["plain"], 1)
    assert data.find_split(tmp_path / "other", "train").image_ids is None
    assert data.find_split(tmp_path / "other", "val").name == "dev"
    assert data.resolve_data(coco_folder) == coco_folder


def test_single_split_is_divided_without_overlap_and_always_alike(tmp_path):
    make_split(tmp_path, "val2017", ["tiny"] * 30, 1)
    train, val = (data.find_split(tmp_path, split).image_ids for split in ("train", "val"))
    listed = {image["id"] for image in read_captions(tmp_path, "val2017")["images"]}
    assert set(train) | set(val) == listed
    assert not set(train) & set(val)
    assert len(val) == 3
    assert data.find_split(tmp_path, "val").image_ids == val
    assert data.load_split(tmp_path, "val").ids == list(val)
    assert data.load_split(tmp_path, "train").ids == list(train)


def test_split_is_a_coco_captions_data_set_and_prints_nothing(coco_folder, capsys):
    dataset = data.load_split(coco_folder, "train")
    assert isinstance(dataset, CocoCaptions)
    assert capsys.readouterr() == ("", "")
    document = read_captions(coco_folder)
    texts = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        texts[annotation["image_id"]].append(annotation["caption"])
    assert dataset.ids == sorted(texts)
    for index, image_id in enumerate(dataset.ids):
        image, captions = dataset[index]
        assert image.mode == "RGB"
        assert captions == texts[image_id]


def test_captions_keep_letters_beyond_ascii(coco_folder):
    document = read_captions(coco_folder)
    document["annotations"][0]["caption"] = "un chat près d'une fenêtre, 猫 \N{CAT FACE}"
    write_captions(coco_folder, "train2017", document)
    dataset = data.load_split(coco_folder, "train")
    assert "un chat près d'une fenêtre, 猫 \N{CAT FACE}" in [
        caption for index in range(len(dataset)) for caption in dataset[index][1]
    ]


def test_caption_file_with_categories_is_read(coco_folder):
    document = read_captions(coco_folder) | {"categories": [{"id": 1, "name": "bus"}]}
    write_captions(coco_folder, "train2017", document)
    assert len(data.load_split(coco_folder, "train")) == len(KINDS)


def test_instances_are_read_without_printing(coco_folder, capsys):
    image_id = read_captions(coco_folder)["images"][0]["id"]
    box = {"id": 1, "image_id": image_id, "category_id": 3, "bbox": [1, 2, 3, 4]}
    document = read_captions(coco_folder) | {"annotations": [box]}
    document["categories"] = [{"id": 3, "name": "bus"}]
    file = coco_folder / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    coco = data.instances(coco_folder, "train")
    assert coco.loadAnns(coco.getAnnIds(imgIds=image_id, catIds=3)) == [box]
    assert capsys.readouterr() == ("", "")
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json is missing"):
        data.instances(coco_folder, "val")


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


def test_collate_works_in_a_data_loader(coco_folder):
    dataset = data.load_split(coco_folder, "train", data.image_transform(SIZE))
    loader = DataLoader(dataset, batch_size=4, collate_fn=data.CaptionCollate(seeded()))
    assert [len(captions) for _, captions in loader] == [4, 4, 3]


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


# The packed cache


def test_packed_pictures_equal_the_plain_transform(coco_folder, packed):
    dataset = data.load_split(coco_folder, "train", data.image_transform(SIZE))
    assert packed.images.dtype == np.uint8
    assert packed.images.shape == (len(dataset), 3, SIZE, SIZE)
    assert packed.image_ids.tolist() == dataset.ids
    for index, (image, captions) in enumerate(dataset):
        pixels, kept = packed[index]
        assert torch.equal(pixels, data.to_uint8(image))
        assert torch.allclose(data.to_float(pixels), image, atol=1e-6)
        assert kept == captions
        start, stop = packed.caption_starts[index : index + 2]
        assert packed.all_captions[start:stop] == captions
        if index + 1 == len(dataset):
            break


def test_second_call_decodes_nothing(coco_folder, packed, tmp_path):
    for path in (coco_folder / "train2017").iterdir():
        status = path.stat()
        path.write_bytes(bytes(status.st_size))  # no picture any more, but the same size and time
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)
    assert again.key == packed.key
    assert np.array_equal(again.images, packed.images)


def test_changed_data_split_or_size_gets_another_cache(coco_folder, packed, tmp_path):
    def pack(split: str = "train", size: int = SIZE) -> data.PackedCaptions:
        return data.pack(coco_folder, split, size, cache=tmp_path / "cache", progress=False)

    keys = {packed.key, pack(size=16).key, pack("val").key}
    document = read_captions(coco_folder)
    document["annotations"][0]["caption"] = "another caption"
    write_captions(coco_folder, "train2017", document)
    changed = pack()
    assert "another caption" in changed.all_captions
    keys.add(changed.key)
    name = document["images"][0]["file_name"]
    write_photo(coco_folder / "train2017" / name, "odd", seed=99)
    other = pack()
    assert not np.array_equal(other.images, packed.images)
    keys.add(other.key)
    assert len(keys) == 5


def test_cut_cache_is_made_again(coco_folder, packed, tmp_path):
    pixels = np.array(packed.images)
    file = tmp_path / "cache" / f"{packed.key}.npy"
    del packed.images, packed.captions, packed.all_captions  # Windows holds a mapped file
    file.write_bytes(file.read_bytes()[:-1])
    again = data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)
    assert np.array_equal(again.images, pixels)


def test_packed_data_travels_to_another_process_as_a_path(packed):
    travelled = pickle.dumps(packed)
    assert len(travelled) < 1000
    assert np.array_equal(pickle.loads(travelled).images, packed.images)


def test_part_holds_some_pictures_with_their_captions_and_rows_in_the_whole(packed):
    part = data.PackedPart(packed, [4, 1])
    assert len(part) == 2 and part.size == SIZE
    assert part.image_ids.tolist() == packed.image_ids[[4, 1]].tolist()
    for row, whole in enumerate((4, 1)):
        image, captions = part[row]
        assert torch.equal(image, packed[whole][0]) and captions == packed[whole][1]
    assert [packed.all_captions[row] for row in part.caption_rows] == part.all_captions
    assert part.caption_starts.tolist()[-1] == len(part.all_captions)
    again = pickle.loads(pickle.dumps(part))
    assert np.array_equal(again.images, part.images) and again.key == part.key
    assert data.PackedPart(packed, [1, 4]).key != part.key != packed.key


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


def test_part_gives_batches_like_the_whole(packed):
    part = data.PackedPart(packed, [5, 2, 0])
    batch = next(iter(data.CaptionBatches(part, 3, torch.Generator().manual_seed(0))))
    for image, row in zip(batch.images, batch.caption_rows.tolist(), strict=True):
        whole = np.searchsorted(packed.caption_starts, part.caption_rows[row], side="right") - 1
        assert torch.equal(data.to_uint8(image), torch.from_numpy(np.array(packed.images[whole])))


def pack_in_process(folder: Path, cache: Path, barrier, results) -> None:
    barrier.wait()
    packed = data.pack(folder, "train", SIZE, cache=cache, progress=False)
    number = os.stat(cache / f"{packed.key}.npy").st_ino
    results.put((packed.key, number, packed.images.tobytes(), packed.all_captions))


def test_two_processes_at_once_make_one_cache(tmp_path):
    folder = tmp_path / "coco"
    make_split(folder, "train2017", ["wide"] * 30, 1)
    make_split(folder, "val2017", ["tiny"], 1)
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2, timeout=60), spawn.Queue()
    arguments = (folder, tmp_path / "cache", barrier, results)
    other = spawn.Process(target=pack_in_process, args=arguments)
    other.start()
    pack_in_process(*arguments)
    first, second = results.get(timeout=60), results.get(timeout=60)
    other.join()
    assert first == second  # the inode, too: the second one did not write its own
    assert cache_files(tmp_path / "cache") == files_of(first[0])
    packed = data.pack(folder, "train", SIZE, cache=tmp_path / "cache", progress=False)
    assert packed.images.tobytes() == first[2]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_process_leaves_nothing_that_passes_for_whole(tmp_path):
    folder, cache = tmp_path / "coco", tmp_path / "cache"
    make_split(folder, "train2017", ["tiny"] * 24, 1)
    make_split(folder, "val2017", ["tiny"], 1)
    large = io.BytesIO()
    photo(3000, 2000, 0).save(large, "JPEG", quality=80)
    for path in (folder / "train2017").iterdir():  # so large that packing takes a second
        path.write_bytes(large.getvalue())
    code = (
        "import sys; from t2i_course import data; data.pack(sys.argv[1], 'train', 64, sys.argv[2])"
    )
    command = [sys.executable, "-c", code, folder, cache]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not any(file.stat().st_size > 50_000 for file in cache.glob(".*.npy")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    left = cache_files(cache)
    assert left and all(name.startswith(".") for name in left)  # temporary names only

    packed = data.pack(folder, "train", 64, cache, progress=False)
    assert len(packed) == 24
    assert np.array_equal(packed.images[0], packed.images[23])
    assert cache_files(cache) == files_of(packed.key)


LARGE = 24  # pictures
PACK_SLOWLY = """
import signal, sys, time
from t2i_course import data, packed_cache
from t2i_course.growing_array import GrowingArray

signal.signal(signal.SIGINT, signal.default_int_handler)  # none in a script's background
mark = GrowingArray.mark

def mark_and_wait(array, position, *state):
    mark(array, position, *state)
    if position >= 16:  # for the signal, on however busy a machine
        time.sleep(60)

GrowingArray.mark = mark_and_wait
packed_cache.JOURNAL_EVERY = 4
data.pack(sys.argv[1], "train", 64, sys.argv[2], on_bad_image=sys.argv[3])
"""


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """Large JPEGs, each another one; the third cannot be decoded."""
    folder = tmp_path / "coco"
    make_split(folder, "train2017", ["tiny"] * LARGE, 1)
    make_split(folder, "val2017", ["tiny"], 1)
    for number, path in enumerate(sorted((folder / "train2017").iterdir())):
        photo(3000, 2000, number).save(path, quality=80)
        if number == 2:
            path.write_bytes(path.read_bytes()[:-5000])
    return folder


def stop_packing(folder: Path, cache: Path, number: int, on_bad_image: str = "skip") -> dict:
    """Pack in a process, send it the signal after some pictures; return its journal."""
    command = [sys.executable, "-c", PACK_SLOWLY, folder, cache, on_bad_image]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not any(journal_position(file) >= 8 for file in cache.glob(".*.journal.json")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait() == -number
    (journal,) = cache.glob(".*.journal.json")
    return json.loads(journal.read_text())


def journal_position(file: Path) -> int:
    try:
        return json.loads(file.read_text())["position"]
    except FileNotFoundError:  # it has been replaced or removed meanwhile
        return 0


def counted_decodes(monkeypatch) -> list[str]:
    """Names of the pictures that are decoded from now on."""
    names, decode = [], listed_captions.decode_picture

    def count(file, name):
        names.append(Path(name).name)
        return decode(file, name)

    monkeypatch.setattr(listed_captions, "decode_picture", count)
    return names


def contents(cache: Path) -> dict[str, bytes]:
    return {name: (cache / name).read_bytes() for name in cache_files(cache)}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.filterwarnings("ignore:1 of 24 images left out")
def test_stopped_packing_goes_on_and_gives_the_same_bytes(
    large_folder, tmp_path, monkeypatch, number
):
    cache = tmp_path / "cache"
    done = stop_packing(large_folder, cache, number)["position"]
    assert 8 <= done < LARGE
    assert all(name.startswith(".") for name in cache_files(cache))  # temporary names only

    decoded = counted_decodes(monkeypatch)
    options = {"progress": False, "on_bad_image": "skip"}
    resumed = data.pack(large_folder, "train", 64, cache, **options)
    names = sorted(path.name for path in (large_folder / "train2017").iterdir())
    assert sorted(decoded) == names[done:]  # and none before
    assert resumed.skipped == [names[2]] and len(resumed) == LARGE - 1
    data.pack(large_folder, "train", 64, tmp_path / "other", **options)
    assert len(decoded) == LARGE - done + LARGE
    assert contents(cache) == contents(tmp_path / "other")
    assert cache_files(cache) == files_of(resumed.key)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_part_packed_with_skip_is_no_way_around_raise(large_folder, tmp_path):
    stop_packing(large_folder, tmp_path / "cache", signal.SIGKILL)
    with pytest.raises(ValueError, match=r"\.jpg cannot be read"):
        data.pack(large_folder, "train", 64, tmp_path / "cache", progress=False)
    assert cache_files(tmp_path / "cache") == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.filterwarnings("ignore:1 of 24 images left out")
def test_part_that_was_damaged_meanwhile_is_packed_anew(large_folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    stop_packing(large_folder, cache, signal.SIGKILL)
    (part,) = cache.glob(".*.part.npy")
    with open(part, "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    decoded = counted_decodes(monkeypatch)
    options = {"progress": False, "on_bad_image": "skip"}
    data.pack(large_folder, "train", 64, cache, **options)
    assert len(decoded) == LARGE
    data.pack(large_folder, "train", 64, tmp_path / "other", **options)
    assert contents(cache) == contents(tmp_path / "other")


def test_cache_of_an_older_form_is_made_anew(coco_folder, packed, tmp_path):
    path, pixels = packed.path, np.array(packed.images)
    card = {"size": SIZE, "image_ids": packed.image_ids.tolist(), "problems": {}}
    card["captions"] = list(packed.captions)  # as version 1 had it
    del packed.images, packed.captions, packed.all_captions
    Path(f"{path}.json").write_text(json.dumps(card))
    for name in ("captions.npy", "offsets.npy"):
        Path(f"{path}.{name}").unlink()
    with pytest.raises(ValueError, match="of another version"):
        data.PackedCaptions(path)
    again = data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)
    assert again.path == path  # runs and features that name it are still good
    assert np.array_equal(again.images, pixels)
    assert again.captions == card["captions"]


def test_packed_captions_are_the_annotations_letter_for_letter(coco_folder, tmp_path):
    document = read_captions(coco_folder)
    for number, annotation in enumerate(document["annotations"]):
        annotation["caption"] = f"{number} \N{CAT FACE} 猫 près\n d'ici "
    write_captions(coco_folder, "train2017", document)
    packed = data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)
    groups = [captions for _, captions in data.load_split(coco_folder, "train")]
    assert packed.captions == groups and packed.captions[3:7] == groups[3:7]
    assert packed.all_captions == [caption for group in groups for caption in group]
    assert packed.captions[-1] == groups[-1]
    with pytest.raises(IndexError):
        packed.captions[len(groups)]


def test_opening_a_cache_reads_neither_pixels_nor_captions(packed):
    assert isinstance(packed.images, np.memmap)
    assert isinstance(packed.all_captions._bytes.base, np.memmap)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot limit the size of a process's files")
@pytest.mark.parametrize("limit", [100, 20_000])
def test_failed_write_gives_one_error_and_leaves_nothing(coco_folder, tmp_path, limit):
    import resource

    cache = tmp_path / "cache"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="cache cannot be written.*free some space") as caught:
            data.pack(coco_folder, "train", SIZE, cache=cache, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(cache) in str(caught.value)
    assert cache_files(cache) == []
    assert len(data.pack(coco_folder, "train", SIZE, cache=cache, progress=False)) == len(KINDS)


def test_too_little_space_is_told_before_any_work(coco_folder, tmp_path):
    with pytest.raises(OSError, match="more than the disk has left"):
        data.pack(coco_folder, "train", 1_000_000, cache=tmp_path / "cache", progress=False)
    assert cache_files(tmp_path / "cache") == []


def test_cache_path_that_is_a_file_is_an_error(coco_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose another place"):
        data.pack(coco_folder, "train", SIZE, cache=tmp_path / "file", progress=False)


# Bad input


def image_path(folder: Path, index: int = 0) -> Path:
    return folder / "train2017" / read_captions(folder)["images"][index]["file_name"]


def cut_short(folder: Path) -> None:
    path = image_path(folder)
    path.write_bytes(path.read_bytes()[:-600])


def cut_in_header(folder: Path) -> None:
    path = image_path(folder)
    path.write_bytes(path.read_bytes()[:15])


def remove_image(folder: Path) -> None:
    image_path(folder).unlink()


def edit(**changes):
    """Change the first image ("file_name", "id") or the first caption in the annotation file."""

    def change(folder: Path) -> None:
        document = read_captions(folder)
        for name, value in changes.items():
            document["images" if name in ("file_name", "id") else "annotations"][0][name] = value
        write_captions(folder, "train2017", document)

    return change


def remove_captions(folder: Path) -> None:
    document = read_captions(folder)
    gone = document["images"][0]["id"]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != gone]
    write_captions(folder, "train2017", document)


def make_instances_file(folder: Path) -> None:
    document = read_captions(folder)
    for annotation in document["annotations"]:
        del annotation["caption"]
        annotation["bbox"] = [0, 0, 1, 1]
    write_captions(folder, "train2017", document)


def repeat_entry(name: str):
    def change(folder: Path) -> None:
        document = read_captions(folder)
        document[name].append(document[name][0])
        write_captions(folder, "train2017", document)

    return change


def write_annotations(content: bytes):
    def change(folder: Path) -> None:
        (folder / "annotations" / "captions_train2017.json").write_bytes(content)

    return change


FAULTY_IMAGES = {
    "JPEG cut short": (cut_short, ValueError, r"000100\.jpg cannot be read \(image file is trunc"),
    "JPEG cut in its header": (cut_in_header, ValueError, r"000100\.jpg cannot be read"),
    "image missing": (remove_image, FileNotFoundError, r"000100\.jpg is missing"),
    "image without caption": (remove_captions, ValueError, r"000100\.jpg has no caption"),
}
FAULTY_FILES = {
    "empty caption": (edit(caption=" \n"), ValueError, r"\d\.jpg has an empty caption in .*\.json"),
    "not JSON": (write_annotations(b"{'images': []}"), ValueError, "is not JSON"),
    "JSON cut short": (write_annotations(b'{"images": [{"id": 1'), ValueError, "cut short"),
    "not text": (write_annotations(b"\xff\xd8\xff\xe0\0\0"), ValueError, "is not JSON"),
    "a list": (write_annotations(b"[]"), ValueError, 'no list "images"'),
    "no images": (write_annotations(b'{"images": []}'), ValueError, 'no list "images"'),
    "instances file": (make_instances_file, ValueError, "holds no captions: .*bbox.*instances"),
    "caption of no image": (edit(image_id=424242), ValueError, "image 424242, which .* not list"),
    "caption is a number": (edit(caption=3), ValueError, "needs a text and an id"),
    "id is a text": (edit(id="100"), ValueError, "whole number id"),
    "path out of the folder": (edit(file_name="../x.jpg"), ValueError, r"\.\./x\.jpg' leads out"),
    "Windows path": (edit(file_name="C:\\x.jpg"), ValueError, "leads out of the picture folder"),
    "image listed twice": (repeat_entry("images"), ValueError, "two images have the id 100"),
    "caption listed twice": (repeat_entry("annotations"), ValueError, r"two captions have the id"),
}


@pytest.mark.parametrize("fault", [*FAULTY_IMAGES, *FAULTY_FILES])
def test_fault_is_named_and_nothing_is_left(coco_folder, tmp_path, fault):
    damage, error, message = (FAULTY_IMAGES | FAULTY_FILES)[fault]
    damage(coco_folder)
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(error, match=message) as caught:
        data.pack(coco_folder, "train", SIZE, cache=cache, progress=False)
    assert str(coco_folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cache_files(cache) == []


@pytest.mark.parametrize("fault", FAULTY_IMAGES)
def test_faulty_image_can_be_skipped_and_is_counted(coco_folder, packed, tmp_path, fault):
    damage, error, message = FAULTY_IMAGES[fault]
    damage(coco_folder)
    options = {"cache": tmp_path / "cache", "progress": False}
    with pytest.warns(UserWarning, match=r"1 of 11 images left out.*000000000100\.jpg") as caught:
        skipping = data.pack(coco_folder, "train", SIZE, on_bad_image="skip", **options)
    assert len(caught) == 1, [str(warning.message) for warning in caught]
    assert skipping.skipped == ["000000000100.jpg"]
    assert skipping.image_ids.tolist() == packed.image_ids.tolist()[1:]
    assert np.array_equal(skipping.images, packed.images[1:])
    assert skipping.captions == packed.captions[1:]
    with pytest.raises(error, match=message):  # what was skipped once is not in order now
        data.pack(coco_folder, "train", SIZE, **options)


def test_nothing_left_is_an_error(coco_folder, tmp_path):
    for path in (coco_folder / "train2017").iterdir():
        path.write_bytes(b"no picture")
    options = {"cache": tmp_path / "cache", "progress": False, "on_bad_image": "skip"}
    with pytest.raises(ValueError, match="cannot be read"):
        data.pack(coco_folder, "train", SIZE, **options)
    for path in (coco_folder / "train2017").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no image of .*captions_train2017\.json can be used"):
        data.pack(coco_folder, "train", SIZE, **options)
    assert cache_files(tmp_path / "cache") == []


def test_unreadable_picture_is_named_when_it_is_read(coco_folder):
    cut_short(coco_folder)
    with pytest.raises(ValueError, match=r"000000000100\.jpg cannot be read"):
        data.load_split(coco_folder, "train")[0]


def test_wrong_folders_are_named(coco_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data folder .*nowhere"):
        data.resolve_data(tmp_path / "nowhere")
    file = tmp_path / "file.zip"
    file.write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"file\.zip is a file"):
        data.resolve_data(file)
    with pytest.raises(FileNotFoundError, match="not in COCO's layout"):
        data.resolve_data(tmp_path)
    (coco_folder / "annotations" / "captions_train2017.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"train2017 has no captions: .*train2017\.json"):
        data.resolve_data(coco_folder)


def test_unknown_choices_are_errors(coco_folder, packed):
    with pytest.raises(ValueError, match="unknown split 'test'"):
        data.load_split(coco_folder, "test")
    with pytest.raises(ValueError, match="unknown on_bad_image 'ignore'"):
        data.load_split(coco_folder, "train", on_bad_image="ignore")
    with pytest.raises(ValueError, match="unknown on_bad_image 'ignore'"):
        data.pack(coco_folder, "train", SIZE, packed.path.parent, on_bad_image="ignore")
    with pytest.raises(ValueError, match="0 pixels"):
        data.pack(coco_folder, "train", 0)


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


@pytest.mark.parametrize("batch_size", [1, 4, 11, 33, 35])
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
    with pytest.raises(ValueError, match="rank 2"):
        data.CaptionBatches(packed, 4, seeded(), rank=2, world_size=2)


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


@pytest.mark.parametrize("caption", ["A dog on the LEFT", "the leftmost cup", "a right-hand drive"])
def test_captions_that_name_a_side_are_found(caption):
    assert data.SIDES.search(caption)


@pytest.mark.parametrize("caption", ["a bright day", "a man upright", "an alright cake"])
def test_words_that_hold_a_side_name_none(caption):
    assert not data.SIDES.search(caption)
