"""`sound` and `clips` from end to end, on drawn clips and on what strangers may give."""

import json

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from t2i_course import checkpoints
from t2i_course.__main__ import main
from t2i_course.photos.video_file import read_video
from t2i_course.scenes.bouncing_balls import SOUND_RATE
from t2i_course.video_to_audio import VideoToAudio

CARD = {
    "encoder": {"name": "none", "fingerprint": "none", "pooling": "none"},
    "data": "bouncing balls", "command": "none", "steps": 0, "seconds": 0.0, "hardware": "none",
    "metrics": {}, "license": "none",
}  # fmt: skip


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with drawn clips; a network with random weights is there by its name."""
    torch.manual_seed(0)
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("T2I_HOME", str(home))
    monkeypatch.setenv("T2I_DEVICE", "cpu")
    checkpoints.save_weights("video-to-audio", VideoToAudio(12, 8, 16), CARD)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert main(["clips", "--output", "clips", "--count", "2"]) == 0
    return tmp_path / "work"


def test_clips_come_with_their_sound_and_their_impacts(work, capsys):
    listed = json.loads((work / "clips" / "clips.json").read_text("utf-8"))
    assert [entry["file"] for entry in listed] == ["clip-01.mp4", "clip-02.mp4"]
    for entry in listed:
        video = read_video(work / "clips" / entry["file"])
        assert len(video.times) == round(entry["seconds"] * entry["frame_rate"])
        assert all(0 <= hit["time"] < entry["seconds"] for hit in entry["impacts"])
        with av.open(str(work / "clips" / entry["file"])) as container:
            assert len(container.streams.audio) == 1
    before = (work / "clips" / "clips.json").read_bytes()
    assert main(["clips", "--output", "clips"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (work / "clips" / "clips.json").read_bytes() == before
    assert main(["clips", "--output", "none", "--count", "0"]) == 2


def test_sound_is_as_long_as_the_clip_and_goes_into_the_video(work, capsys):
    command = ["sound", "clips/clip-01.mp4", "--output", "a.wav", "--video", "a.mp4"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "a.wav" in said.out and "a.mp4" in said.out
    assert "drawn balls" in said.err and "no speech" in " ".join(said.err.split())
    sound, rate = soundfile.read(work / "a.wav")
    clip, heard = read_video(work / "clips" / "clip-01.mp4"), read_video(work / "a.mp4")
    assert rate == SOUND_RATE and len(sound) == pytest.approx(clip.seconds * rate, abs=2)
    assert len(heard.times) == len(clip.times)


def test_what_is_no_clip_is_one_line_and_leaves_no_file(work, capsys):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("photo.png")
    soundfile.write("song.wav", np.zeros(4000), 8000)
    (work / "broken.mp4").write_bytes((work / "clips" / "clip-01.mp4").read_bytes()[:2000])
    (work / "text.mp4").write_text("no video")
    there = sorted(path.name for path in work.iterdir())
    for name in ("photo.png", "song.wav", "broken.mp4", "text.mp4", "nowhere.mp4", "clips"):
        capsys.readouterr()
        assert main(["sound", name, "--output", "b.wav", "--video", "b.mp4"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("t2i_course: error: "), lines
        assert name in lines[0]
    assert sorted(path.name for path in work.iterdir()) == there


def test_output_of_another_kind_is_refused_before_the_work(work, capsys):
    assert main(["sound", "clips/clip-01.mp4", "--output", "a.mp3"]) == 2
    assert ".wav or .flac" in capsys.readouterr().err
    assert main(["sound", "clips/clip-01.mp4", "--output", "a.wav", "--video", "a.txt"]) == 2
    assert not (work / "a.wav").exists()
