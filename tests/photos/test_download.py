"""Download from a real HTTP server on this machine, which does wrong what servers do wrong."""

import hashlib
import io
import json
import shutil
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from t2i_course import data
from t2i_course.photos import download

IMAGES = 6
PHOTOS, ANNOTATIONS = "/zips/val2017.zip", "/annotations/annotations_trainval2017.zip"


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    photos = {f"val2017/{k:012d}.jpg": jpeg(k) for k in range(IMAGES)}
    captions = json.dumps({
        "info": {"year": 2017},
        "images": [{"id": k, "file_name": f"{k:012d}.jpg"} for k in reversed(range(IMAGES))],
        "annotations": [{"id": 5 * k + c, "image_id": k, "caption": f"picture {k}, caption {c}"}
                        for k in range(IMAGES) for c in range(5)],
    })  # fmt: skip
    return {
        PHOTOS: zipped(photos),
        ANNOTATIONS: zipped({"annotations/captions_val2017.json": captions}),
        **{f"/{name}": content for name, content in photos.items()},
    }


@pytest.fixture
def host(files):
    """A server; its attributes say what it does wrong, and count what it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            server.asked[self.command, self.path] += 1
            content, start = server.files.get(self.path), 0
            if content is None:
                self.send_error(404)
                return
            if server.ranges and (wanted := self.headers.get("Range")):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start and start == len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            content = content[start:]
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                cut = server.cuts.pop() if server.cuts and self.path.endswith(".zip") else None
                server.sent += len(content[:cut])
                self.wfile.write(content[:cut])
                if cut is not None:
                    self.connection.close()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.cuts = dict(files), Counter(), []
    server.ranges, server.sent = True, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def get(host, files, tmp_path, monkeypatch):
    """Download from the server: `get.folder` is where to, `get.said` what was said."""
    for path in (PHOTOS, ANNOTATIONS):
        monkeypatch.setitem(download.MD5, path[1:], hashlib.md5(files[path]).hexdigest())
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    mirror, said = f"http://127.0.0.1:{host.server_port}", []

    def get(**options):
        return download.download_coco(tmp_path / "coco", mirror=mirror, say=said.append, **options)

    get.folder, get.said = tmp_path / "coco", said
    return get


def read(folder):
    """Images that the course reads; a folder with val alone is divided into train and val."""
    parts = [data.load_split(folder, name, data.image_transform(32)) for name in ("train", "val")]
    assert all(len(part[k][1]) == 5 for part in parts for k in range(len(part)))
    return sum(len(part) for part in parts)


def whole(folder):
    """Whether the folder is complete, and nothing else lies in it."""
    assert read(folder) == IMAGES
    return final_names(folder) == {path.name for path in folder.iterdir()}


def final_names(folder):
    return {path.name for path in folder.iterdir()} - {".download"} if folder.exists() else set()


def test_photos_and_captions_arrive_and_nothing_is_fetched_twice(get, host):
    assert whole(get())
    assert any("val2017.zip" in line and "MB" in line for line in get.said)
    asked = sum(host.asked.values())
    get()
    assert sum(host.asked.values()) == asked
    assert "nothing to do" in get.said[-1]


def test_a_cut_connection_is_taken_up_where_it_was_cut(get, host, files):
    host.cuts = [500, 300, 0, 1000]
    assert whole(get())
    assert host.sent == len(files[PHOTOS] + files[ANNOTATIONS])  # no byte was sent twice


def test_a_later_command_goes_on_from_what_came(get, host, files):
    host.cuts = [0] * download.TRIES + [700]
    with pytest.raises(ConnectionError, match="cut 5 times in a row at byte 700 "):
        get()
    assert final_names(get.folder) == set()
    host.cuts, host.sent = [], 0
    assert whole(get())
    assert host.sent == len(files[PHOTOS] + files[ANNOTATIONS]) - 700


def test_a_file_that_came_but_was_not_renamed_is_taken(get, host, files):
    (get.folder / ".download").mkdir(parents=True)
    (get.folder / ".download" / "val2017.zip.part").write_bytes(files[PHOTOS])
    assert whole(get())
    assert host.sent == len(files[ANNOTATIONS])


def test_a_host_without_ranges_sends_it_all_again(get, host):
    host.ranges, host.cuts = False, [800]
    assert whole(get())


def test_a_wrong_file_is_refused_and_removed(get, host, files):
    host.files[PHOTOS] = files[PHOTOS][:-5] + b"wrong"
    with pytest.raises(OSError, match=r"val2017.zip is not the file that was expected .* removed"):
        get()
    assert final_names(get.folder) == {"annotations"}
    assert not list((get.folder / ".download").glob("val2017*"))
    host.files[PHOTOS] = files[PHOTOS]
    assert whole(get())


def test_a_missing_file_is_named(get, host):
    del host.files[PHOTOS]
    with pytest.raises(FileNotFoundError, match=r"no such file \(status 404\)"):
        get()
    assert final_names(get.folder) == set()


def test_a_full_disk_is_noticed_before_the_first_byte(get, host, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10_000_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"0.0 GB are free, .* --subset"):
        get()
    assert not any(command == "GET" for command, _ in host.asked)


def test_a_subset_takes_the_first_images_one_by_one(get, host):
    folder = get(subset=3)
    assert read(folder) == 3
    names = sorted(path.name for path in (folder / "val2017").iterdir())
    assert names == [f"{k:012d}.jpg" for k in range(3)]
    assert host.asked["GET", PHOTOS] == 0
    asked = sum(host.asked.values())
    get(subset=3)
    assert sum(host.asked.values()) == asked
    with pytest.raises(ValueError, match="is of the first 3 images"):
        get()


def test_a_damaged_photo_of_a_subset_is_an_error_and_the_rest_is_kept(get, host, files):
    path = "/val2017/000000000001.jpg"
    host.files[path] = files[path][:200]
    with pytest.raises(OSError, match=r"000000000001\.jpg is damaged"):
        get(subset=3)
    assert "val2017" not in final_names(get.folder)
    host.files[path] = files[path]
    get(subset=3)
    assert len(list((get.folder / "val2017").iterdir())) == 3


def test_every_split_of_both_years_is_listed_with_its_sum():
    parts = [f"zips/{split}{year}" for split in ("train", "val") for year in (2014, 2017)]
    parts += [f"annotations/annotations_trainval{year}" for year in (2014, 2017)]
    assert set(download.MD5) == {f"{part}.zip" for part in parts}
    assert all(len(md5) == 32 for md5 in download.MD5.values())
