"""Clips of bouncing balls with the sound of every bounce: the data of notebook 12.

A clip is a handful of numbers: balls with a material, a size and a throw. Everything else follows
in closed form, at any frame rate, frame size and length: when each ball hits the floor and how
fast, the frames, and the sound. Lengths are in metres, times in seconds.

    clip = draw_clip(np.random.default_rng(0))
    frames = render(clip, frame_times(clip))  # uint8 [T, H, W, 3]
    sound = synthesise(clip)                  # float32 [N], 8,000 a second
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

GRAVITY = 9.81  # m/s^2
VIEW = 1.5  # metres that a frame is wide and high
SOUND_RATE = 8000  # samples a second
QUIETEST = 1.0  # m/s; a ball that lands more slowly makes no sound and lies still
GAP = 0.06  # s between any two impacts of a clip, so that each has an onset of its own
RADII = (0.10, 0.22)  # metres
FRAME_RATES = (16.0, 25.0)  # frames a second
MOST_BALLS = 3


@dataclass(frozen=True)
class Material:
    """How a ball looks, bounces and sounds."""

    color: tuple[int, int, int]  # red, green and blue, 0 to 255
    restitution: float  # speed after an impact over speed before it
    ratios: tuple[float, ...]  # frequencies of its partials, over that of the fundamental
    strengths: tuple[float, ...]  # amplitudes of the partials; the fundamental's is 1
    decays: tuple[float, ...]  # seconds in which a partial falls to 1 / e


MATERIALS = {
    "rubber": Material((205, 50, 45), 0.82, (1.0, 2.0), (1.0, 0.25), (0.06, 0.03)),
    "wood": Material((225, 150, 50), 0.64, (1.0, 2.57), (1.0, 0.6), (0.04, 0.02)),
    "metal": Material((60, 90, 200), 0.72, (1.0, 1.48, 2.14, 2.9), (1.0, 0.45, 0.35, 0.25),
                      (0.18, 0.13, 0.10, 0.07)),
    "glass": Material((50, 170, 110), 0.76, (1.0, 2.32, 3.6), (1.0, 0.6, 0.4),
                      (0.10, 0.07, 0.05)),
}  # fmt: skip


@dataclass(frozen=True)
class Ball:
    """A ball, and its throw at time 0."""

    material: str  # a key of `MATERIALS`
    radius: float
    x: float  # of its centre, from the left edge
    drift: float  # its speed to the right
    height: float  # of its lowest point above the floor
    speed: float  # upwards

    @property
    def pitch(self) -> float:
        """Frequency of the fundamental, Hz: like that of a solid ball, inverse to its size."""
        return 100.0 / self.radius


@dataclass(frozen=True)
class Clip:
    """Balls above a floor, filmed from the side."""

    balls: tuple[Ball, ...]  # the front one last
    seconds: float = 2.0
    frame_rate: float = 20.0  # frames a second
    floor: float = 0.2  # height of the floor's edge above the lower edge of the frame
    wall: tuple[int, int, int] = (235, 235, 235)
    ground: tuple[int, int, int] = (120, 120, 120)


@dataclass(frozen=True, order=True)
class Impact:
    """A ball hits the floor, so many seconds from the start, with that speed."""

    time: float
    speed: float = field(compare=False)
    ball: Ball = field(compare=False)


def bounces(ball: Ball, seconds: float) -> list[Impact]:
    """When a ball hits the floor, and how fast, in closed form.

    From height h with the upward speed u, the ball is at h + u t - g t^2 / 2. It reaches the floor
    with speed v = sqrt(u^2 + 2 g h) after (u + v) / g, leaves it with e v, and comes back with that
    speed after 2 e v / g.
    """
    speed = math.sqrt(ball.speed**2 + 2 * GRAVITY * ball.height)
    time, found = (ball.speed + speed) / GRAVITY, []
    while time < seconds and speed >= QUIETEST:
        found.append(Impact(time, speed, ball))
        speed *= MATERIALS[ball.material].restitution
        time += 2 * speed / GRAVITY
    return found


def impacts(clip: Clip) -> list[Impact]:
    """All impacts of a clip, in the order of time."""
    return sorted(impact for ball in clip.balls for impact in bounces(ball, clip.seconds))


def heights(ball: Ball, times: np.ndarray) -> np.ndarray:
    """Height of a ball's lowest point above the floor, metres [T], at times [T]."""
    start, height, speed = (np.full(len(times), v) for v in (0.0, ball.height, ball.speed))
    for impact in bounces(ball, float(times.max(initial=0.0)) + 1e-9):
        after = times >= impact.time
        leaving = MATERIALS[ball.material].restitution * impact.speed
        start[after], height[after] = impact.time, 0.0
        speed[after] = leaving if leaving >= QUIETEST else 0.0  # else it lies still
    flown = times - start
    return np.maximum(height + speed * flown - GRAVITY / 2 * flown**2, 0.0)


def frame_times(clip: Clip) -> np.ndarray:
    """When the frames of a clip are taken, seconds [T]: at 0, 1 / rate, 2 / rate and so on."""
    return np.arange(round(clip.seconds * clip.frame_rate)) / clip.frame_rate


def render(clip: Clip, times: np.ndarray, side: int = 64) -> np.ndarray:
    """Draw a clip at times [T], with smooth edges: uint8 [T, side, side, 3]."""
    scale = side / VIEW  # pixels a metre
    middles = np.arange(side) + 0.5
    below = np.clip(middles - (side - clip.floor * scale) + 0.5, 0, 1)[:, None, None]  # [H, 1, 1]
    background = (1 - below) * np.array(clip.wall) + below * np.array(clip.ground)  # [H, 1, 3]
    frames = np.broadcast_to(background, (len(times), side, side, 3)).astype(np.float32)
    for ball in clip.balls:
        radius = ball.radius * scale
        x = (ball.x + ball.drift * times) * scale  # [T]
        y = side - (clip.floor + ball.radius + heights(ball, times)) * scale  # [T]
        left = max(math.floor(x.min() - radius - 1), 0)
        right = max(min(math.ceil(x.max() + radius + 1), side), left)
        across = middles[left:right] - x[:, None]  # [T, w]
        down = middles - y[:, None]  # [T, H]
        distance = np.hypot(across[:, None, :], down[:, :, None])  # [T, H, w]
        cover = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)[..., None]
        part = frames[:, :, left:right]
        part += cover * (np.array(MATERIALS[ball.material].color, np.float32) - part)
    return np.rint(frames).astype(np.uint8)


def ring(impact: Impact, seconds: float) -> np.ndarray:
    """The sound of one impact, float32 [N]: partials that fade, loud as the impact is fast."""
    material, pitch = MATERIALS[impact.ball.material], impact.ball.pitch
    time = np.arange(round(min(seconds, 7 * max(material.decays)) * SOUND_RATE)) / SOUND_RATE
    sound = np.zeros(len(time))
    for ratio, strength, decay in zip(
        material.ratios, material.strengths, material.decays, strict=True
    ):
        if ratio * pitch < 0.48 * SOUND_RATE:
            sound += strength * np.exp(-time / decay) * np.sin(2 * np.pi * ratio * pitch * time)
    return (0.07 * impact.speed * sound).astype(np.float32)


def synthesise(clip: Clip) -> np.ndarray:
    """The sound of a clip, float32 [N] within -1 to 1, `SOUND_RATE` samples a second."""
    sound = np.zeros(round(clip.seconds * SOUND_RATE), dtype=np.float32)
    for impact in impacts(clip):
        first = math.ceil(impact.time * SOUND_RATE)
        part = ring(impact, clip.seconds)[: len(sound) - first]
        sound[first : first + len(part)] += part
    return np.clip(sound, -1, 1)


# Clips drawn at random


def _throw(rng: np.random.Generator, radii: tuple[float, float], clip: Clip) -> Ball:
    """Draw a ball that stays in the frame."""
    radius = rng.uniform(*radii)
    x, end = rng.uniform(radius, VIEW - radius, size=2)
    end = np.clip(end, x - 0.3, x + 0.3)
    room = VIEW - clip.floor - 2 * radius
    height = rng.uniform(0.1, room)
    fastest = min(math.sqrt(2 * GRAVITY * (room - height)), 2.0)
    return Ball(
        str(rng.choice(list(MATERIALS))), float(radius), float(x), float(end - x) / clip.seconds,
        float(height), float(rng.uniform(-2.0, fastest)),
    )  # fmt: skip


def _fits(ball: Ball, others: Sequence[Ball], seconds: float) -> bool:
    """Whether a ball neither touches the others nor hits the floor when one of them does."""
    for other in others:
        gaps = [ball.x + ball.drift * t - other.x - other.drift * t for t in (0.0, seconds)]
        if gaps[0] * gaps[1] < 0 or min(map(abs, gaps)) < ball.radius + other.radius:
            return False
    hits = [impact.time for other in others for impact in bounces(other, seconds)]
    return all(abs(own.time - hit) >= GAP for own in bounces(ball, seconds) for hit in hits)


def draw_clip(
    rng: np.random.Generator,
    balls: int | None = None,
    frame_rate: float | None = None,
    radii: tuple[float, float] = RADII,
    seconds: float = 2.0,
) -> Clip:
    """Draw a clip at random.

    Args:
        rng: where its numbers come from.
        balls: how many; one to three if None.
        frame_rate: frames a second; 16 to 25 if None.
        radii: least and greatest radius.
        seconds: how long it lasts.

    Raises:
        ValueError: so many balls of that size do not fit into the frame.
    """
    count = int(rng.integers(1, MOST_BALLS + 1)) if balls is None else balls
    rate = float(rng.uniform(*FRAME_RATES)) if frame_rate is None else frame_rate
    wall, ground = (tuple(rng.integers(*of, size=3).tolist()) for of in ((170, 256), (60, 140)))
    clip = Clip((), seconds, rate, float(rng.uniform(0.1, 0.3)), wall, ground)
    for _ in range(200):
        chosen: list[Ball] = []
        for _ in range(100 * count):
            ball = _throw(rng, radii, clip)
            if _fits(ball, chosen, seconds):
                chosen.append(ball)
            if len(chosen) == count:
                return replace(clip, balls=tuple(chosen))
    raise ValueError(
        f"{count} balls of {radii[0]:g} to {radii[1]:g} m do not fit beside each other into "
        f"{VIEW:g} m: draw fewer or smaller ones"
    )
