"""From frames to sound: the spectrogram, the clock of the slots, the networks, the shipped one."""

import math

import librosa
import numpy as np
import pytest
import torch

from t2i_course import video_to_audio as v2a
from t2i_course.metrics.sound_accuracy import measure, onsets
from t2i_course.scenes.bouncing_balls import SOUND_RATE, Ball, Clip, draw_clip, render, synthesise


@pytest.fixture
def network():
    torch.manual_seed(0)
    return v2a.VideoToAudio(width=12, latent=8, decoder_width=16).eval()


def sine(frequency, amplitude=1.0, seconds=1.0):
    time = torch.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return amplitude * torch.sin(2 * math.pi * frequency * time)


# The spectrogram


def test_sine_has_its_power_in_its_own_band_and_silence_none():
    middles = librosa.mel_frequencies(v2a.MELS + 2, fmin=v2a.LOWEST, fmax=SOUND_RATE / 2)[1:-1]
    for band in (10, 40, 80):
        for amplitude in (1.0, 0.1):
            found = v2a.log_mel(sine(float(middles[band]), amplitude)[None])[0, :, 60]
            assert found.argmax() == band
            level = v2a.FLOOR - v2a.FLOOR * float(found.max())
            assert level == pytest.approx(20 * math.log10(amplitude), abs=2.5)
    assert not v2a.log_mel(torch.zeros(1, 4000)).any()


def test_inverted_spectrogram_sounds_when_and_as_high_as_the_sound():
    clips = [draw_clip(np.random.default_rng(seed)) for seed in range(4)]
    spectrograms = v2a.log_mel(torch.from_numpy(np.stack([synthesise(clip) for clip in clips])))
    sounds = [v2a.invert(spectrogram, 16000) for spectrogram in spectrograms]
    found = measure(clips, sounds)
    assert found.f1.value > 0.95 and found.pitch.value > 0.95 and found.error < 5
    assert not v2a.invert(torch.zeros(v2a.MELS, 251), 16000).any()


# The clock


def test_slots_come_at_their_own_times_whatever_the_frames_do():
    times = torch.tensor([[0.0, 0.05, 0.1, 0.15], [0.0, 0.04, 0.12, 0.16]])
    apart = v2a.intervals(times)
    inside = (torch.arange(v2a.SLOTS) + 0.5) / v2a.SLOTS
    middles = (times[..., None] + apart[..., None] * inside).flatten(1)  # [2, 8 T]
    placed = v2a.place_slots(middles[..., None], times, 24)[..., 0]  # each slot says its time
    clock = torch.arange(24) * v2a.HOP / SOUND_RATE
    # interpolated between slots of one length; where that changes, by half a slot at most
    np.testing.assert_allclose(placed[0, 1:], clock[1:].clamp(max=middles[0, -1]), atol=1e-5)
    np.testing.assert_allclose(placed[1, 1:], clock[1:].clamp(max=middles[1, -1]), atol=0.004)


# The networks


def test_spectrogram_has_the_length_that_was_asked_for(network):
    for count, wide, length in ((12, 64, 80), (20, 128, 100)):
        frames = torch.rand(2, count, 3, 64, wide)
        times = (torch.arange(count) / 20).expand(2, -1)
        assert network(frames, times, length).shape == (2, v2a.MELS, length)


def test_balls_that_are_apart_add_up(network):
    times = (torch.arange(10) / 20)[None]

    def seen(*places):
        frames = torch.full((1, 10, 3, 64, 256), 0.5)
        for place in places:
            for step in range(10):
                frames[0, step, 0, 4 * step : 4 * step + 12, place : place + 12] = -0.5
        with torch.no_grad():
            return network.see(frames, times)

    both, none = seen(40, 200), seen()
    torch.testing.assert_close(both + none, seen(40) + seen(200), rtol=1e-4, atol=1e-5)
    assert (both - none).abs().max() > 1e-4


def test_training_learns_to_find_the_sound(monkeypatch):
    torch.manual_seed(0)
    small = v2a.VideoToAudio(width=24, latent=16, decoder_width=32)
    losses = np.array(v2a.fit(small, v2a.draw_batch, 25, progress=False))
    assert losses[-5:, 0].mean() < 0.8 * losses[:3, 0].mean()
    assert losses[-5:, 1].mean() < 0.95 * math.log(8)
    monkeypatch.setattr(v2a, "fit", lambda *_, **__: losses)
    _, metrics = v2a.train(25, 0, torch.device("cpu"), progress=False)
    assert metrics["InfoNCE at the end"] == round(losses[:, 1].mean(), 4)


# The shipped network


def test_shipped_network_hits_when_the_balls_do_at_their_pitch():
    shipped, card = v2a.load_video_to_audio()
    assert card["command"] == "python -m t2i_course train-sound --output video-to-audio"
    clips = [draw_clip(np.random.default_rng(900 + seed)) for seed in range(8)]
    found = measure(clips, [v2a.play(shipped, clip) for clip in clips])
    assert found.f1.value >= 0.9 and found.error <= 15 and found.pitch.value >= 0.8


def test_shipped_network_hears_nothing_where_nothing_moves():
    shipped, _ = v2a.load_video_to_audio()
    assert not v2a.play(shipped, Clip(())).any()
    hangs = render(Clip((Ball("metal", 0.15, 0.7, 0.0, height=0.4, speed=0.0),)), np.zeros(40))
    spectrogram = v2a.imagine(shipped, hangs, np.arange(40) / 20, 2.0)
    assert len(onsets(v2a.invert(spectrogram, 16000))) == 0
