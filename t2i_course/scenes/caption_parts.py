"""Parts of a caption, for networks that look up place by place what it says.

A sentence feature tells all places the same, and what a caption of three things states stands in it
more quietly than what one of a single thing states, for the length of the feature is the same. Here
a small network, taught on text alone, sorts it into four parts: the scene, and up to three kinds of
things, each with its colour, shape, size, number and place in one part. In the generator every
place of the map asks which part concerns it (vaswani2017attention, eq. 1; between places and words
in xu2018attngan). Where a thing goes, the caption leaves open in the main, and the noise decides: a
layout lets the parts look at each other and at the noise before the places ask, so that "above"
and "left of" hold between things that are still to be drawn. What is added begins at 0, so that
weights which were trained without parts, or without a layout, can go on with them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.image_decoder import Standardize
from t2i_course.scenes.drawing import CROWDED, sample_scene
from t2i_course.scenes.probe import roles_of
from t2i_course.scenes.wording import VALUES, Facts, choose_facts, groups_of, word_facts

SLOPE = 0.2  # of the leaky ReLU below 0
THINGS = 3  # kinds of things in a caption, at most
PARTS, WIDTH = 1 + THINGS, 64
HIDDEN = 512
QUERY = 32  # width in which places and parts are compared
HEADS = 4  # of the self-attention between parts
ROLES = ("listed", "left", "right", "upper", "lower", "middle",
         "aside left", "aside right", "aside above", "aside below")  # fmt: skip
ATTRIBUTES = {name: (None, *VALUES[name]) for name in ("color", "shape", "size", "corner")}
SCENE = {"background": (None, *VALUES["background"]), "kinds": (1, 2, 3), "objects": (1, 2, 3)}
THING = {"role": ROLES, **ATTRIBUTES, "number": (1, 2, 3)}
NOTHING = -1  # a thing that a caption has not; cross_entropy leaves it out


def labels_of(facts: Facts) -> list[int]:
    """Number what a caption states, part by part.

    Returns:
        Three numbers for `SCENE`, then six for each of three things, for `THING`; `NOTHING` for a
        thing that is not there. Things stand from left to right or from above, the one aside last;
        listed ones in the order of shape, colour and size.
    """
    groups, objects = groups_of(facts), facts["objects"]
    _, roles = roles_of(facts)
    things = []
    for index, group in enumerate(groups):
        role, stated = roles.get(index, "listed"), objects[group[0]]
        role = {"it": "listed", "aside": _side(facts, group[0])}.get(role, role)
        values = {"role": role, "number": len(group), **{n: stated.get(n) for n in ATTRIBUTES}}
        things.append([THING[name].index(values[name]) for name in THING])
    first = {"left": 0, "upper": 0, "middle": 1, "right": 2, "lower": 2}
    role, color, shape, size, *_ = range(len(THING))
    things.sort(key=lambda t: (first.get(ROLES[t[role]], 3), t[shape], t[color], t[size]))
    things += [[NOTHING] * len(THING)] * (THINGS - len(things))
    scene = {"background": facts["background"], "kinds": len(groups), "objects": len(objects)}
    return [SCENE[name].index(scene[name]) for name in SCENE] + sum(things, [])


def _side(facts: Facts, index: int) -> str | None:
    """Where an object stands to the pair that it is aside of."""
    for first, relation, second in facts["relations"]:
        if index in (first, second):
            ends = {"left of": ("left", "right"), "above": ("above", "below")}[relation]
            return f"aside {ends[index == second]}"
    return None


class CaptionReader(nn.Module):
    """Features of captions [..., D] to parts [..., 4, 64]: the scene, and three things.

    Its weights are buffers: they are taught by `teach`, on text alone, and no optimizer moves them
    after that.
    """

    def __init__(self, text_dim: int) -> None:
        """Make room for the weights; until they are taught, they are 0."""
        super().__init__()
        sizes = (text_dim, HIDDEN, HIDDEN, PARTS * WIDTH)
        self.standardize = Standardize(text_dim)
        for k, (before, after) in enumerate(zip(sizes, sizes[1:], strict=False)):
            self.register_buffer(f"weight{k}", torch.zeros(after, before))
            self.register_buffer(f"bias{k}", torch.zeros(after))
        self.loudness = Standardize(PARTS * WIDTH)
        self.register_buffer("taught", torch.tensor(False))

    def forward(self, text: Tensor) -> Tensor:
        """Map [..., D] to [..., 4, 64], each number with mean 0 and deviation 1 over captions."""
        x = self.standardize(text)
        x = functional.leaky_relu(functional.linear(x, self.weight0, self.bias0), SLOPE)
        x = functional.leaky_relu(functional.linear(x, self.weight1, self.bias1), SLOPE)
        x = self.loudness(functional.linear(x, self.weight2, self.bias2))
        return x.unflatten(-1, (PARTS, WIDTH))


def reader_of(generator: nn.Module, name: str) -> CaptionReader:
    """Return the reader of a generator with parts; ValueError, with its `name`, if it has none."""
    reader = getattr(generator, "reader", None)
    if reader is None:
        raise ValueError(f"{name} has no parts: train it with --set parts=on first")
    return reader


def draw_captions(count: int, seed: int = 0) -> tuple[list[str], list[Facts]]:
    """Draw captions of two or three kinds of things, two of three of them lists without places.

    In a list only the attributes say which thing is which, and of a run's captions every tenth is
    one: too few to learn from, which colour goes with which shape. Text alone, of all pairs of
    shape and colour, as that which the encoder has learnt from; no picture belongs to it.

    Args:
        count: how many.
        seed: of scenes and wordings.

    Returns:
        The captions and what each of them states.
    """
    rng = random.Random(f"parts {seed}")
    words: list[str] = []
    stated: list[Facts] = []
    while len(words) < count:
        facts = choose_facts(sample_scene(rng, shares=CROWDED), rng)
        listed = len(words) % 3 > 0
        if len(groups_of(facts)) > 1 and listed == (not facts["relations"]):
            words.append(word_facts(facts, rng))
            stated.append(facts)
    return words, stated


class PartHeads(nn.Module):
    """Linear layers that read what a caption states, each fact from the part that it belongs to.

    The three things share their layers, so that "red" is written alike in all of them.
    """

    def __init__(self) -> None:
        """Build a layer for each of `SCENE` and of `THING`."""
        super().__init__()
        self.scene, self.thing = (
            nn.ModuleList(nn.Linear(WIDTH, len(answers)) for answers in part.values())
            for part in (SCENE, THING)
        )

    def forward(self, parts: Tensor) -> list[Tensor]:
        """Read [B, 4, 64]: logits [B, answers] in the order of `labels_of`."""
        scene = [layer(parts[:, 0]) for layer in self.scene]
        return scene + [layer(parts[:, 1 + k]) for k in range(THINGS) for layer in self.thing]

    def loss(self, parts: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of all facts of parts [B, 4, 64] with labels [B, 21], a caption's mean."""
        facts = zip(self(parts), labels.T, strict=True)
        return sum(
            functional.cross_entropy(logits, label, ignore_index=NOTHING, reduction="sum")
            for logits, label in facts
        ) / len(parts)

    def right(self, parts: Tensor, labels: Tensor) -> Tensor:
        """Whether everything is read right of parts [B, 4, 64] with labels [B, 21]: [B]."""
        facts = zip(self(parts), labels.T, strict=True)
        hits = [(logits.argmax(dim=1) == label) | (label == NOTHING) for logits, label in facts]
        return torch.stack(hits).all(dim=0)

    def learn(
        self,
        parts_of: Callable[[Tensor], Tensor],
        labels: Tensor,
        learners: nn.Module,
        steps: int,
        rate: float,
        batch_size: int = 512,
        source: torch.Generator | None = None,
    ) -> float:
        """Train by AdamW, its rate falling to 0.

        Args:
            parts_of: gives the parts [B, 4, 64] of captions, by their numbers [B].
            labels: [N, 21], of all captions.
            learners: what is moved: these layers, or those that make the parts, or both.
            steps: how many.
            rate: of the first step.
            batch_size: captions a step.
            source: of the batches.

        Returns:
            The share of the last 10 batches' captions of which everything was read right.
        """
        optimizer = torch.optim.AdamW(learners.parameters(), lr=rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        right = []
        for step in range(steps):
            rows = torch.randint(len(labels), (batch_size,), generator=source)
            parts = parts_of(rows)  # [B, 4, 64]
            optimizer.zero_grad(set_to_none=True)
            self.loss(parts, labels[rows]).backward()
            optimizer.step()
            schedule.step()
            if step >= steps - 10:
                right.append(float(self.right(parts, labels[rows]).float().mean()))
        return float(np.mean(right))


def teach(
    reader: CaptionReader,
    text: np.ndarray,
    facts: Sequence[Facts],
    steps: int = 3_000,
    batch_size: int = 512,
    seed: int = 0,
) -> float:
    """Teach a reader: `PartHeads` must read what a caption states from the part it belongs to.

    A reader that has been taught goes on from what it knows: the linear layers learn to read it
    first, and then stand still, so that it goes on to write as it wrote, and a generator that
    listens to it still understands.

    Args:
        reader: its weights are written.
        text: [N, D], features of captions.
        facts: what the N captions state.
        steps: of AdamW, its rate 2e-3 falling to 0, or 1e-3 for a reader that has been taught.
        batch_size: captions a step.
        seed: of weights and batches.

    Returns:
        The share of the last 10 batches' captions of which everything was read right.
    """
    source = torch.Generator().manual_seed(seed)
    again = bool(reader.taught)
    features = torch.tensor(np.asarray(text, dtype=np.float32))  # [N, D]
    labels = torch.tensor([labels_of(stated) for stated in facts])  # [N, 3 + 3 * 6]
    if not again:
        reader.standardize.fit(features)
    features = reader.standardize.cpu()(features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Linear(features.shape[1], HIDDEN), nn.LeakyReLU(SLOPE),
            nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, PARTS * WIDTH),
        )  # fmt: skip
        heads = PartHeads()

    def learn(learners: nn.Module, steps: int, rate: float) -> float:
        parts_of = lambda rows: layers(features[rows]).unflatten(1, (PARTS, WIDTH))  # noqa: E731
        return heads.learn(parts_of, labels, learners, steps, rate, batch_size, source)

    if again:
        with torch.no_grad():
            for k, layer in enumerate(layers[::2]):
                layer.weight.copy_(reader.get_buffer(f"weight{k}"))
                layer.bias.copy_(reader.get_buffer(f"bias{k}"))
        learn(heads, max(1, steps // 4), 1e-2)
        share = learn(layers, steps, 1e-3)
    else:
        share = learn(nn.ModuleList([layers, heads]), steps, 2e-3)
    with torch.no_grad():
        for k, layer in enumerate(layers[::2]):
            reader.get_buffer(f"weight{k}").copy_(layer.weight)
            reader.get_buffer(f"bias{k}").copy_(layer.bias)
        if not again:
            reader.loudness.fit(layers(features[:20_000]))
        reader.taught.fill_(True)
    return share


class PartLayout(nn.Module):
    """Parts [B, 4, 64] and noise [B, Z] to parts that know of each other, and of the noise.

    p_k <- p_k + W t_k, where t is what two layers of self-attention (vaswani2017attention, section
    3.1) make of the parts, to each of which a projection of the noise of its own is added.
    """

    def __init__(self, noise_dim: int) -> None:
        """Build the layers."""
        super().__init__()
        self.name = nn.Parameter(0.3 * torch.randn(PARTS, WIDTH))  # which part it is
        self.noise = nn.Linear(noise_dim, PARTS * WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        self.out = nn.Linear(WIDTH, WIDTH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, parts: Tensor, noise: Tensor) -> Tensor:
        """Map [B, 4, 64] to the same shape."""
        tokens = parts + self.name + self.noise(noise).unflatten(1, (PARTS, WIDTH))
        for layer in self.layers:
            tokens = layer(tokens)  # [B, 4, 64]
        return parts + self.out(tokens)


class PartAttention(nn.Module):
    """Every place of a map adds what it takes from the parts of the caption.

    x_p <- x_p + sum_k a_pk v_k, a_p = softmax_k(q(x_p)^T k_k / sqrt(32))
    """

    def __init__(self, channels: int, side: int) -> None:
        """Build it for maps [B, C, side, side]."""
        super().__init__()
        self.query = nn.Linear(channels, QUERY)
        self.place = nn.Parameter(0.3 * torch.randn(side * side, QUERY))
        self.key, self.value = nn.Linear(WIDTH, QUERY), nn.Linear(WIDTH, channels)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def weights(self, x: Tensor, parts: Tensor) -> Tensor:
        """How much each place of [B, C, H, W] takes from each of [B, K, 64]: [B, H W, K]."""
        places = x.permute(0, 2, 3, 1).flatten(1, 2)  # [B, H W, C]
        query = self.query(functional.leaky_relu(places, SLOPE)) + self.place  # [B, H W, 32]
        return torch.softmax(query @ self.key(parts).mT / QUERY**0.5, dim=-1)

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        taken = self.weights(x, parts) @ self.value(parts)  # [B, H W, C]
        return x + taken.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
