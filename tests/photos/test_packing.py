"""The packed cache: what it holds, and that it is whole or not there."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folder import (
    KINDS,
    SIZE,
    cache_files,
    make_split,
    photo,
    read_captions,
    write_captions,
    write_photo,
)

from t2i_course import data


def files_of(key: str) -> list[str]:
    """All that a whole cache consists of."""
    return [f"{key}.json", f"{key}.npy"]


def test_packed_pictures_equal_the_plain_transform(coco_folder, packed):
    dataset = data.load_split(coco_folder, "train", data.image_transform(SIZE))
    assert packed.images.dtype == np.uint8
    assert packed.images.shape == (len(dataset), 3, SIZE, SIZE)
    assert packed.image_ids.tolist() == dataset.ids
    for index in range(len(dataset)):
        image, captions = dataset[index]
        pixels, kept = packed[index]
        assert torch.equal(pixels, data.to_uint8(image))
        assert torch.allclose(data.to_float(pixels), image, atol=1e-6)
        assert kept == captions
        start, stop = packed.caption_starts[index : index + 2]
        assert packed.all_captions[start:stop] == captions


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


def cut_short(path: Path) -> None:
    file = Path(f"{path}.npy")
    file.write_bytes(file.read_bytes()[:-1])


def make_older(path: Path) -> None:
    card = Path(f"{path}.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"format": 2}))


@pytest.mark.parametrize("damage", [cut_short, make_older])
def test_cache_that_is_cut_or_of_an_older_form_is_made_again(coco_folder, packed, tmp_path, damage):
    pixels = np.array(packed.images)
    damage(packed.path)
    with pytest.raises(ValueError):
        data.PackedCaptions(packed.path)
    again = data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)
    assert again.path == packed.path  # runs and features that name it are still good
    assert np.array_equal(again.images, pixels)


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
