"""Download COCO: photos and captions, checked, resumed after a cut, and renamed into place.

What is not finished lies in `.download` of the folder; the names that the course reads appear when
they are whole. The archives' MD5 sums are those that several public projects list for the official
files (the host publishes none beside them).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from t2i_course import runtime

# COCO's bucket by Amazon's name, since its own, http://images.cocodataset.org, has no certificate.
HOST = "https://s3.amazonaws.com/images.cocodataset.org"
MD5 = {
    "zips/train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
    "zips/val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
    "zips/train2014.zip": "0da8cfa0e090c266b78f30e2d2874f1a",
    "zips/val2014.zip": "a3d79f5ed8d289b7a7554ce06a5782b3",
    "annotations/annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
    "annotations/annotations_trainval2014.zip": "0a379cfc70b0e71301e0f377548639bd",
}
WORK = ".download"  # folder of what is not finished
BLOCK = 1 << 20  # bytes read at once
TRIES = 5  # attempts in a row that bring nothing
TIMEOUT = 30  # seconds without a byte
SPARE = 1 << 29  # bytes that must stay free on the disk
CUT = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError)


def download_coco(
    folder: str | Path,
    splits: Sequence[str] = ("val",),
    year: str = "2017",
    subset: int | None = None,
    mirror: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch captions and photos; what is there already is left alone.

    Args:
        folder: becomes a folder in COCO's layout.
        splits: "train", "val" or both.
        year: "2017" or "2014".
        subset: only the first so many images of each split, fetched one by one; None for all.
        mirror: address to use in place of `HOST`, with the same paths below it.
        say: called with what is done.

    Raises:
        ValueError: a subset of none, or the folder holds another part of a split.
        OSError: the disk is too small, the host does not answer or has no such file, or what it
            sent is not the file that was asked for. Nothing wrong is left under a final name.
    """
    folder, host = Path(folder).expanduser(), (mirror or HOST).rstrip("/")
    if subset is not None and subset < 1:
        raise ValueError(f"a subset of {subset} images: give 1 or more")
    names = [f"{split}{year}" for split in splits]
    captions = {name: folder / "annotations" / f"captions_{name}.json" for name in names}
    for file in captions.values():
        _check_subset(file, subset)
    missing = [name for name in names if not (folder / name).is_dir()]
    paths = [f"zips/{name}.zip" for name in missing if subset is None]
    if not all(file.is_file() for file in captions.values()):
        paths.insert(0, f"annotations/annotations_trainval{year}.zip")
    if not missing and not paths:
        say(f"{folder} holds {', '.join(names)} with captions already: nothing to do")
        return folder
    sizes = {path: _size(f"{host}/{path}") for path in paths}
    for path, size in sizes.items():
        say(f"to fetch: {Path(path).name}, {size / 1e6:,.0f} MB")
    if subset is not None and missing:
        say(f"to fetch: {subset:,} photos of {', '.join(missing)}, one by one")
    work = folder / WORK
    work.mkdir(parents=True, exist_ok=True)
    _check_disk(work, sum(sizes.values()), subset or 0)
    for path in paths:
        file = work / Path(path).name
        fetch(f"{host}/{path}", file, MD5[path])
        if path.startswith("annotations"):
            unpack_captions(file, captions.values(), subset)
        else:
            unpack_images(file, folder)
        file.unlink()
        say(f"done: {file.name}")
    for name in missing if subset is not None else ():
        fetch_images(f"{host}/{name}", captions[name], folder / name, work / name)
        say(f"done: {subset:,} photos of {name}")
    shutil.rmtree(work)
    return folder


def _check_subset(captions: Path, subset: int | None) -> None:
    """Refuse a folder that holds another part of the split than the one that is asked for."""
    if not captions.is_file():
        return
    kept = json.loads(captions.read_text(encoding="utf-8")).get("info", {}).get("subset")
    if kept != subset:
        there = "all images" if kept is None else f"the first {kept:,} images"
        raise ValueError(f"{captions} is of {there}: ask for the same, or name another folder")


def _check_disk(work: Path, size: int, subset: int) -> None:
    """Refuse to begin what the disk cannot hold: archives, and as much again unpacked."""
    there = sum(part.stat().st_size for part in work.glob("*.part"))
    need = 2 * size - there + SPARE + 250_000 * subset
    free = shutil.disk_usage(work).free
    if free < need:
        raise OSError(
            f"{work.parent}: {free / 1e9:.1f} GB are free, {need / 1e9:.1f} GB are needed: make "
            "room, or fetch fewer images with --subset"
        )


# Fetching


def _open(url: str, start: int = 0, method: str = "GET") -> HTTPResponse:
    """Open an address, from a byte on; a missing file is an OSError that says so."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        request = urllib.request.Request(url, headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):  # 403 is what the bucket answers for no such file
            raise FileNotFoundError(
                f"{url}: the host has no such file (status {error.code}): look at the address, or "
                "give another with --mirror"
            ) from None
        raise


def _size(url: str) -> int:
    """Bytes of a file, as its host says."""
    try:
        with _open(url, method="HEAD") as answer:
            return int(answer.headers.get("Content-Length", 0))
    except CUT as error:
        raise ConnectionError(
            f"no answer from {url} ({error}): look at the connection and try again, or give "
            "another address with --mirror"
        ) from error


def fetch(url: str, file: Path, md5: str | None = None) -> None:
    """Fetch a file, going on where an earlier attempt was cut, and check it.

    Args:
        url: its address.
        file: where it goes; the unfinished part lies beside it.
        md5: its sum, if that is known.

    Raises:
        OSError: it cannot be had, or it is not the file that was expected; then it is removed.
    """
    part, idle = file.with_name(f"{file.name}.part"), 0
    part.touch()
    while True:
        before = part.stat().st_size
        try:
            _receive(url, part, silent=None if md5 else True)
            break
        except CUT as error:
            now = part.stat().st_size
            idle = idle + 1 if now <= before else 0
            if idle == TRIES:
                raise ConnectionError(
                    f"{url} was cut {TRIES} times in a row at byte {now:,} ({error}): the same "
                    "command goes on from there"
                ) from error
            time.sleep(min(0.2 * 2**idle, 10))
    if md5 and (found := _md5(part)) != md5:
        part.unlink()
        raise OSError(
            f"{url} is not the file that was expected (MD5 {found}, not {md5}): it was removed. "
            "Try again, or another --mirror"
        )
    part.replace(file)


def _receive(url: str, part: Path, silent: bool | None) -> None:
    """Append what is missing to a part, or begin anew if the host sends all of the file."""
    have = part.stat().st_size
    try:
        answer = _open(url, have)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing beyond what has come
            return
        raise
    with answer:
        have = have if answer.status == 206 else 0
        total = have + int(answer.headers.get("Content-Length", 0))
        bar = tqdm(
            total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=silent
        )
        with bar, part.open("ab" if have else "wb") as target:
            while block := answer.read(BLOCK):
                target.write(block)
                bar.update(len(block))
    if (have := part.stat().st_size) < total:
        raise ConnectionError(f"cut at byte {have:,} of {total:,}")


def _md5(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "md5").hexdigest()


def fetch_images(url: str, captions: Path, target: Path, partial: Path) -> None:
    """Fetch the photos that a captions file names, one by one, eight at a time.

    Raises:
        OSError: a photo cannot be had or opened; those that came are kept for the next attempt.
    """
    names = [image["file_name"] for image in json.loads(captions.read_text("utf-8"))["images"]]
    partial.mkdir(exist_ok=True)

    def one(name: str) -> None:
        file = partial / name
        if file.exists():
            return
        fetch(f"{url}/{name}", file)
        try:
            with Image.open(file) as photo:
                photo.load()
        except OSError as error:
            file.unlink()
            raise OSError(f"{url}/{name} is damaged ({error}): try again") from error

    with ThreadPoolExecutor(8) as pool:
        for _ in tqdm(pool.map(one, names), total=len(names), desc=target.name, disable=None):
            pass
    partial.replace(target)


# Unpacking


def unpack_images(file: Path, folder: Path) -> None:
    """Unpack the photos of an archive, and rename their folder into place."""
    partial = file.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(file) as archive:
        for member in tqdm(archive.infolist(), desc=f"unpacking {file.stem}", disable=None):
            archive.extract(member, partial)
    (partial / file.stem).replace(folder / file.stem)


def unpack_captions(file: Path, targets: Iterable[Path], subset: int | None = None) -> None:
    """Take captions files out of the annotations, with all images or the first so many."""
    with zipfile.ZipFile(file) as archive:
        for target in targets:
            if not target.is_file():
                document = json.loads(archive.read(f"annotations/{target.name}"))
                if subset is not None:
                    _keep_first(document, subset)
                with runtime.atomic_file(target) as whole:
                    whole.write_text(json.dumps(document), encoding="utf-8")


def _keep_first(document: dict[str, Any], number: int) -> None:
    """Keep the first images of a captions file, by id, and their captions."""
    images = sorted(document["images"], key=lambda image: image["id"])[:number]
    kept = {image["id"] for image in images}
    document["info"] = {**document.get("info", {}), "subset": number}
    document["images"] = images
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in kept]
