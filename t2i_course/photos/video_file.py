"""Video files of any kind: small frames out of them, and a sound into them. Decoded by PyAV.

A stranger's file may have any size, frame rate and length, may be turned as phones turn it, and may
be no video at all. What is left out is said in `Video.notes`; what cannot be read is a ValueError
of one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy import signal

from t2i_course import runtime

LONGEST = 30.0  # seconds that are read
FASTEST = 31.0  # frames a second that are kept, so that 50 and 60 are halved and 30 are not
SLOWEST = 12.0  # frames a second: below that a bounce falls between two frames
FEWEST = 6  # frames
WIDEST = 2  # times as wide as high; the middle of a wider frame is taken
SUFFIXES = (".mp4", ".mov", ".mkv")  # what `write_video` writes
TALLEST = 720  # pixels of the frames that are written again
CLOCK = 90_000  # ticks a second of the written frames
COVER = av.stream.Disposition.attached_pic  # of a sound file
AAC_RATE = 48_000  # samples a second; AAC is late by 1,024 samples, and not every player knows


@dataclass(frozen=True)
class Video:
    """The small frames of a video file.

    Attributes:
        frames: uint8 [T, H, W, 3].
        times: seconds [T], the first 0; as the file gives them, evenly spaced or not.
        notes: what was left out or is doubtful, a sentence each.
    """

    frames: np.ndarray
    times: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasts: the last frame stands as long as the one before it."""
        return float(2 * self.times[-1] - self.times[-2])


def check_suffix(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """Return the path; one that ends in none of the suffixes is a ValueError."""
    path = Path(path).expanduser()
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: the name must end in {' or '.join(suffixes)}")
    return path


def _kept(path: Path) -> Iterator[tuple[float, np.ndarray, Fraction]]:
    """Yield time, frame and the shape of its pixels, until the file ends, or breaks off.

    Frames that come too fast, or with a clock that runs backwards, are left out.
    """
    first = last = None
    with av.open(str(path)) as container:
        streams = [s for s in container.streams.video if not s.disposition & COVER]
        if not streams:
            raise ValueError(f"{path} has no moving picture: it is a sound file, or empty")
        stream = streams[0]
        stream.thread_type = "AUTO"
        rate, shape = float(stream.average_rate or 25), stream.sample_aspect_ratio or Fraction(1)
        try:
            for index, frame in enumerate(container.decode(stream)):
                time = index / rate if frame.time is None else frame.time
                first = time if first is None else first
                if time - first > LONGEST:
                    return
                if last is None or time - last >= 1 / FASTEST:
                    last = time
                    yield time - first, frame, shape
        except av.FFmpegError:  # what was decoded before is still of use
            return


def _pixels(frame: av.VideoFrame, shape: Fraction, side: int) -> np.ndarray:
    """A frame as uint8 [side, W, 3], upright, with square pixels."""
    width, turns = frame.width * float(shape), round((frame.rotation or 0) / 90)
    height = float(frame.height)
    scale = side / (width if turns % 2 else height)
    size = [max(round(length * scale), 1) for length in (width, height)]
    small = frame.reformat(size[0], size[1], "rgb24", interpolation="AREA").to_ndarray()
    return np.rot90(small, turns)


def read_video(path: str | os.PathLike[str], side: int = 64) -> Video:
    """Read the frames of a video file, small.

    Args:
        path: any file that FFmpeg decodes.
        side: height of the frames, pixels; the width follows, at most twice as much.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken, or no video, or too short.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    frames, times, cut = [], [], False
    try:
        for time, frame, shape in _kept(path):
            small = _pixels(frame, shape, side)
            middle = max((small.shape[1] - WIDEST * side) // 2, 0)
            cut = cut or middle > 0
            frames.append(small[:, middle : middle + WIDEST * side])
            times.append(time)
    except av.FFmpegError as error:
        raise ValueError(f"{path} is no video, or broken ({error.strerror})") from error
    if len(frames) == 1:
        raise ValueError(f"{path} has one frame: it is a picture, and nothing moves in it")
    if len(frames) < FEWEST or any(part.shape != frames[0].shape for part in frames):
        raise ValueError(
            f"{path} has {len(frames)} frames that could be read: {FEWEST} of one size are needed"
        )
    video = Video(np.stack(frames), np.array(times))
    return replace(video, notes=tuple(_notes(path, video, cut)))


def _notes(path: Path, video: Video, cut: bool) -> Iterator[str]:
    """Say what of a file was left out or is doubtful."""
    with av.open(str(path)) as container:
        seconds = (container.duration or 0) / av.time_base
    if seconds > video.seconds + 1:
        read = min(video.seconds, LONGEST)
        yield f"only the first {read:.0f} s of {seconds:.0f} s were read"
    if cut:
        yield "the frames are very wide: their middle was read"
    rate = 1 / float(np.median(np.diff(video.times)))
    if rate < SLOWEST:
        yield f"{rate:.1f} frames a second are few: a bounce may fall between two of them"


def write_video(
    path: str | os.PathLike[str],
    frames: Iterator[tuple[float, np.ndarray]],
    sound: np.ndarray,
    sound_rate: int,
) -> Path:
    """Write a video with sound, H.264 and AAC.

    Args:
        path: ends in one of `SUFFIXES`, or it is a ValueError.
        frames: time in seconds and uint8 [H, W, 3] of even sides, all alike.
        sound: [N] within -1 to 1.
        sound_rate: samples a second.
    """
    path = check_suffix(path, SUFFIXES)
    with runtime.atomic_file(path) as partial, av.open(str(partial), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "fast", "crf": "18"})
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, CLOCK)
        audio = container.add_stream("aac", rate=AAC_RATE, layout="mono")
        for time, pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            video.width, video.height = frame.width, frame.height
            frame.pts, frame.time_base = round(time * CLOCK), Fraction(1, CLOCK)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = signal.resample_poly(sound, AAC_RATE, sound_rate).astype(np.float32)[None]
        block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")  # [1, N]
        block.sample_rate, block.pts, block.time_base = AAC_RATE, 0, Fraction(1, AAC_RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode())
    return path


def add_sound(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    sound: np.ndarray,
    sound_rate: int,
) -> Path:
    """Write the frames that `read_video` read of a source, in their own size, with a sound [N]."""

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for time, frame, shape in _kept(Path(source).expanduser()):
            turned = round((frame.rotation or 0) / 90) % 2
            height = frame.width * float(shape) if turned else frame.height
            pixels = _pixels(frame, shape, min(round(height), TALLEST) // 2 * 2)
            yield time, pixels[:, : pixels.shape[1] // 2 * 2]

    return write_video(target, frames(), sound, sound_rate)
