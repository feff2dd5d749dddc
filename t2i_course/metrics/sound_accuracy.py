"""Does a sound hit when the balls do, and at their pitch? Read without any training.

    onsets        when something begins to sound, by the rise of the spectrum
    match_onsets  which onset belongs to which impact, at most 50 ms apart
    pitch_after   the frequency that an impact adds to what was ringing before
    measure       precision, recall, error in milliseconds and in semitones, over many clips

The threshold was chosen on true sounds, so that a true sound finds its own impacts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import librosa
import numpy as np

from t2i_course.evaluation import Estimate, bootstrap_interval, wilson_interval
from t2i_course.scenes.bouncing_balls import SOUND_RATE, Clip, impacts

TOLERANCE = 0.05  # s between an impact and its onset
STEP = 32  # samples from one spectrum to the next, 4 ms
WINDOW = 256  # samples, 32 ms
LAG = 4  # spectra, 16 ms, over which a rise is measured
QUIET = -60.0  # dB below a sine of full scale: what is softer counts as silence
RISE = 2.5  # dB, mean over the bands
NEAREST = 0.028  # s between two onsets
PITCHES = (300.0, 1400.0)  # Hz, where fundamentals are looked for


def rises(sound: np.ndarray) -> np.ndarray:
    """How many dB each spectrum of a sound [N] has risen above the one 16 ms before.

    Mean over 32 bands, [1 + N // 32]; 0 where nothing rises, and in the last 16 ms, where a sound
    is cut off.
    """
    spectrum = librosa.stft(sound, n_fft=WINDOW, hop_length=STEP) / (WINDOW / 4)
    bands = librosa.filters.mel(sr=SOUND_RATE, n_fft=WINDOW, n_mels=32, norm=None)
    power = bands @ np.abs(spectrum) ** 2  # [32, N']
    level = 10 * np.log10(np.maximum(power, 10 ** (QUIET / 10)))
    rise = np.maximum(level[:, LAG:] - level[:, :-LAG], 0).mean(axis=0)
    rise[-(WINDOW // 2 // STEP) :] = 0
    return np.concatenate([np.zeros(LAG), rise])


def onsets(sound: np.ndarray) -> np.ndarray:
    """When something begins to sound, seconds [K]: peaks of `rises` of 2.5 dB or more."""
    rise = rises(sound)
    reach = round(NEAREST * SOUND_RATE / STEP)
    peaks = librosa.util.peak_pick(
        rise, pre_max=reach, post_max=reach, pre_avg=0, post_avg=1, delta=0, wait=reach
    )
    return peaks[rise[peaks] >= RISE] * STEP / SOUND_RATE


def match_onsets(
    true: np.ndarray | Sequence[float],
    found: np.ndarray | Sequence[float],
    tolerance: float = TOLERANCE,
) -> list[tuple[int, int]]:
    """Pair as many true times with found ones as can be, each used once: (i, j), rising.

    Both, in seconds and rising, are walked through in order; whichever is earlier and too far from
    the other is left behind. On a line, with one tolerance for all, no matching has more pairs.
    """
    pairs, i, j = [], 0, 0
    while i < len(true) and j < len(found):
        if abs(true[i] - found[j]) <= tolerance:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif true[i] < found[j]:
            i += 1
        else:
            j += 1
    return pairs


def pitch_after(sound: np.ndarray, time: float, end: float) -> float:
    """The frequency that is stronger after an onset than before it, by the most power.

    Of a sound [N], the onset's time and that of the next sound, seconds; at most 60 ms are read.
    Returns Hz, within `PITCHES`; NaN if nothing has become stronger.
    """
    length = round(min(0.06, end - time - 0.002) * SOUND_RATE)
    if length < 64:
        return math.nan
    first = round(time * SOUND_RATE)
    padded = np.pad(sound, length)  # silence on both sides: a window may begin before 0
    parts = padded[first + length :][:length], padded[first : first + length]
    window = np.hanning(2 * length)[length:]  # it falls, as sounds do
    after, before = (np.abs(np.fft.rfft(part * window, 8192)) ** 2 for part in parts)
    frequencies = np.fft.rfftfreq(8192, 1 / SOUND_RATE)
    inside = (frequencies >= PITCHES[0]) & (frequencies <= PITCHES[1])
    gain = np.where(inside, after - before, 0)
    return float(frequencies[gain.argmax()]) if gain.max() > 0 else math.nan


@dataclass(frozen=True)
class SoundAccuracy:
    """How well sounds fit the impacts of their clips; the medians are NaN if no pair was found."""

    precision: Estimate  # share of the onsets that are an impact's
    recall: Estimate  # share of the impacts that have an onset
    f1: Estimate  # harmonic mean of the two, over all impacts of all clips
    error: float  # median distance between an impact and its onset, ms
    bias: float  # median of onset less impact, ms
    pitch: Estimate  # share of the found impacts whose pitch is right to half a semitone
    pitch_error: float  # median distance of the pitches, semitones


def compare(clip: Clip, sound: np.ndarray) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Compare a sound with its clip.

    Returns:
        Number of impacts, number of onsets, and for each pair the error [K] in seconds and the
        distance of the pitches [K] in semitones, infinite where no pitch was heard.
    """
    true, found = impacts(clip), onsets(sound)
    times = [impact.time for impact in true]
    pairs = match_onsets(times, found)
    ends = [*times[1:], clip.seconds]
    heard = [pitch_after(sound, found[j], ends[i]) for i, j in pairs]
    late = np.array([found[j] - times[i] for i, j in pairs])
    pitches = np.array([true[i].ball.pitch for i, _ in pairs])
    apart = np.abs(12 * np.log2(np.array(heard) / pitches)) if pairs else np.zeros(0)
    return len(true), len(found), late, np.nan_to_num(apart, nan=np.inf)


def measure(clips: Sequence[Clip], sounds: Sequence[np.ndarray]) -> SoundAccuracy:
    """Compare sounds with their clips, one of each, over all impacts."""
    if not clips or len(clips) != len(sounds):
        raise ValueError(f"{len(sounds)} sounds for {len(clips)} clips: give one for each")
    compared = [compare(clip, sound) for clip, sound in zip(clips, sounds, strict=True)]
    counts = np.array([(true, found, len(late)) for true, found, late, _ in compared])  # [C, 3]
    true, found, hits = counts.sum(axis=0)
    if true == 0:
        raise ValueError("the clips have no impact: there is nothing to compare")

    def f1(rows: np.ndarray) -> float:
        true, found, hits = rows.sum(axis=0)
        return float(2 * hits / max(true + found, 1))

    def share(part: int, whole: int) -> Estimate:
        value = float(part / whole) if whole else 0.0
        return Estimate(value, wilson_interval(value, int(whole)) if whole else None, int(whole))

    late = np.concatenate([late for _, _, late, _ in compared])
    apart = np.concatenate([apart for *_, apart in compared])
    return SoundAccuracy(
        precision=share(hits, found),
        recall=share(hits, true),
        f1=bootstrap_interval(f1, counts, limits=(0, 1)),
        error=1000 * float(np.median(np.abs(late))) if hits else math.nan,
        bias=1000 * float(np.median(late)) if hits else math.nan,
        pitch=share((apart <= 0.5).sum(), hits),
        pitch_error=float(np.median(apart)) if hits else math.nan,
    )
