"""Clips of bouncing balls: closed forms of the fall, of the sound, and of what is drawn."""

import math

import numpy as np
import pytest

from t2i_course.scenes import bouncing_balls as balls

BALL = balls.Ball("rubber", radius=0.1, x=0.5, drift=0.0, height=1.0, speed=0.0)
E = balls.MATERIALS["rubber"].restitution


def clip_of(*chosen, **options):
    return balls.Clip(chosen, **options)


def test_dropped_ball_lands_after_the_root_of_2h_over_g():
    first = balls.bounces(BALL, 2.0)[0]
    assert first.time == pytest.approx(math.sqrt(2 * 1.0 / balls.GRAVITY))
    assert first.speed == pytest.approx(math.sqrt(2 * balls.GRAVITY * 1.0))


def test_ball_thrown_up_comes_back_to_its_height_with_its_speed():
    thrown = balls.Ball("wood", 0.1, 0.5, 0.0, height=0.0, speed=3.0)
    first = balls.bounces(thrown, 2.0)[0]
    assert first.time == pytest.approx(2 * 3.0 / balls.GRAVITY)
    assert first.speed == pytest.approx(3.0)


def test_speeds_fall_by_the_restitution_and_flights_with_them():
    found = balls.bounces(BALL, 20.0)
    speeds = np.array([impact.speed for impact in found])
    np.testing.assert_allclose(speeds[1:], E * speeds[:-1])
    flights = np.diff([impact.time for impact in found])
    np.testing.assert_allclose(flights, 2 * speeds[1:] / balls.GRAVITY)
    assert speeds.min() >= balls.QUIETEST > E * speeds.min()


def test_height_is_zero_at_every_impact_and_above_between():
    found = balls.bounces(BALL, 20.0)
    times = np.array([impact.time for impact in found])
    np.testing.assert_allclose(balls.heights(BALL, times), 0, atol=1e-9)
    middles = (times[1:] + times[:-1]) / 2
    tops = [(E * impact.speed) ** 2 / (2 * balls.GRAVITY) for impact in found[:-1]]
    np.testing.assert_allclose(balls.heights(BALL, middles), tops)
    assert balls.heights(BALL, np.array([times[-1] + 1.0])) == 0  # it lies still


def test_drawn_ball_has_its_place_and_area_to_a_fraction_of_a_pixel():
    clip = clip_of(BALL, wall=(0, 0, 0), ground=(0, 0, 0))
    for time in (0.0, 0.131, 0.3):
        (frame,) = balls.render(clip, np.array([time]), 64)
        cover = frame[..., 0] / balls.MATERIALS["rubber"].color[0]
        scale = 64 / balls.VIEW
        assert cover.sum() == pytest.approx(math.pi * (0.1 * scale) ** 2, rel=0.02)
        height = 1.0 - balls.GRAVITY / 2 * time**2
        row = (cover.sum(axis=1) * (np.arange(64) + 0.5)).sum() / cover.sum()
        assert row == pytest.approx(64 - (clip.floor + 0.1 + height) * scale, abs=0.05)


def test_same_clip_drawn_larger_shows_the_same():
    clip = balls.draw_clip(np.random.default_rng(3))
    times = balls.frame_times(clip)[:3]
    large = balls.render(clip, times, 256).reshape(3, 64, 4, 64, 4, 3).mean(axis=(2, 4))
    assert np.abs(large - balls.render(clip, times, 64)).max() < 25  # at the edges
    assert np.abs(large - balls.render(clip, times, 64)).mean() < 0.5


def test_sound_is_silent_before_the_first_impact_and_rings_at_the_balls_pitch():
    ball = balls.Ball("metal", 0.2, 0.5, 0.0, height=1.0, speed=0.0)
    sound = balls.synthesise(clip_of(ball, seconds=1.0))
    first = balls.bounces(ball, 1.0)[0]
    start = math.ceil(first.time * balls.SOUND_RATE)
    assert not sound[:start].any() and sound[start : start + 20].any()
    spectrum = np.abs(np.fft.rfft(sound[start : start + 1600], 16000))
    assert spectrum.argmax() / 2 == pytest.approx(ball.pitch, rel=0.01)


def test_faster_impact_is_louder():
    slow, fast = (balls.Impact(0.0, speed, BALL) for speed in (1.0, 4.0))
    np.testing.assert_allclose(balls.ring(fast, 1.0), 4 * balls.ring(slow, 1.0), rtol=1e-5)


def test_drawn_clips_keep_to_the_frame_and_their_impacts_apart():
    rng = np.random.default_rng(0)
    for _ in range(40):
        clip = balls.draw_clip(rng)
        assert 1 <= len(clip.balls) <= balls.MOST_BALLS
        times = np.array([impact.time for impact in balls.impacts(clip)])
        assert np.diff(times).min(initial=1) >= balls.GAP * 0.999 or len(clip.balls) == 1
        moments = np.linspace(0, clip.seconds, 50)
        for ball in clip.balls:
            places = ball.x + ball.drift * moments
            assert (places >= ball.radius - 1e-9).all()
            assert (places <= balls.VIEW - ball.radius + 1e-9).all()
            top = balls.heights(ball, moments) + 2 * ball.radius + clip.floor
            assert top.max() <= balls.VIEW + 1e-9
        assert np.abs(balls.synthesise(clip)).max() <= 1


def test_too_many_balls_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        balls.draw_clip(np.random.default_rng(0), balls=9, radii=(0.21, 0.22))
