"""Measure video to audio on held-out clips: onsets, pitch, FD-sounds, retrieval.

    python benchmarks/video_to_audio.py             prints the figures
    python benchmarks/video_to_audio.py --ledger    writes data/results/video_to_audio.json

The network stands beside silence, beside the inverted mean spectrogram of training clips, beside
the true sounds of impacts that were moved to the nearest frame, and beside the true spectrogram
through the same inversion, which is the ceiling. Then come clips such as it has never seen: other
sizes, other frame rates, more balls, and frames out of an H.264 file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from t2i_course import report, runtime, video_to_audio
from t2i_course.evaluation import Estimate, frechet, retrieval, wilson_interval
from t2i_course.metrics import sound_features
from t2i_course.metrics.sound_accuracy import SoundAccuracy, measure
from t2i_course.photos import video_file
from t2i_course.scenes import bouncing_balls as balls

TEST, TRAIN, OTHER = 20_260, 20_261, 20_262  # seeds: no clip of the training's
UNSEEN = {
    "smaller balls": {"radii": (0.08, 0.095)},
    "larger balls": {"radii": (0.23, 0.28), "balls": 2},
    "four balls": {"balls": 4, "radii": (0.10, 0.15)},
    "12 frames a second": {"frame_rate": 12.0},
    "14 frames a second": {"frame_rate": 14.0},
    "30 frames a second": {"frame_rate": 30.0},
}


def draw(seed: int, count: int, **options: object) -> list[balls.Clip]:
    """Draw held-out clips."""
    rng = np.random.default_rng(seed)
    return [balls.draw_clip(rng, **options) for _ in range(count)]


def through_inversion(clip: balls.Clip) -> np.ndarray:
    """The true spectrogram, inverted."""
    sound = balls.synthesise(clip)
    spectrogram = video_to_audio.log_mel(torch.from_numpy(sound)[None])[0]
    return video_to_audio.invert(spectrogram, len(sound))


def at_frames(clip: balls.Clip) -> np.ndarray:
    """The true sounds, each moved to the nearest frame: all that the frames' times alone allow."""
    sound = np.zeros(round(clip.seconds * balls.SOUND_RATE), np.float32)
    for impact in balls.impacts(clip):
        moment = round(impact.time * clip.frame_rate) / clip.frame_rate
        first = min(round(moment * balls.SOUND_RATE), len(sound))
        part = balls.ring(impact, clip.seconds)[: len(sound) - first]
        sound[first : first + len(part)] += part
    return sound


def from_file(network: video_to_audio.VideoToAudio, clip: balls.Clip) -> np.ndarray:
    """What the network hears in a compressed file of 256 x 256 pixels."""
    times, true = balls.frame_times(clip), balls.synthesise(clip)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        frames = zip(times, balls.render(clip, times, 256), strict=True)
        video_file.write_video(path, frames, true, balls.SOUND_RATE)
        seen = video_file.read_video(path)
    spectrogram = video_to_audio.imagine(network, seen.frames, seen.times, clip.seconds)
    return video_to_audio.invert(spectrogram, len(true))


def mean_sound(count: int) -> np.ndarray:
    """The mean spectrogram of training clips, inverted."""
    sounds = [balls.synthesise(clip) for clip in draw(TRAIN, count)]
    mean = sound_features.spectrograms(sounds).mean(dim=0)  # [M, N]
    return video_to_audio.invert(mean, len(sounds[0]))


def estimates(found: SoundAccuracy, clips: int) -> Iterator[tuple[str, str, Estimate]]:
    """Name, unit and value of everything that was measured and is a number."""
    for name in ("precision", "recall", "f1", "pitch"):
        value = getattr(found, name)
        if value.samples:  # silence has no onset of which a share could be right
            yield name, "share", value
    for name, unit in (("error", "ms"), ("bias", "ms"), ("pitch_error", "semitones")):
        value = getattr(found, name)
        if np.isfinite(value):
            yield name, unit, Estimate(value, None, clips)


def embeddings(
    network: video_to_audio.VideoToAudio, clips: Sequence[balls.Clip]
) -> tuple[np.ndarray, np.ndarray]:
    """Places of clips and of their sounds in the shared space, [C, D] each."""
    seen, heard = [], []
    with torch.inference_mode():
        for clip in clips:
            frames, times, spectrogram = video_to_audio.to_tensors([clip])
            track = network.track(frames, times, spectrogram.shape[-1])
            seen.append(network.embed_track(track)[0].numpy())
            heard.append(network.embed_sound(spectrogram)[0].numpy())
    return np.stack(seen), np.stack(heard)


def other_sizes(clip: balls.Clip, rng: np.random.Generator) -> balls.Clip:
    """The same bounces by balls of other sizes."""
    changed = [replace(ball, radius=float(rng.uniform(*balls.RADII))) for ball in clip.balls]
    return replace(clip, balls=tuple(changed))


def same_bounces(
    network: video_to_audio.VideoToAudio, clips: Sequence[balls.Clip], others: int = 9
) -> Estimate:
    """How often a clip is nearer to its sound than to those of other sizes at the same times."""
    rng, right = np.random.default_rng(OTHER), 0
    seen, heard = embeddings(network, clips)
    for clip, place, own in zip(clips, seen, heard, strict=True):
        sounds = [balls.synthesise(other_sizes(clip, rng)) for _ in range(others)]
        with torch.inference_mode():
            there = network.embed_sound(sound_features.spectrograms(sounds)).numpy()  # [9, D]
        right += int(place @ own > (there @ place).max())
    share = right / len(clips)
    return Estimate(share, wilson_interval(share, len(clips)), len(clips))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=video_to_audio.NAME, help="a checkpoint")
    parser.add_argument("--clips", type=int, default=300, help="held-out clips (300)")
    parser.add_argument("--ledger", action="store_true", help="write rows of the results ledger")
    arguments = parser.parse_args()
    network, _ = video_to_audio.load_video_to_audio(arguments.model)
    ears = sound_features.load_sound_features()
    count, unseen = arguments.clips, max(arguments.clips // 3, 2)
    rows: list[report.Row] = []
    command = f"python benchmarks/video_to_audio.py --clips {count} --ledger"

    def keep(system: str, what: str, unit: str, found: Estimate, start: float) -> None:
        print(f"{system}: {what} {found}", flush=True)
        rows.append(report.Row(
            id=f"video-to-audio-{report.slug(f'{system} {what}')}",
            metric=f"video to audio, {system}: {what}, {unit}", value=found.value,
            interval=found.interval, samples=max(found.samples, 1), seeds=(TEST,), split="test",
            extractor="onsets of the sound", data="bouncing balls", hardware=runtime.hardware(),
            seconds=round(time.perf_counter() - start, 1), command=command,
        ))  # fmt: skip

    def judge(
        system: str, clips: Sequence[balls.Clip], make: Callable[[balls.Clip], np.ndarray]
    ) -> list[np.ndarray]:
        start = time.perf_counter()
        sounds = [make(clip) for clip in clips]
        for what, unit, found in estimates(measure(clips, sounds), len(clips)):
            keep(system, what, unit, found, start)
        return sounds

    clips, mean = draw(TEST, count), mean_sound(500)
    real = sound_features.features_of(ears, [balls.synthesise(c) for c in draw(OTHER, count)])
    systems = {
        "network": lambda clip: video_to_audio.play(network, clip),
        "true spectrogram inverted": through_inversion,
        "true sound": balls.synthesise,
        "true sound at the nearest frame": at_frames,
        "mean spectrogram": lambda clip: mean,
        "silence": lambda clip: np.zeros_like(mean),
    }
    for system, make in systems.items():
        start = time.perf_counter()
        sounds = judge(system, clips, make)
        features = sound_features.features_of(ears, sounds)
        keep(system, "FD-sounds", "features of sound-features",
             frechet(real, features, allow_few=True), start)  # fmt: skip
    judge("frames of an H.264 file", clips[:unseen], lambda clip: from_file(network, clip))
    for name, options in UNSEEN.items():
        judge(name, draw(TEST, unseen, **options), systems["network"])
    start = time.perf_counter()
    found = retrieval(*embeddings(network, clips), candidates=min(100, count))
    keep("shared space", "R@1 of sounds for a clip", "share", found["R@1"], start)
    keep("shared space", "own sound before nine of other sizes", "share",
         same_bounces(network, clips[:unseen]), start)  # fmt: skip
    if arguments.ledger:
        print(f"written: {report.add_rows('video_to_audio.json', rows).name}")


if __name__ == "__main__":
    main()
