"""Video files of strangers, made here by PyAV: sizes, rates, rotation, and files that are none."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from t2i_course.photos import video_file


def frames_of(count, height=48, width=64):
    """A white block that moves to the right by two pixels a frame, at the top, on black."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[4:20, 2 * index % (width - 16) :][:, :16] = 255
    return frames


def write(path, frames, rate=20, times=None, codec="mpeg4", rotation=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            time = index / rate if times is None else times[index]
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound_file(path):
    time = np.arange(16000) / 16000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(
            np.sin(2 * np.pi * 440 * time).astype(np.float32)[None], format="fltp", layout="mono"
        )
        block.sample_rate = 16000
        container.mux(stream.encode(block))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("height", "width", "wide"), [(48, 64, 85), (64, 64, 64), (320, 180, 36), (90, 400, 128)]
)
def test_frames_of_any_size_come_64_pixels_high(tmp_path, height, width, wide):
    path = write(tmp_path / "a.mp4", frames_of(12, height, width))
    video = video_file.read_video(path)
    assert video.frames.shape == (12, 64, wide, 3) and video.frames.dtype == np.uint8
    assert bool(video.notes) == (width == 400)


def test_times_are_the_files_own(tmp_path):
    times = np.cumsum([0, 0.05, 0.05, 0.04, 0.06, 0.05, 0.08, 0.04, 0.05, 0.05])
    path = write(tmp_path / "uneven.mp4", frames_of(10), times=times)
    video = video_file.read_video(path)
    np.testing.assert_allclose(video.times, times, atol=1e-3)
    assert video.seconds == pytest.approx(times[-1] + 0.05, abs=2e-3)


@pytest.mark.parametrize(("rate", "kept"), [(10, 10), (30, 30), (50, 25), (60, 30)])
def test_fast_frames_are_thinned_out(tmp_path, rate, kept):
    video = video_file.read_video(write(tmp_path / "a.mp4", frames_of(rate), rate))
    assert abs(len(video.times) - kept) <= 1
    assert 1 / np.diff(video.times).mean() <= video_file.FASTEST
    assert ("frames a second are few" in " ".join(video.notes)) == (rate == 10)


def test_long_file_is_cut_with_a_note(tmp_path):
    path = write(tmp_path / "hour.avi", frames_of(3600), rate=1)
    video = video_file.read_video(path)
    assert video.times[-1] <= video_file.LONGEST
    assert "only the first 30 s of 3600 s" in " ".join(video.notes)


def test_broken_file_gives_what_can_be_read_or_one_line(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    whole = write(tmp_path / "whole.avi", noise).read_bytes()
    half = tmp_path / "half.avi"
    half.write_bytes(whole[: len(whole) // 2])
    assert 6 <= len(video_file.read_video(half).frames) < 60
    half.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="half.avi"):
        video_file.read_video(half)


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    text = tmp_path / "letter.mp4"
    text.write_text("Dear all\n" * 50)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    picture = tmp_path / "photo.png"
    Image.new("RGB", (64, 48)).save(picture)
    sound = write_sound_file(tmp_path / "song.m4a")
    short = write(tmp_path / "short.mp4", frames_of(3))
    words = {text: "no video, or broken", empty: "no video, or broken", picture: "a picture",
             sound: "no moving picture", short: "3 frames"}  # fmt: skip
    for path, expected in words.items():
        with pytest.raises(ValueError, match=expected) as caught:
            video_file.read_video(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        video_file.read_video(tmp_path / "nowhere.mp4")


def test_turned_frame_is_turned_back():
    class Turned:
        width, height, rotation = 64, 32, -90

        def reformat(self, width, height, *_, **__):
            pixels = frames_of(1, 32, 64)[0]
            small = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            return small.reformat(width, height, "rgb24")

    upright = video_file._pixels(Turned(), Fraction(1), 64)
    assert upright.shape == (64, 32, 3)
    assert (
        upright[:30, 16:].mean() > 3 * upright[34:, :].mean()
    )  # left of the top: now at its right


def test_written_video_holds_frames_times_and_sound(tmp_path):
    frames, rate = frames_of(20, 64, 64), 8000
    sound = np.zeros(rate, np.float32)
    sound[4000:4400] = np.sin(2 * np.pi * 500 * np.arange(400) / rate)
    path = video_file.write_video(
        tmp_path / "out.mp4", zip(np.arange(20) / 20, frames, strict=True), sound, rate
    )
    video = video_file.read_video(path)
    assert np.abs(video.frames.astype(int) - frames).mean() < 6
    np.testing.assert_allclose(video.times, np.arange(20) / 20, atol=1e-3)
    with av.open(str(path)) as container:
        blocks = [(b.pts / b.sample_rate, b.to_ndarray()[0]) for b in container.decode(audio=0)]
    heard = np.concatenate([block for _, block in blocks])
    start = blocks[0][0] + np.argmax(np.abs(heard) > 0.1) / video_file.AAC_RATE
    assert start == pytest.approx(0.5, abs=0.01)


def test_sound_is_added_to_frames_of_their_own_size(tmp_path):
    source = write(tmp_path / "in.mp4", frames_of(12, 90, 120))
    target = video_file.add_sound(source, tmp_path / "out.mkv", np.zeros(4800, np.float32), 8000)
    with av.open(str(target)) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (90, 120)
        assert len(container.streams.audio) == 1
    assert len(video_file.read_video(target).times) == 12


def test_failed_writing_leaves_nothing(tmp_path):
    def broken():
        yield 0.0, frames_of(1, 64, 64)[0]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        video_file.write_video(tmp_path / "out.mp4", broken(), np.zeros(100, np.float32), 8000)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must end in"):
        video_file.write_video(tmp_path / "out.txt", broken(), np.zeros(100, np.float32), 8000)
