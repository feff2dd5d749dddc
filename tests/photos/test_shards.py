"""Shards: real tar files of real pictures, whole and with every fault."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folder import cache_files
from PIL import Image

from t2i_course import data
from t2i_course.__main__ import main
from t2i_course.photos import copies, shards

SIZE = 16
Files = list[tuple[str, bytes]]


def picture(seed: int, form: str = "JPEG", side: int = 40) -> bytes:
    """A real picture file, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((side + 10, side), Image.Resampling.BICUBIC).save(file, form)
    return file.getvalue()


def sample(number: int, form: str = "JPEG", **other: bytes) -> Files:
    """Files of a sample as img2dataset writes them."""
    key, suffix = f"{number:09d}", {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[form]
    caption = f"picture {number}, près de 猫"
    told = {"caption": caption, "url": "https://example.org", "key": key, "status": "success"}
    files = {
        suffix: picture(number, form),
        "json": json.dumps(told).encode(),
        "txt": caption.encode(),
    } | other
    return [(f"{key}.{name}", content) for name, content in files.items() if content is not None]


def write_shard(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_shards(folder: Path, numbers: Iterable[int], each: int = 5) -> None:
    numbers = list(numbers)
    for first in range(0, len(numbers), each):
        files = [f for number in numbers[first : first + each] for f in sample(number)]
        write_shard(folder / f"{first // each:05d}.tar", files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of shards."""
    write_shards(tmp_path / "photos" / "train", range(12))
    write_shards(tmp_path / "photos" / "val", range(100, 106))
    return tmp_path / "photos"


def pack(folder: Path, tmp_path: Path, split: str = "train", **options) -> data.PackedCaptions:
    return data.pack(folder, split, SIZE, tmp_path / "cache", progress=False, **options)


def test_pictures_and_captions_are_packed_as_they_are(folder, tmp_path):
    for split, numbers in (("train", range(12)), ("val", range(100, 106))):
        packed = pack(folder, tmp_path, split)
        assert packed.image_ids.tolist() == list(range(1, len(numbers) + 1))
        assert packed.captions == [[f"picture {n}, près de 猫"] for n in numbers]
        for row, number in enumerate(numbers):
            image = Image.open(io.BytesIO(picture(number))).convert("RGB")
            expected = data.to_uint8(data.image_transform(SIZE)(image))
            assert torch.equal(packed[row][0], expected)
    assert data.resolve_data(folder) == folder


def test_every_form_of_picture_and_caption_is_read(tmp_path):
    listed = json.dumps({"caption": ["one", "two"]}).encode()
    files = [
        *sample(0, "PNG"),
        *sample(1, "WEBP", txt=None),
        *sample(2, json=None, txt=b"\xef\xbb\xbfonly a text\n"),
        *sample(3, json=listed),
        *sample(4, json=b'{"caption": null}', txt=b"from the text"),
        ("a/b/five.JPEG", picture(5)),  # a folder in the tar file, and a suffix in capitals
        ("a/b/five.txt", b"five"),
        ("./six.jpg", picture(6)),
        ("./six.txt", b"six"),
        ("__index__.json", b"[]"),  # webdataset's own
        ("._six.jpg", b"what another system leaves"),
        ("six.cls", b"3"),
    ]
    write_shard(tmp_path / "photos" / "train" / "0.tar", files)
    write_shards(tmp_path / "photos" / "val", range(2))
    packed = pack(tmp_path / "photos", tmp_path)
    first = ["picture 0, près de 猫"], ["picture 1, près de 猫"]
    rest = ["only a text"], ["one", "two"], ["from the text"], ["five"], ["six"]
    assert packed.captions == [*first, *rest]


def test_a_key_may_hold_dots_and_what_belongs_to_no_sample_is_told(tmp_path):
    files = [*sample(0), ("a.cls", b"3")]
    for key in ("trip0", "trip0.2", "photo.v0", "photo.v1"):
        files += [(f"{key}.jpg", picture(len(files))), (f"{key}.txt", key.encode())]
    mask = ("photo.v1.mask.png", picture(7))
    write_shard(tmp_path / "photos" / "train" / "0.tar", [*files, mask])
    write_shards(tmp_path / "photos" / "val", [1])
    with pytest.raises(ValueError, match=r"sample photo.v1.mask has no caption.*its last dot"):
        pack(tmp_path / "photos", tmp_path)
    write_shard(tmp_path / "photos" / "train" / "0.tar", files)
    with pytest.warns(UserWarning, match=r"passed over: 1 \.cls"):
        packed = pack(tmp_path / "photos", tmp_path)
    assert packed.captions[1:] == [["trip0"], ["trip0.2"], ["photo.v0"], ["photo.v1"]]


def test_links_in_a_shard_are_followed(tmp_path):
    write_shards(tmp_path / "photos" / "val", [1])
    file = tmp_path / "photos" / "train" / "0.tar"
    write_shard(file, sample(0))
    with tarfile.open(file, "a") as tar:
        for kind, target, name in (
            (tarfile.LNKTYPE, "000000000.jpg", "b.jpg"),
            (tarfile.SYMTYPE, "000000000.txt", "b.txt"),
            (tarfile.SYMTYPE, "nowhere.jpg", "c.jpg"),
            (tarfile.LNKTYPE, "000000000.txt", "c.txt"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
    with pytest.raises(ValueError, match="sample c has a link to nothing, c.jpg"):
        pack(tmp_path / "photos", tmp_path)
    with pytest.warns(UserWarning, match="1 of 3 images left out"):
        packed = pack(tmp_path / "photos", tmp_path, on_bad_image="skip")
    assert packed.captions[0] == packed.captions[1]
    assert np.array_equal(packed.images[0], packed.images[1])


def test_files_of_a_sample_need_not_stand_together(tmp_path):
    files = [f for number in range(4) for f in sample(number)]
    write_shard(tmp_path / "photos" / "train" / "0.tar", sorted(files, key=lambda f: f[0][-3:]))
    write_shards(tmp_path / "photos" / "val", range(2))
    captions = pack(tmp_path / "photos", tmp_path).captions
    assert captions == [[f"picture {n}, près de 猫"] for n in range(4)]


@pytest.mark.parametrize("name", ["", "val"])
def test_shards_of_one_split_are_divided_as_a_coco_folder_is(tmp_path, name):
    write_shards(tmp_path / "photos" / name, range(30))
    packed = {split: pack(tmp_path / "photos", tmp_path, split) for split in ("train", "val")}
    ids = {split: part.image_ids.tolist() for split, part in packed.items()}
    assert sorted(ids["train"] + ids["val"]) == list(range(1, 31))
    for split, part in packed.items():
        assert ids[split] == list(copies.hold_out(list(range(1, 31)), np.arange(30), split))
        assert part.captions == [[f"picture {n - 1}, près de 猫"] for n in ids[split]]
    assert len(ids["val"]) == 3
    write_shards(tmp_path / "one", [1])
    with pytest.raises(ValueError, match="one holds one sample: train and val need one each"):
        pack(tmp_path / "one", tmp_path)


def test_second_call_reads_no_shard_and_changed_shards_are_packed_anew(folder, tmp_path):
    keys, train = {pack(folder, tmp_path).key}, data.find_data(folder, "train")
    digest = shards.data_digest(train)
    shard = folder / "train" / "00000.tar"
    status = shard.stat()
    shard.write_bytes(bytes(status.st_size))  # no tar file any more, but the same size and time
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {pack(folder, tmp_path).key} == keys
    os.utime(shard, ns=(1, 1))
    assert shards.data_digest(train) == digest  # of names and lengths, for cards
    write_shard(shard, sample(77))
    changed = pack(folder, tmp_path)
    assert changed.key not in keys and changed.captions[0] == ["picture 77, près de 猫"]
    write_shard(folder / "train" / "00009.tar", sample(78))
    assert len(pack(folder, tmp_path)) == len(changed) + 1
    assert shards.data_digest(train) != digest


FAULTS = {
    "no picture": (sample(1, jpg=None), "sample 000000001 has no picture"),
    "no caption": (sample(1, txt=None, json=None), "sample 000000001 has no caption"),
    "json without caption": (sample(1, txt=None, json=b'{"url": ""}'), "000000001 has no caption"),
    "empty list": (sample(1, txt=None, json=b'{"caption": []}'), "000000001 has no caption"),
    "empty caption": (sample(1, txt=b" \n", json=None), "000000001 has an empty caption"),
    "one empty": (sample(1, json=b'{"caption": ["a", ""]}'), "000000001 has an empty caption"),
    "number": (sample(1, json=b'{"caption": 3}'), "neither a text nor a list of texts"),
    "json cut": (sample(1, json=b'{"caption": "a'), r"has a damaged file \.json"),
    "not UTF-8": (sample(1, json=None, txt=b"\xff\xfe"), "caption that is not UTF-8"),
    "half a letter": (sample(1, json=b'{"caption": "a \\ud83d"}'), "lone surrogate"),
    "two pictures": (sample(1, png=picture(1, "PNG")), "000000001 has two pictures"),
    "file twice": ([*sample(1), *sample(1)[:1]], r"000000001 has two files \.jpg"),
    "picture cut": (sample(1, jpg=picture(1)[:500]), "000000001 cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_shard_and_key_or_skipped_and_counted(tmp_path, fault):
    files, message = FAULTS[fault]
    write_shard(tmp_path / "photos" / "train" / "00000.tar", [*sample(0), *files, *sample(2)])
    write_shard(tmp_path / "photos" / "train" / "00001.tar", sample(3))
    write_shards(tmp_path / "photos" / "val", range(100, 102))
    folder = tmp_path / "photos"
    with pytest.raises(ValueError, match=message) as caught:
        pack(folder, tmp_path)
    assert str(folder / "train" / "00000.tar") in str(caught.value)
    assert "--on-bad-image skip" in str(caught.value) and "\n" not in str(caught.value)
    assert cache_files(tmp_path / "cache") == []
    with pytest.warns(UserWarning, match=r"1 of 4 images left out of .*00000\.tar: 000000001"):
        packed = pack(folder, tmp_path, on_bad_image="skip")
    assert packed.skipped == ["00000.tar: 000000001"]
    assert packed.image_ids.tolist() == [1, 3, 4]
    assert packed.captions == [[f"picture {n}, près de 猫"] for n in (0, 2, 3)]
    with pytest.raises(ValueError, match=message):  # it is not in order now
        pack(folder, tmp_path)


def test_nothing_left_is_an_error(tmp_path):
    for number, content in enumerate((None, b"no picture")):
        folder = tmp_path / f"photos{number}"
        write_shard(folder / "train" / "0.tar", sample(1, jpg=content))
        write_shards(folder / "val", [2])
        with pytest.raises(ValueError, match="000000001 (has no picture|cannot be read)"):
            pack(folder, tmp_path, on_bad_image="skip")
    write_shard(tmp_path / "none" / "train" / "0.tar", [("README", b"nothing here")])
    write_shards(tmp_path / "none" / "val", [2])
    with pytest.raises(ValueError, match="hold no samples"):
        pack(tmp_path / "none", tmp_path)


def members(shard: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(shard) as tar:
        return tar.getmembers()


def test_shard_cut_anywhere_is_an_error_that_names_it(folder, tmp_path):
    shard, split = folder / "train" / "00001.tar", data.find_data(folder, "train")
    whole = shard.read_bytes()
    end = max(member.offset_data + member.size for member in members(shard))
    for length in [*range(0, end, 1024), 777, end - 1, end]:
        shard.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"00001\.tar .*(cut short|no tar file)"):
            shards.count_samples(split)
    for choice in ("raise", "skip"):  # what a lost end held cannot be counted
        with pytest.raises(ValueError, match="Copy it again, or take it out of the folder"):
            pack(folder, tmp_path, on_bad_image=choice)


def test_damaged_header_is_an_error(folder):
    shard = folder / "train" / "00000.tar"
    header = members(shard)[1].offset
    content = bytearray(shard.read_bytes())
    content[header + 150] ^= 0xFF  # its checksum
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=rf"00000\.tar is .*damaged at byte {header:,}"):
        shards.count_samples(data.find_data(folder, "train"))


@pytest.mark.parametrize(
    "content", [b"", b"no tar file" * 100, gzip.compress(bytes(3000), mtime=0)]
)
def test_what_is_no_tar_file_is_named(folder, tmp_path, content):
    (folder / "train" / "00000.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"00000\.tar cannot be read .*no tar file"):
        pack(folder, tmp_path)


def test_folders_in_cocos_layout_stay_what_they_are(small_scenes, as_photos, folder, tmp_path):
    photos = as_photos(small_scenes, tmp_path / "coco")
    write_shard(photos / "train" / "stray.tar", sample(1))
    assert data.find_data(photos, "train").captions_file is not None
    with pytest.raises(FileNotFoundError, match=r"train holds shards.*needs COCO's layout"):
        data.load_split(folder, "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"not in COCO's layout.*train/00000\.tar"):
        data.resolve_data(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no split test"):
        pack(folder, tmp_path, "test")


def test_commands_take_shards(tmp_path, monkeypatch, tiny_bert, capsys):
    folder = tmp_path / "photos"
    write_shards(folder / "train", range(12))
    write_shards(folder / "val", range(100, 200), each=60)
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("T2I_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    common = ["--encoder", str(tiny_bert), "--device", "cpu"]
    train = ["--steps", "2", "--batch-size", "4", "--output", "tiny"]
    assert main(["train", "--data", str(folder), *train, *common]) == 0
    assert "images: 12 train, 100 val" in capsys.readouterr().out
    features = list((home / "cache" / "embeddings").glob("*.npy"))
    assert len(features) == 2
    assert all(np.load(file).dtype == np.float16 for file in features)
    assert main(["generate", "a red bus", "--model", "tiny", "--count", "2"]) == 0
    card = json.loads((home / "checkpoints" / "tiny.json").read_text())
    assert card["data"] == "photos"
    network = ["metric-network", "caption-matcher", "--data", str(folder), "--steps", "20", *common]
    assert main([*network, "--output", "matcher"]) == 0
    evaluate = ["evaluate", "--data", str(folder), "--model", "tiny", "--samples", "100"]
    status = main([*evaluate, "--matcher", "matcher", "--device", "cpu"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "shuffled captions" in printed.out and "left out: retrieval" not in printed.out
