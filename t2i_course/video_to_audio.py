"""From the frames of a clip to its sound: encoder, shared space, decoder, and the way to a wave.

    frames [B, T, 3, 64, W] at times [B, T]
      FrameEncoder   what sounds, times when it does        -> track [B, N, L], one vector each 8 ms
      SoundDecoder   the track, spread out in time and pitch -> log mel spectrogram [B, M, N]
      invert         Griffin and Lim's algorithm            -> sound
    The sound has an encoder, too: InfoNCE brings the track of a clip and that of its sound
    together.

Frames are 40 to 60 ms apart and an ear hears 10. So frames keep the times at which they were
taken, and every interval between two of them is divided into eight slots.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course import checkpoints, runtime
from t2i_course.latent_space import info_nce
from t2i_course.metrics.networks import descend
from t2i_course.scenes.bouncing_balls import (
    FRAME_RATES,
    SOUND_RATE,
    Clip,
    draw_clip,
    frame_times,
    render,
    synthesise,
)

NAME = "video-to-audio"
SIDE = 64  # height of the frames, pixels
SLOTS = 8  # parts of the interval between two frames
HOP = 64  # samples, 8 ms, from one spectrum to the next
WINDOW = 384  # samples, 48 ms
MELS = 96
LOWEST = 200.0  # Hz
FLOOR = -70.0  # dB below a sine of full scale; what is softer counts as silence
GATE = 0.1  # of the scaled level, 7 dB above the floor: what is softer is hiss, and is not played
POOL = 5  # spectra, 40 ms, that the shared space looks at together
CONTRAST = 0.003  # weight of InfoNCE beside the squared error, which is far smaller


# Sound and spectrogram


@functools.cache
def mel_filters() -> Tensor:
    """The triangular filters of the mel scale, float32 [M, 1 + WINDOW // 2], each of height 1."""
    return torch.from_numpy(
        librosa.filters.mel(sr=SOUND_RATE, n_fft=WINDOW, n_mels=MELS, fmin=LOWEST, norm=None)
    )


def log_mel(sound: Tensor) -> Tensor:
    """Turn sound into the level of its mel bands.

        X = |STFT(x)|^2,  S = max(10 log10(F X), -70),  scaled from [-70, 0] to [0, 1]

    Args:
        sound: [B, samples] within -1 to 1.

    Returns:
        [B, M, N] with N = 1 + samples // HOP; the n-th spectrum is centred at n * HOP samples.
    """
    window = torch.hann_window(WINDOW, device=sound.device)
    spectrum = torch.stft(
        sound, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True
    )  # [B, 1 + WINDOW // 2, N]
    power = (spectrum.abs() / (WINDOW / 4)) ** 2  # a sine of amplitude 1 has 1
    level = 10 * (mel_filters().to(sound.device) @ power).clamp_min(1e-9).log10()  # dB
    return (level.clamp_min(FLOOR) - FLOOR) / -FLOOR


def invert(spectrogram: Tensor | np.ndarray, samples: int, iterations: int = 32) -> np.ndarray:
    """Find a sound that has a spectrogram, by the algorithm of Griffin and Lim (griffin1984stft).

    Args:
        spectrogram: [M, N] as `log_mel` scales it.
        samples: length of the sound.
        iterations: from magnitudes and phases to a sound, and back to the phases of that.

    Returns:
        float32 [samples] within -1 to 1.
    """
    scaled = torch.as_tensor(spectrogram).detach().double().cpu().numpy()  # [M, N]
    power = np.where(scaled > GATE, 10 ** ((FLOOR - FLOOR * scaled) / 10), 0)
    power = np.maximum(np.linalg.pinv(mel_filters().double().numpy()) @ power, 0)
    magnitude = (np.sqrt(power) * WINDOW / 4).astype(np.float32)  # [1 + WINDOW // 2, N]
    sound = librosa.griffinlim(
        magnitude, n_iter=iterations, hop_length=HOP, n_fft=WINDOW, length=samples,
        pad_mode="constant", random_state=0,
    )  # fmt: skip
    return np.clip(sound, -1, 1).astype(np.float32)


# Networks


def convolution(inputs: int, outputs: int, kernel: tuple[int, int], stride: int | tuple = 1,
                pad: tuple[int, int] | None = None) -> nn.Sequential:  # fmt: skip
    """A convolution with batch normalization and a rectifier; it keeps the size if stride is 1."""
    pad = (kernel[0] // 2, kernel[1] // 2) if pad is None else pad
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class FrameEncoder(nn.Module):
    """From frames to a track of vectors: a 3D convolution in two parts (tran2018closer).

    First every frame is looked at by itself, down to one vector for each of its columns; then each
    column is followed through time. What a column adds to the track is a product: when something
    sounds, a number for each slot, times what sounds, a vector. The columns are summed up, as
    sounds are, so that one more ball is one more summand.
    """

    def __init__(self, width: int = 96, latent: int = 64) -> None:
        """Build it for frames of 64 pixels height and any width."""
        super().__init__()
        self.look = nn.Sequential(
            convolution(4, 16, (5, 5), 2),  # [16, 32, W / 2]; colours and height
            convolution(16, 32, (3, 3), 2),  # [32, 16, W / 4]
            convolution(32, 48, (3, 3), (2, 1)),  # [48, 8, W / 4]
            convolution(48, width, (8, 3), 1, (0, 1)),  # [C, 1, W / 4]
        )
        self.follow = nn.ModuleList(
            convolution(width + 2 * (n == 0), width, (5, 3)) for n in range(3)
        )  # over frames and columns; the first one hears how far the frames are apart
        self.when = nn.Conv2d(width, SLOTS, 1)
        self.what = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, latent, 1)
        )

    def columns(self, frames: Tensor) -> Tensor:
        """Look at every frame: [B, T, 3, 64, W] in [-1, 1] -> [B, C, T, W / 4]."""
        batch, length, _, high, wide = frames.shape
        row = torch.linspace(-1, 1, high, device=frames.device)[:, None].expand(high, wide)
        row = row.expand(batch * length, 1, high, wide)
        x = torch.cat([frames.flatten(0, 1), row], dim=1)  # [B T, 4, 64, W]
        x = self.look(x.contiguous(memory_format=torch.channels_last))  # [B T, C, 1, W / 4]
        return x[:, :, 0].unflatten(0, (batch, length)).transpose(1, 2)

    def forward(self, frames: Tensor, times: Tensor) -> Tensor:
        """See and follow: frames [B, T, 3, 64, W] at times [B, T] -> slots [B, 8 T, L]."""
        x = self.columns(frames)  # [B, C, T, W / 4]
        apart = intervals(times)  # [B, T]
        apart = torch.stack([apart, apart.roll(1, dims=1)], dim=1)  # [B, 2, T]: after and before
        apart = (20 * apart - 1)[..., None].expand(-1, -1, -1, x.shape[-1]).to(x)
        x = self.follow[0](torch.cat([x, apart], dim=1))
        for layer in self.follow[1:]:
            x = x + layer(x)
        when = torch.sigmoid(self.when(x).float() - 3)  # [B, 8, T, W / 4]; silence is usual
        what = self.what(x).float()  # [B, L, T, W / 4]
        return torch.einsum("bstw,bltw->btsl", when, what).flatten(1, 2)


def intervals(times: Tensor) -> Tensor:
    """Seconds from each frame to the next, [B, T]; the last stands as long as the one before."""
    apart = times.diff(dim=1)
    return torch.cat([apart, apart[:, -1:]], dim=1)


def place_slots(slots: Tensor, times: Tensor, length: int) -> Tensor:
    """Move slots to the sound's own clock, by linear interpolation between their middles.

    Args:
        slots: [B, 8 T, L], eight in the interval after each frame.
        times: of the frames, seconds [B, T], rising.
        length: N, spectra of the sound, one every 8 ms from 0 on: [B, N, L] is returned.
    """
    batch, frames = times.shape
    clock = (torch.arange(length, device=times.device) * (HOP / SOUND_RATE)).expand(batch, -1)
    frame = torch.searchsorted(times.contiguous(), clock.contiguous(), right=True) - 1
    frame = frame.clamp(0, frames - 1)  # [B, N]: the last one before
    passed = (clock - times.gather(1, frame)) / intervals(times).gather(1, frame)
    place = ((frame + passed) * SLOTS - 0.5).clamp(0, frames * SLOTS - 1)  # [B, N]
    low = place.floor().long().clamp(max=frames * SLOTS - 2)
    weight = (place - low)[..., None]  # [B, N, 1]
    row = torch.arange(batch, device=times.device)[:, None]
    return slots[row, low] * (1 - weight) + slots[row, low + 1] * weight


class SoundDecoder(nn.Module):
    """From a track to a log mel spectrogram: convolutions that reach ever further in time."""

    def __init__(self, latent: int = 64, width: int = 128, depth: int = 6) -> None:
        """Build it; `depth` layers reach 2 ** depth spectra to both sides."""
        super().__init__()
        self.enter = nn.Conv1d(latent, width, 3, padding=1)
        self.spread = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**n, dilation=2**n) for n in range(depth)
        )
        self.leave = nn.Sequential(
            nn.ReLU(), nn.Conv1d(width, 2 * width, 1), nn.ReLU(), nn.Conv1d(2 * width, MELS, 1)
        )

    def forward(self, track: Tensor) -> Tensor:
        """Decode [B, N, L] into [B, M, N], scaled as `log_mel` does."""
        x = self.enter(track.transpose(1, 2))  # [B, C, N]
        for layer in self.spread:
            x = x + functional.relu(layer(functional.relu(x)))
        return self.leave(x)


class SoundEncoder(nn.Module):
    """From a log mel spectrogram to the shared space."""

    def __init__(self, width: int = 64, shared: int = 16) -> None:
        """Build it."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(MELS, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, shared, 1),
        )  # fmt: skip

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Encode [B, M, N] into [B, E, N]."""
        return self.layers(spectrogram)


class VideoToAudio(nn.Module):
    """Frames to spectrogram, and both into one space; `name` and `config` are for its card."""

    def __init__(self, width: int = 96, latent: int = 64, decoder_width: int = 128) -> None:
        """Build it, with random weights."""
        super().__init__()
        self.name = NAME
        self.config = {"width": width, "latent": latent, "decoder_width": decoder_width}
        self.see = FrameEncoder(width, latent)
        self.hear = SoundEncoder()
        self.decode = SoundDecoder(latent, decoder_width)
        self.share = nn.Conv1d(latent, 16, 1)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())  # 1 / temperature

    def track(self, frames: Tensor, times: Tensor, length: int) -> Tensor:
        """What is to be heard, every 8 ms: [B, N, L]."""
        return place_slots(self.see(frames, times), times, length)

    def forward(self, frames: Tensor, times: Tensor, length: int) -> Tensor:
        """Turn frames [B, T, 3, 64, W] in [-1, 1] at times [B, T] into [B, M, N]."""
        return self.decode(self.track(frames, times, length))

    def embed_track(self, track: Tensor) -> Tensor:
        """A clip's place in the shared space, [B, E K] of length 1: a vector for every 40 ms."""
        return unit(functional.avg_pool1d(self.share(track.transpose(1, 2)), POOL))

    def embed_sound(self, spectrogram: Tensor) -> Tensor:
        """A sound's place in the shared space, [B, E K] of length 1."""
        return unit(functional.avg_pool1d(self.hear(spectrogram), POOL))

    def losses(self, frames: Tensor, times: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of the spectrogram, and InfoNCE between clips and sounds.

        Args:
            frames: [B, T, 3, 64, W] in [-1, 1].
            times: seconds [B, T].
            target: log mel spectrograms of the sounds, [B, M, N].
        """
        track = self.track(frames, times, target.shape[-1])  # [B, N, L]
        error = functional.mse_loss(self.decode(track).float(), target)
        scale = self.log_scale.exp().clamp(max=100)
        return error, info_nce(self.embed_track(track), self.embed_sound(target), scale)


def unit(tracks: Tensor) -> Tensor:
    """Tracks [B, E, K] as vectors [B, E K] of length 1."""
    return functional.normalize(tracks.float().flatten(1), dim=1)


# Training


def to_tensors(clips: Sequence[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Frames [B, T, 3, 64, 64] in [-1, 1], times [B, T], spectrograms [B, M, N] of like clips."""
    times = np.stack([frame_times(clip) for clip in clips])  # [B, T]
    drawn = np.stack([render(clip, at, SIDE) for clip, at in zip(clips, times, strict=True)])
    sounds = torch.from_numpy(np.stack([synthesise(clip) for clip in clips]))  # [B, samples]
    return scale_frames(drawn), torch.from_numpy(times).float(), log_mel(sounds)


def scale_frames(frames: np.ndarray) -> Tensor:
    """Turn uint8 [..., H, W, 3] into floats in [-1, 1], [..., 3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 127.5 - 1


def fit(
    network: VideoToAudio,
    draw: Callable[[np.random.Generator], list[Clip]],
    steps: int,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> list[tuple[float, float]]:
    """Train a network, on the device, on clips that are drawn as it goes; no clip comes twice.

    Args:
        network: what learns.
        draw: makes a batch of clips of one frame rate and length.
        steps: updates.
        learning_rate: the highest.
        seed: of the clips.
        device: where it runs.
        progress: show a bar.

    Returns:
        Squared error and InfoNCE of each step.
    """
    device, rng = torch.device(device), np.random.default_rng(seed)
    found: list[tuple[float, float]] = []

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        error, contrast = network.losses(*(part.to(device) for part in batch))
        found.append((error.item(), contrast.item()))
        return error + CONTRAST * contrast

    batches = (to_tensors(draw(rng)) for _ in itertools.count())
    descend(network, loss, batches, steps, learning_rate, device, progress=progress)
    return found


def draw_batch(rng: np.random.Generator, size: int = 8) -> list[Clip]:
    """Draw clips that share a frame rate, so that they have equally many frames."""
    rate = float(rng.uniform(*FRAME_RATES))
    return [draw_clip(rng, frame_rate=rate) for _ in range(size)]


def train(
    steps: int, seed: int, device: torch.device, progress: bool = True
) -> tuple[VideoToAudio, dict[str, float]]:
    """Train the network from nothing; return it and its losses at the end, for its card."""
    runtime.seed_everything(seed)
    network = VideoToAudio().to(device)
    losses = np.array(fit(network, draw_batch, steps, seed=seed, device=device, progress=progress))
    error, contrast = losses[-100:].mean(axis=0)
    return network, {
        "root of the squared error at the end, dB": round(-FLOOR * error**0.5, 3),
        "InfoNCE at the end": round(float(contrast), 4),
    }


def load_video_to_audio(
    name: str | os.PathLike[str] = NAME, device: torch.device | str | None = None
) -> tuple[VideoToAudio, dict]:
    """Load a trained network in eval mode, and its card, as `checkpoints.load_generator`."""
    return checkpoints.load_generator(name, device, {NAME: VideoToAudio})


@torch.inference_mode()
def imagine(network: VideoToAudio, frames: np.ndarray, times: np.ndarray, seconds: float) -> Tensor:
    """Predict a spectrogram [M, N] of so many seconds for frames [T, 64, W, 3] at times [T]."""
    device = network.log_scale.device
    length = 1 + round(seconds * SOUND_RATE) // HOP
    at = torch.from_numpy(np.asarray(times, np.float32))[None].to(device)  # [1, T]
    return network(scale_frames(frames)[None].to(device), at, length)[0].float().clamp(0, 1).cpu()


def play(network: VideoToAudio, clip: Clip) -> np.ndarray:
    """The sound that a network imagines for a drawn clip, float32 [samples]."""
    times = frame_times(clip)
    spectrogram = imagine(network, render(clip, times, SIDE), times, clip.seconds)
    return invert(spectrogram, round(clip.seconds * SOUND_RATE))
