"""Onsets, their matching and pitches, on sounds whose answers are known."""

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from t2i_course.metrics import sound_accuracy as accuracy
from t2i_course.scenes import bouncing_balls as balls

CLIPS = [balls.draw_clip(np.random.default_rng(seed)) for seed in range(6)]


def tone(frequency, start, seconds=1.0, strength=0.3):
    time = np.arange(round(seconds * balls.SOUND_RATE)) / balls.SOUND_RATE - start
    ringing = np.exp(-np.maximum(time, 0) / 0.1) * np.sin(2 * np.pi * frequency * time)
    return strength * np.where(time >= 0, ringing, 0).astype(np.float32)


def test_onset_of_a_tone_is_found_within_5_ms():
    for start in (0.1, 0.3333, 0.7):
        (found,) = accuracy.onsets(tone(600, start))
        assert found == pytest.approx(start, abs=0.005)


def test_silence_has_no_onset_and_a_steady_tone_none_where_it_is_cut_off():
    assert len(accuracy.onsets(np.zeros(8000, np.float32))) == 0
    steady = 0.3 * np.sin(2 * np.pi * 500 * np.arange(8000) / balls.SOUND_RATE)
    assert all(time < 0.05 for time in accuracy.onsets(steady.astype(np.float32)))


def test_matching_pairs_as_many_as_the_best_assignment():
    rng = np.random.default_rng(0)
    for _ in range(200):
        true, found = (np.sort(rng.uniform(0, 1, rng.integers(0, 12))) for _ in range(2))
        pairs = accuracy.match_onsets(true, found)
        assert all(abs(true[i] - found[j]) <= accuracy.TOLERANCE for i, j in pairs)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        near = np.abs(true[:, None] - found[None]) <= accuracy.TOLERANCE
        rows, columns = linear_sum_assignment(near, maximize=True)
        assert len(pairs) == near[rows, columns].sum()


def test_one_onset_serves_one_impact_only():
    assert accuracy.match_onsets([0.50, 0.52], [0.51]) == [(0, 0)]
    assert accuracy.match_onsets([0.5], [0.56]) == []


def test_pitch_is_that_of_what_begins_not_of_what_was_ringing():
    for frequency in (420.0, 777.0, 990.0):
        sound = tone(600, 0.1, strength=0.5) + tone(frequency, 0.5, strength=0.1)
        assert accuracy.pitch_after(sound, 0.5, 1.0) == pytest.approx(frequency, rel=0.01)


def test_true_sounds_find_their_own_impacts():
    found = accuracy.measure(CLIPS, [balls.synthesise(clip) for clip in CLIPS])
    assert found.f1.value > 0.95 and found.pitch.value > 0.95
    assert found.error < 3 and found.pitch_error < 0.1


def test_late_sounds_are_late_and_shuffled_ones_wrong():
    sounds = [balls.synthesise(clip) for clip in CLIPS]
    late = [np.concatenate([np.zeros(160, np.float32), sound[:-160]]) for sound in sounds]
    assert accuracy.measure(CLIPS, late).bias == pytest.approx(20, abs=4)
    shuffled = accuracy.measure(CLIPS, sounds[1:] + sounds[:1])
    assert shuffled.f1.value < 0.7 and shuffled.pitch.value < 0.6


def test_silence_finds_nothing_and_claims_nothing():
    found = accuracy.measure(CLIPS, [np.zeros(16000, np.float32) for _ in CLIPS])
    assert found.precision.value == found.recall.value == found.f1.value == 0
    assert math.isnan(found.error) and math.isnan(found.pitch_error)


def test_sounds_and_clips_must_be_equally_many():
    with pytest.raises(ValueError, match="one for each"):
        accuracy.measure(CLIPS, [])
    still = balls.Clip((balls.Ball("wood", 0.1, 0.5, 0, 0.0, 0.0),))
    with pytest.raises(ValueError, match="no impact"):
        accuracy.measure([still], [np.zeros(16000, np.float32)])
