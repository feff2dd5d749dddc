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
from t2i_course.photos.download import Archive, download_coco

IMAGES = 6


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


def captions_of(count):
    names = [f"{k:012d}.jpg" for k in range(count)]
    return json.dumps({
        "info": {"year": 2017},
        "images": [{"id": k, "file_name": n, "width": 64, "height": 48}
                   for k, n in reversed(list(enumerate(names)))],
        "annotations": [{"id": 5 * k + c, "image_id": k, "caption": f"picture {k}, caption {c}"}
                        for k in range(count) for c in range(5)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def files():
    photos = {f"val2017/{k:012d}.jpg": jpeg(k) for k in range(IMAGES)}
    annotations = {"annotations/captions_val2017.json": captions_of(IMAGES),
                   "annotations/instances_val2017.json": "{}"}  # fmt: skip
    return {
        "/zips/val2017.zip": zipped(photos),
        "/annotations/annotations_trainval2017.zip": zipped(annotations),
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
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start, whole = 0, len(content)
            wanted = self.headers.get("Range")
            fresh = self.headers.get("If-Range") in (None, server.etag)
            if wanted and server.ranges and fresh:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                told = start + server.wrong_range
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {told}-{whole - 1}/{whole}")
            else:
                self.send_response(200)
            content = content[start:]
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", server.etag)
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
    server.ranges, server.wrong_range, server.etag, server.sent = True, 0, '"one"', 0
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def archives(files):
    def archive(path, images=0):
        return Archive(path, hashlib.md5(files[f"/{path}"]).hexdigest(), images)

    return {"val2017": archive("zips/val2017.zip", IMAGES),
            "annotations2017": archive("annotations/annotations_trainval2017.zip")}  # fmt: skip


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


@pytest.fixture
def get(host, archives, tmp_path):
    said = []

    def get(**options):
        options = {"mirror": host.address, "archives": archives} | options
        return download_coco(tmp_path / "coco", say=said.append, progress=False, **options)

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
    return {path.name for path in folder.iterdir()} == {"val2017", "annotations"}


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
    both = sum(len(files[path]) for path in files if path.endswith(".zip"))
    assert host.sent == both  # no byte was sent twice


def test_a_later_command_goes_on_from_what_came(get, host, files):
    host.cuts = [0] * (3 * download.TRIES) + [700]
    with pytest.raises(ConnectionError, match="cut 5 times in a row at byte 700 of"):
        get()
    assert final_names(get.folder) == set()
    host.cuts, host.sent = [], 0
    assert whole(get())
    both = sum(len(files[path]) for path in files if path.endswith(".zip"))
    assert host.sent == both - 700


def test_a_host_without_ranges_sends_it_all_again(get, host):
    host.ranges, host.cuts = False, [800]
    assert whole(get())


def test_a_wrong_range_is_not_appended_but_all_is_fetched_again(get, host, files):
    host.cuts, host.wrong_range = [600], 7
    assert whole(get())
    assert host.sent > sum(len(files[path]) for path in files if path.endswith(".zip"))


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(get, host):
    host.cuts = [0] * (3 * download.TRIES) + [700]
    with pytest.raises(ConnectionError):
        get()
    host.cuts, host.etag = [], '"two"'
    assert whole(get())


def test_a_wrong_file_is_refused_and_removed(get, host, files):
    path = "/zips/val2017.zip"
    host.files[path] = files[path][:-5] + b"wrong"
    with pytest.raises(OSError, match=r"val2017.zip is not the file that was expected .* removed"):
        get()
    assert final_names(get.folder) <= {"annotations"}
    assert not list((get.folder / ".download").glob("val2017*"))
    host.files[path] = files[path]
    assert whole(get())


def test_a_missing_file_is_named(get, host):
    del host.files["/zips/val2017.zip"]
    with pytest.raises(FileNotFoundError, match=r"no such file \(status 404\)"):
        get()
    assert final_names(get.folder) == set()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../escape.jpg", "leads out of its folder"),
        ("val2017/../../escape.jpg", "leads out of its folder"),
        ("/escape.jpg", "leads out of its folder"),
        ("val2017\\..\\escape.jpg", "leads out of its folder"),
        ("elsewhere/escape.jpg", "not in val2017/"),
    ],
)
def test_a_path_that_leads_out_is_refused(get, host, archives, tmp_path, name, message):
    content = zipped({f"val2017/{k:012d}.jpg": jpeg(k) for k in range(IMAGES - 1)} | {name: b"x"})
    host.files["/zips/val2017.zip"] = content
    archives["val2017"] = Archive("zips/val2017.zip", hashlib.md5(content).hexdigest(), IMAGES)
    with pytest.raises(OSError, match=message):
        get()
    assert not list(tmp_path.rglob("escape*"))
    assert final_names(get.folder) <= {"annotations"}


def test_a_link_in_an_archive_is_refused(get, host, archives, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("val2017/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    host.files["/zips/val2017.zip"] = file.getvalue()
    archives["val2017"] = Archive("zips/val2017.zip", hashlib.md5(file.getvalue()).hexdigest(), 1)
    with pytest.raises(OSError, match="holds a link"):
        get()
    assert final_names(get.folder) <= {"annotations"}


def test_another_number_of_photos_is_refused(get, archives):
    path = "zips/val2017.zip"
    archives["val2017"] = Archive(path, archives["val2017"].md5, IMAGES + 1)
    with pytest.raises(OSError, match="holds 6 photos, not 7"):
        get()
    assert final_names(get.folder) <= {"annotations"}


def test_what_is_no_archive_is_removed(get, host, archives):
    content = b"<html>please log in</html>" * 20
    host.files["/zips/val2017.zip"] = content
    archives["val2017"] = Archive("zips/val2017.zip", hashlib.md5(content).hexdigest(), IMAGES)
    with pytest.raises(OSError, match="no zip archive"):
        get()
    assert not (get.folder / ".download" / "val2017.zip").exists()


def test_a_full_disk_is_noticed_before_the_first_byte(get, host, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10_000_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"0.0 GB are free, .* --subset"):
        get()
    assert not any(command == "GET" for command, _ in host.asked)


def test_a_subset_takes_the_first_images_one_by_one(get, host):
    folder = get(subset=3)
    assert read(folder) == 3
    assert sorted(p.name for p in (folder / "val2017").iterdir()) == [
        "000000000000.jpg", "000000000001.jpg", "000000000002.jpg",
    ]  # fmt: skip
    assert host.asked["GET", "/zips/val2017.zip"] == 0
    asked = sum(host.asked.values())
    get(subset=3)
    assert sum(host.asked.values()) == asked
    with pytest.raises(ValueError, match="is of the first 3 images"):
        get()


def test_a_damaged_photo_of_a_subset_is_an_error_and_the_rest_is_kept(get, host, files):
    path = "/val2017/000000000001.jpg"
    host.files[path] = files[path][:200]
    with pytest.raises(OSError):
        get(subset=3)
    assert "val2017" not in final_names(get.folder)
    host.files[path] = files[path]
    get(subset=3)
    assert len(list((get.folder / "val2017").iterdir())) == 3


def test_the_second_host_is_asked_when_the_first_does_not_answer(host, archives, tmp_path,
                                                                  monkeypatch):  # fmt: skip
    monkeypatch.setattr(download, "HOSTS", ("http://127.0.0.1:9", host.address))
    folder = download_coco(tmp_path / "coco", archives=archives, say=lambda _: None, progress=False)
    assert whole(folder)


def test_no_host_at_all_is_one_clear_error(archives, tmp_path):
    with pytest.raises(ConnectionError, match=r"no answer from http://127.0.0.1:9 for"):
        download_coco(tmp_path / "coco", mirror="http://127.0.0.1:9", archives=archives,
                      progress=False)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [({"splits": ("test",)}, "no COCO split"), ({"year": "2015"}, "no COCO split"),
     ({"splits": ()}, "no COCO split"), ({"subset": 0}, "give 1 or more")],
)  # fmt: skip
def test_what_there_is_not_is_named(get, options, message):
    with pytest.raises(ValueError, match=message):
        get(**options)


def test_every_split_of_both_years_is_listed_with_its_sum():
    names = {f"{part}{year}" for part in ("train", "val", "annotations") for year in (2014, 2017)}
    assert set(download.ARCHIVES) == names
    assert all(len(archive.md5) == 32 for archive in download.ARCHIVES.values())
