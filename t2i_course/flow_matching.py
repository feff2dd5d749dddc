"""Rectified flow from noise to pictures, by a small U-Net whose places attend to the caption.

On the straight path z_t = t x + (1 - t) e from noise e (t = 0) to a picture x (t = 1) everything
moves with the velocity v = x - e (lipman2023flow, section 4; liu2023rectified). A network that
learns v by least squares learns its mean over all pictures that pass through z_t, and following
that mean from noise to t = 1 gives a sharp picture, not an average.

The network predicts the clean picture and is charged for the velocity that follows from it,
v = (x - z_t) / (1 - t) (li2025jit): pictures are simpler than noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.processes import TrainingBatch
from t2i_course.text_encoder import TextFeatures

LEAST_REST = 0.05  # of 1 - t in a division: near t = 1 the velocity is not divided by nothing
SOLVERS = ("euler", "heun")


def time_features(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of times [B] in [0, 1] at `width` / 2 frequencies from 1 to 1,000: [B, W].

    vaswani2017attention, section 3.5.
    """
    rates = torch.exp(torch.linspace(0, math.log(1000), width // 2, device=t.device))
    angles = t[:, None] * rates  # [B, W / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    """Places of a map look at a caption's words, or at each other; what they find is added.

    softmax(q k^T / sqrt(d)) v of vaswani2017attention, eq. 1, with several heads.
    """

    def __init__(self, channels: int, source_dim: int, heads: int = 4) -> None:
        """Build the layers; the last one starts at 0, so that at first nothing is added."""
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(source_dim, 2 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def weights(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Shares [B, heads, P, T] of its attention that each of P places gives to each of T."""
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5  # [B, heads, P, T]
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return scores.softmax(dim=-1)

    def forward(
        self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map x [B, C, H, W] to the same shape.

        Args:
            x: a map of features.
            source: words [B, T, D]; None to look at x itself.
            mask: [B, T], 1 for a word, 0 for padding.
        """
        places = self.norm(x).flatten(2).transpose(1, 2)  # [B, P, C]
        keys, values = self.key_value(places if source is None else source).chunk(2, dim=-1)

        def split(features: Tensor) -> Tensor:
            return features.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, ., C / h]

        shares = self.weights(split(self.query(places)), split(keys), mask)  # [B, heads, P, T]
        found = (shares @ split(values)).transpose(1, 2).flatten(2)  # [B, P, C]
        return x + self.out(found).transpose(1, 2).reshape(x.shape)


class FlowBlock(nn.Module):
    """Two convolutions, told the time and the sentence; then the places may look around.

    Adaptive normalisation: condition [B, W] sets scale and shift of every channel
    (peebles2023dit, section 3.2).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        condition_dim: int,
        word_dim: int,
        words: bool = False,
        places: bool = False,
    ) -> None:
        """Build the layers; the second convolution starts at 0.

        Args:
            in_channels: C.
            channels: C'.
            condition_dim: W.
            word_dim: D.
            words: does every place look at the caption's words?
            places: does every place look at all others?
        """
        super().__init__()
        self.norm1 = nn.GroupNorm(8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.condition = nn.Linear(condition_dim, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        same = in_channels == channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1)
        self.look_at_words = Attention(channels, word_dim) if words else None
        self.look_at_places = Attention(channels, channels) if places else None

    def forward(self, x: Tensor, condition: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H, W]."""
        scale, shift = self.condition(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(functional.silu(self.norm1(x)))  # [B, C', H, W]
        h = self.norm2(h) * (1 + scale) + shift
        x = self.skip(x) + self.conv2(functional.silu(h))
        if self.look_at_words is not None:
            x = self.look_at_words(x, words, mask)
        return x if self.look_at_places is None else self.look_at_places(x)


class FlowGenerator(nn.Module):
    """A U-Net (ronneberger2015unet) that says of a noisy picture what picture it comes from.

    Called as a generator, it follows the flow from noise to a picture.

    Attributes:
        config: the arguments that build it again.
        steps: of the solver; `evaluations` says what they cost.
        guidance: w of v = v(no caption) + w (v(caption) - v(no caption)) (ho2022guidance); 1 is the
            network as it was trained.
        interval: of t, in which guidance is used (kynkaanniemi2024interval).
        solver: "euler" or "heun".
        shift: how much shorter the steps are at first; see `step_times`.
    """

    name = "flow"
    takes_words = True

    def __init__(
        self, text_dim: int, image_size: int = 64, width: int = 64, patch: int = 2
    ) -> None:
        """Build the layers.

        Args:
            text_dim: D, of sentence and words.
            image_size: S, a multiple of 4 * patch.
            width: W, the channels at S / (2 patch); half as many at S / patch, where edges are
                drawn, twice as many at S / (4 patch), where places look at each other.
            patch: side of the squares of pixels that become the channels of one place.

        Raises:
            ValueError: a side that cannot be built.
        """
        super().__init__()
        if image_size % (4 * patch) or width % 16:
            raise ValueError(
                f"image_size {image_size}, width {width}: choose a multiple of {4 * patch} and one "
                "of 16"
            )
        self.text_dim, self.image_size, self.noise_dim = text_dim, image_size, 3 * image_size**2
        self.config: dict[str, Any] = {
            "text_dim": text_dim, "image_size": image_size, "width": width, "patch": patch,
        }  # fmt: skip
        self.patch = patch
        self.steps, self.guidance, self.interval, self.solver = 10, 2.0, (0.0, 1.0), "euler"
        self.shift = 3.0
        condition, thin, wide = 4 * width, width // 2, 2 * width
        self.time = nn.Sequential(nn.Linear(condition, condition), nn.SiLU())
        self.sentence = nn.Linear(text_dim, condition)
        self.no_words = nn.Parameter(torch.zeros(text_dim))  # stands before the words
        self.into = nn.Conv2d(3 * patch**2, thin, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(thin, image_size // patch, image_size // patch))

        def blocks(count: int, before: int, after: int, **looks: bool) -> nn.ModuleList:
            of = condition, text_dim
            return nn.ModuleList([FlowBlock(before, after, *of, **looks) for _ in range(count)])

        self.down = nn.ModuleList([blocks(1, thin, thin), blocks(2, width, width)])
        self.halve = nn.ModuleList(
            [nn.Conv2d(c, 2 * c, 3, stride=2, padding=1) for c in (thin, width)]
        )
        self.middle = blocks(4, wide, wide, words=True, places=True)
        self.enlarge = nn.ModuleList([nn.Conv2d(2 * c, c, 3, padding=1) for c in (width, thin)])
        self.up = nn.ModuleList([
            blocks(2, 2 * width, width, words=True), blocks(1, 2 * thin, thin),
        ])  # fmt: skip
        self.out = nn.Sequential(
            nn.GroupNorm(8, thin), nn.SiLU(), nn.Conv2d(thin, 3 * patch**2, 3, padding=1)
        )

    def predict(
        self, z: Tensor, t: Tensor, text: TextFeatures, keep: Tensor | None = None
    ) -> Tensor:
        """Say which picture a noisy one comes from.

        Args:
            z: [B, 3, S, S].
            t: [B], 0 for noise, 1 for the picture.
            text: of B captions.
            keep: [B], False where the caption is not to be seen; None to see all.

        Returns:
            [B, 3, S, S].
        """
        seen = torch.ones(len(z), device=z.device) if keep is None else keep.float()
        words = functional.pad(text.words, (0, 0, 1, 0)) + 0  # [B, 1 + T, D]
        words[:, 0] = self.no_words
        mask = functional.pad(text.mask * seen[:, None], (1, 0), value=1.0)  # [B, 1 + T]
        condition = self.time(time_features(t, self.time[0].in_features))  # [B, 4 W]
        condition = functional.silu(condition + self.sentence(text.sentence * seen[:, None]))
        x = self.into(functional.pixel_unshuffle(z, self.patch)) + self.position  # [B, W/2, 32, 32]
        kept = []
        for blocks, halve in zip(self.down, self.halve, strict=True):
            for block in blocks:
                x = block(x, condition, words, mask)
                kept.append(x)
            x = halve(x)  # [B, W, 16, 16], then [B, 2 W, 8, 8]
        for block in self.middle:
            x = block(x, condition, words, mask)
        for enlarge, blocks in zip(self.enlarge, self.up, strict=True):
            x = enlarge(functional.interpolate(x, scale_factor=2))  # 16, then 32 places a side
            for block in blocks:
                x = block(torch.cat([x, kept.pop()], dim=1), condition, words, mask)
        return functional.pixel_shuffle(self.out(x), self.patch)  # [B, 3, S, S]

    def velocity(self, z: Tensor, t: float, text: TextFeatures) -> Tensor:
        """Where z [B, 3, S, S] moves at time t, guided: [B, 3, S, S]."""
        times = torch.full((len(z),), t, device=z.device)
        rest = max(1 - t, LEAST_REST)
        low, high = self.interval
        if self.guidance == 1 or not low <= t <= high:
            return (self.predict(z, times, text).float() - z) / rest
        both = text[torch.arange(len(z)).repeat(2)]
        keep = torch.arange(2 * len(z), device=z.device) < len(z)
        found = self.predict(torch.cat([z, z]), torch.cat([times, times]), both, keep).float()
        with_caption, without = ((x - z) / rest for x in found.chunk(2))
        return without + self.guidance * (with_caption - without)

    def forward(
        self,
        text: TextFeatures,
        noise: Tensor,
        t: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Draw captions with noise [B, 3 S S]: [B, 3, S, S] in [-1, 1].

        With times t, `noise` is a noisy picture, and the answer is that of `predict`: several
        processes share the gradients of what is called as the network itself.
        """
        if t is not None:
            return self.predict(noise, t, text, keep)
        size = self.image_size
        if noise is None or noise.shape != (len(text.sentence), self.noise_dim):
            raise ValueError(
                f"this generator starts from noise [{len(text.sentence)}, {self.noise_dim}], a "
                f"number for each of 3 x {size} x {size} values of a picture"
            )
        start = noise.view(-1, 3, size, size)
        move = lambda z, t: self.velocity(z, t, text)  # noqa: E731
        times = step_times(self.steps, self.shift)
        return solve(move, start, times, self.solver)[-1].clamp(-1, 1)

    def evaluations(self) -> int:
        """How often the network is run for a picture; a guided velocity takes two runs."""
        times = torch.tensor(step_times(self.steps, self.shift)[:-1])
        if self.solver == "heun":  # looks ahead to the end of every step but the last
            times = torch.cat([times, times[1:]])
        low, high = self.interval
        guided = int(((times >= low) & (times <= high)).sum()) if self.guidance != 1 else 0
        return len(times) + guided


def step_times(steps: int, shift: float = 1.0) -> list[float]:
    """Times from 0 to 1, `steps` + 1: equal steps u, moved to t = u / (u + shift (1 - u)).

    Above 1 the first steps are the shortest: what is where in a picture is decided while it is
    nearly all noise (esser2024scaling, section 5.3.2).

    Raises:
        ValueError: no step, or a shift that is not above 0.
    """
    if steps < 1 or not shift > 0:
        raise ValueError(f"{steps} steps, shift {shift}: from 1 step, and a shift above 0")
    return [u / (u + shift * (steps - u)) for u in range(steps + 1)]


def solve(
    velocity: Callable[[Tensor, float], Tensor],
    start: Tensor,
    times: Sequence[float],
    solver: str = "euler",
) -> list[Tensor]:
    """Follow dz/dt = velocity(z, t) from the first time to the last.

    Args:
        velocity: of a state and a time.
        start: the state at times[0].
        times: where the steps begin and end, such as `step_times` gives.
        solver: "euler", an evaluation a step; "heun", two (the mean of the velocities at both ends
            of Euler's step), whose error falls with the square of the step.

    Returns:
        The states at all times, the start included.

    Raises:
        ValueError: an unknown solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r}: choose {' or '.join(SOLVERS)}")
    path = [start]
    for t, after in itertools.pairwise(times):
        z = path[-1]
        move = velocity(z, t)
        if solver == "heun" and after < 1:  # at t = 1 there is no velocity
            move = (move + velocity(z + (after - t) * move, after)) / 2
        path.append(z + (after - t) * move)
    return path


def flow_loss(
    network: nn.Module, images: Tensor, noise: Tensor, t: Tensor, text: TextFeatures, keep: Tensor
) -> Tensor:
    """Squared error of the velocity, the mean of each picture: [B].

    With the clean picture predicted, it is the error of the picture over (1 - t)^2.

    Args:
        network: a `FlowGenerator`.
        images: [B, 3, S, S] in [-1, 1].
        noise: as many, standard normal.
        t: [B].
        text: of the captions.
        keep: [B], False where the caption is dropped.
    """
    part = t[:, None, None, None]
    z = part * images + (1 - part) * noise  # [B, 3, S, S]
    error = network(text, z, t, keep).float() - images
    return error.square().mean(dim=(1, 2, 3)) / (1 - t).clamp(min=LEAST_REST).square()


class FlowMatching:
    """The objective for `training.train`: pictures, noise, and a time for each.

    Times are logistic-normal around -0.6 (esser2024scaling, section 3.1): most of them where the
    picture takes shape. A tenth of the captions are not shown (ho2022guidance), so that the network
    knows both velocities that guidance needs.
    """

    averaged = ("generator",)

    def __init__(self, generator: FlowGenerator, learning_rate: float) -> None:
        """Give the generator an AdamW optimizer."""
        self.modules: dict[str, nn.Module] = {"generator": generator}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.AdamW(
                generator.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01
            )
        }
        self.identity = {"objective": "flow matching"}

    def step(
        self, batch: TrainingBatch, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Go one step down the gradient of the flow's loss."""
        t = torch.sigmoid(batch.draw_noise(1)[:, 0] - 0.6)  # [B]
        keep = (batch.draw(1)[:, 0] >= 0.1).to(batch.images.device)
        noise = batch.noise.view_as(batch.images)
        loss = flow_loss(self.modules["generator"], batch.images, noise, t, batch.text, keep).mean()
        update("generator", loss)
        return {"flow": loss.detach()}

    def validate(self, batch: TrainingBatch, networks: dict[str, nn.Module]) -> Tensor:
        """The loss of each image [B], at times spread evenly over a batch."""
        count = len(batch.images)
        t = (torch.arange(count, device=batch.images.device) + 0.5) / count
        noise = batch.noise.view_as(batch.images)
        keep = torch.ones(count, dtype=torch.bool, device=t.device)
        return flow_loss(networks["generator"], batch.images, noise, t, batch.text, keep)
