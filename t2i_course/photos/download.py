"""Download COCO: photos and captions, checked, resumed after a cut, and renamed into place.

What is not finished lies in `.download` of the folder; the names that the course reads appear when
they are whole. The archives' MD5 sums are those that several public projects list for the official
files (the hosts publish none beside them).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm.auto import tqdm

from t2i_course import runtime

HOSTS = (  # the same bucket; its own name has no certificate, so HTTPS goes by Amazon's
    "https://s3.amazonaws.com/images.cocodataset.org",
    "http://images.cocodataset.org",
)
WORK = ".download"  # folder of what is not finished
BLOCK = 1 << 20  # bytes read at once
TRIES = 5  # attempts in a row that bring nothing
TIMEOUT = 30  # seconds without a byte
SPARE = 1 << 29  # bytes that must stay free on the disk
CUT = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        path: below the host.
        md5: its sum; "" if it is not known.
        images: how many it holds; 0 for annotations.
    """

    path: str
    md5: str
    images: int = 0

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.path).name


ARCHIVES = {
    "train2017": Archive("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", 118_287),
    "val2017": Archive("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 5_000),
    "train2014": Archive("zips/train2014.zip", "0da8cfa0e090c266b78f30e2d2874f1a", 82_783),
    "val2014": Archive("zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3", 40_504),
    "annotations2017": Archive(
        "annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"
    ),
    "annotations2014": Archive(
        "annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd"
    ),
}


def download_coco(
    folder: str | Path,
    splits: Sequence[str] = ("val",),
    year: str = "2017",
    subset: int | None = None,
    mirror: str | None = None,
    archives: Mapping[str, Archive] = ARCHIVES,
    say: Callable[[str], None] = print,
    progress: bool | None = None,
) -> Path:
    """Fetch captions and photos; what is there already is left alone.

    Args:
        folder: becomes a folder in COCO's layout.
        splits: "train", "val" or both.
        year: "2017" or "2014".
        subset: only the first so many images of each split, fetched one by one; None for all.
        mirror: address to use in place of the official hosts, with the same paths below it.
        archives: what to expect of the files.
        say: called with what is done.
        progress: show bars; None where there is a terminal.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown split or year, or a subset of none.
        OSError: the disk is too small, a host does not answer or has no such file, or what it
            sent is not the file that was asked for. Nothing wrong is left under a final name.
    """
    folder = Path(folder).expanduser()
    wanted = [f"{split}{year}" for split in splits]
    unknown = [name for name in wanted if name not in archives]
    if unknown or not wanted:
        raise ValueError(f"no COCO split {unknown or wanted}: take train or val of 2017 or 2014")
    if subset is not None and subset < 1:
        raise ValueError(f"a subset of {subset} images: give 1 or more")
    captions = {name: folder / "annotations" / f"captions_{name}.json" for name in wanted}
    for file in captions.values():
        _check_subset(file, subset)
    work, hosts = folder / WORK, HOSTS if mirror is None else (mirror.rstrip("/"),)
    needed = {name: archives[name] for name in wanted if not (folder / name).is_dir()}
    fetched = dict(needed) if subset is None else {}
    if not all(file.is_file() for file in captions.values()):
        fetched[f"annotations{year}"] = archives[f"annotations{year}"]
    if not needed and not fetched:
        say(f"{folder} holds {', '.join(wanted)} with captions already: nothing to do")
        return folder
    sizes = {}
    for name, archive in fetched.items():
        sizes[name] = _size(hosts, archive.path)
        say(f"to fetch: {archive.name}, {sizes[name] / 1e6:,.0f} MB")
    if subset is not None and needed:
        say(f"to fetch: {subset:,} photos of {', '.join(needed)}, one by one")
    work.mkdir(parents=True, exist_ok=True)
    _check_disk(folder, work, sizes, subset)
    for name, archive in sorted(fetched.items(), key=lambda item: item[1].images):
        file = fetch(hosts, archive, work / archive.name, sizes[name], progress)
        if archive.images:
            unpack_images(file, name, archive.images, folder, progress)
        else:
            unpack_captions(file, captions.values(), subset)
        file.unlink()
        say(f"done: {archive.name}")
    for name in needed if subset is not None else ():
        fetch_images(hosts, captions[name], folder / name, work, progress)
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


def _open(url: str, headers: Mapping[str, str] | None = None, method: str = "GET"):
    """Open an address; a missing file is an OSError that says so."""
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):  # 403 is what the bucket answers for no such file
            raise FileNotFoundError(
                f"{url}: the host has no such file (status {error.code}): look at the address, or "
                "give another with --mirror"
            ) from None
        raise


def _reach(hosts: Sequence[str], path: str, use: Callable[[str], object]) -> object:
    """Try the hosts in turn; return what `use` makes of the first that answers."""
    for number, host in enumerate(hosts):
        try:
            return use(f"{host}/{path}")
        except CUT as error:
            if number == len(hosts) - 1:
                raise ConnectionError(
                    f"no answer from {' or '.join(hosts)} for {path} ({error}): look at the "
                    "connection and try again; what has come so far is kept"
                ) from error
    raise AssertionError("there is a host")


def _size(hosts: Sequence[str], path: str) -> int:
    """Bytes of a file, as its host says."""

    def ask(url: str) -> int:
        with _open(url, method="HEAD") as answer:
            length = answer.headers.get("Content-Length")
        if length is None:
            raise OSError(f"{url}: the host does not say how large the file is")
        return int(length)

    return _reach(hosts, path, ask)


def _check_disk(folder: Path, work: Path, sizes: Mapping[str, int], subset: int | None) -> None:
    """Refuse to begin what the disk cannot hold: archives, and as much again unpacked."""
    there = sum(part.stat().st_size for part in work.glob("*.part"))
    need = 2 * sum(sizes.values()) - there + SPARE + 250_000 * (subset or 0)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OSError(
            f"{folder}: {free / 1e9:.1f} GB are free, {need / 1e9:.1f} GB are needed: make room, "
            "or fetch fewer images with --subset"
        )


# Fetching


def fetch(
    hosts: Sequence[str], archive: Archive, file: Path, size: int, progress: bool | None = None
) -> Path:
    """Fetch a file, going on where an earlier attempt was cut, and check it.

    Args:
        hosts: tried in turn.
        archive: what to fetch.
        file: where it goes; the unfinished part lies beside it.
        size: bytes.
        progress: show a bar.

    Raises:
        OSError: it cannot be had, or it is not the file that was expected; then it is removed.
    """
    if file.exists():
        return file
    part, mark = file.with_name(f"{file.name}.part"), file.with_name(f"{file.name}.etag")
    idle = 0
    with tqdm(
        total=size, unit="B", unit_scale=True, desc=archive.name,
        disable=None if progress is None else not progress,
    ) as bar:  # fmt: skip
        while (have := part.stat().st_size if part.exists() else 0) < size:
            bar.n = have
            bar.refresh()
            try:
                _reach(hosts, archive.path, lambda url: _receive(url, part, mark, size, bar))
            except CUT as error:
                now = part.stat().st_size if part.exists() else 0
                idle = idle + 1 if now <= have else 0
                if idle == TRIES:
                    raise ConnectionError(
                        f"{archive.name} was cut {TRIES} times in a row at byte {now:,} of "
                        f"{size:,} ({error}): the same command goes on from there"
                    ) from error
                time.sleep(min(0.2 * 2**idle, 10))
    found = part.stat().st_size
    md5 = _md5(part) if archive.md5 else ""
    if found != size or md5 != archive.md5:
        part.unlink()
        mark.unlink(missing_ok=True)
        raise OSError(
            f"{archive.name} is not the file that was expected ({found:,} bytes of {size:,}, MD5 "
            f"{md5 or 'not checked'}, expected {archive.md5 or 'unknown'}): it was removed. Try "
            "again, or another --mirror"
        )
    mark.unlink(missing_ok=True)
    part.replace(file)
    return file


def _receive(url: str, part: Path, mark: Path, size: int, bar: tqdm) -> None:
    """Append what a host sends to a part; begin anew if it sends another range or file."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and mark.exists():
        headers["If-Range"] = mark.read_text(encoding="utf-8")  # else the whole new file comes
    with _open(url, headers) as answer:
        expected = f"bytes {have}-{size - 1}/{size}"
        if answer.status == 206 and answer.headers.get("Content-Range") != expected:
            part.unlink(missing_ok=True)
            raise ConnectionError(
                f"{url}: asked for {expected}, got {answer.headers.get('Content-Range')}"
            )
        if etag := answer.headers.get("ETag"):
            mark.write_text(etag, encoding="utf-8")
        with part.open("ab" if answer.status == 206 else "wb") as target:
            if answer.status != 206:
                bar.reset()
            while block := answer.read(BLOCK):
                target.write(block)
                bar.update(len(block))
    if (have := part.stat().st_size) < size:
        raise ConnectionError(f"{url}: cut at byte {have:,} of {size:,}")


def _md5(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "md5").hexdigest()


def fetch_images(
    hosts: Sequence[str], captions: Path, target: Path, work: Path, progress: bool | None = None
) -> None:
    """Fetch the photos that a captions file names, one by one, eight at a time.

    Raises:
        OSError: a photo cannot be had or opened; those that came are kept for the next attempt.
    """
    names = [image["file_name"] for image in json.loads(captions.read_text("utf-8"))["images"]]
    partial = work / target.name
    partial.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        _check_member(name, "")
        file = partial / name
        if file.exists():
            return

        def save(url: str) -> None:
            with _open(url) as answer, runtime.atomic_file(file) as whole:
                whole.write_bytes(answer.read())
                with Image.open(whole) as photo:
                    photo.load()  # cut short or no picture: OSError

        for attempt in range(TRIES):
            try:
                _reach(hosts, f"{target.name}/{name}", save)
                return
            except ConnectionError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.2 * 2**attempt)

    with ThreadPoolExecutor(8) as pool:
        bar = tqdm(total=len(names), desc=target.name,
                   disable=None if progress is None else not progress)  # fmt: skip
        for _ in pool.map(one, names):
            bar.update()
        bar.close()
    partial.replace(target)


# Unpacking


def _check_member(name: str, inside: str) -> None:
    """Refuse a name that leads out of the folder it should stay in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise OSError(f"the archive holds {name!r}, a path that leads out of its folder: refused")
    if inside and path.parts[0] != inside:
        raise OSError(f"the archive holds {name!r}, which is not in {inside}/: refused")


def _members(archive: zipfile.ZipFile, inside: str) -> list[zipfile.ZipInfo]:
    """Files of an archive; names that lead elsewhere and links are an error."""
    members = []
    for member in archive.infolist():
        _check_member(member.filename, inside)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise OSError(f"the archive holds a link, {member.filename!r}: refused")
        if not member.is_dir():
            members.append(member)
    return members


def _opened(file: Path) -> zipfile.ZipFile:
    """Open an archive; one that is none is removed."""
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        file.unlink()
        raise OSError(f"{file.name} is no zip archive: it was removed. Try again") from None


def unpack_images(
    file: Path, name: str, images: int, folder: Path, progress: bool | None = None
) -> None:
    """Unpack the photos of an archive, count them, and rename their folder into place.

    Raises:
        OSError: a path that leads out of the folder, a damaged file, or another number of photos;
            the archive and what was unpacked are removed.
    """
    partial = file.parent / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _opened(file) as archive:
            members = _members(archive, name)
            found = sum(member.filename.lower().endswith(".jpg") for member in members)
            if found != images:
                raise OSError(f"{file.name} holds {found:,} photos, not {images:,}: refused")
            for member in tqdm(members, desc=f"unpacking {name}",
                               disable=None if progress is None else not progress):  # fmt: skip
                archive.extract(member, partial)
    except (OSError, zipfile.BadZipFile) as error:
        shutil.rmtree(partial, ignore_errors=True)
        file.unlink(missing_ok=True)
        raise OSError(f"{file.name} was not unpacked and is removed: {error}") from error
    (partial / name).replace(folder / name)
    partial.rmdir()


def unpack_captions(file: Path, targets: Iterable[Path], subset: int | None = None) -> None:
    """Take captions files out of the annotations, with all images or the first so many.

    Raises:
        OSError: they are not in it, or damaged.
    """
    try:
        with _opened(file) as archive:
            members = {
                PurePosixPath(member.filename).name: member
                for member in _members(archive, "annotations")
            }
            for target in targets:
                if target.is_file():
                    continue
                if target.name not in members:
                    raise OSError(f"{file.name} holds no {target.name}")
                document = json.loads(archive.read(members[target.name]))
                if subset is not None:
                    document = first_images(document, subset)
                target.parent.mkdir(parents=True, exist_ok=True)
                with runtime.atomic_file(target) as whole:
                    whole.write_text(json.dumps(document), encoding="utf-8")
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        file.unlink(missing_ok=True)
        raise OSError(f"{file.name} is damaged and was removed ({error}): try again") from error


def first_images(document: Mapping[str, list], number: int) -> dict[str, list]:
    """Keep the first images of a captions file, by id, and their captions."""
    images = sorted(document["images"], key=lambda image: image["id"])[:number]
    kept = {image["id"] for image in images}
    captions = [entry for entry in document["annotations"] if entry["image_id"] in kept]
    info = {**document.get("info", {}), "subset": number}
    return {**document, "info": info, "images": images, "annotations": captions}
