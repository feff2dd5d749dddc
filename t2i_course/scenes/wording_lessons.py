"""Lessons in reading for prompts: freer wordings get the features that the grammar's would have.

A generator understands the sentence features of the captions that it was trained with, and those
come from one grammar. A copy of its text encoder learns to give what people word otherwise the
feature of the grammar's wording, while it goes on to give the grammar's wordings their own: a
student that follows a teacher on a sentence and on its translation (reimers2020multilingual,
section 2; here the translation is another wording). Half of the wordings come from a second grammar
(`t2i_course.scenes.free_wording`), half are authors' sentences with other values
(`t2i_course.scenes.authored_wordings`). No picture is used, and the generator stands still.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2i_course import checkpoints, generation, runtime
from t2i_course.scenes import authored_wordings
from t2i_course.scenes.caption_parts import CaptionReader, PartHeads, labels_of, reader_of
from t2i_course.scenes.drawing import CROWDED, sample_scene
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.wording import Facts, choose_facts, groups_of, word_facts
from t2i_course.text_encoder import (
    BATCH,
    TextEncoder,
    card_entry,
    encoder_folder,
    write_encoder,
)

RATE = 4e-4
KEPT = 4  # of a batch, every fourth caption is also read in the grammar's wording
UNSEEN = 0.3  # share of those that use the words of no training caption, as in pre-training
PLAIN = 4  # wordings of the grammar; the nearest of those that are read right is the aim
LABELS = 0.1  # weight of reading all facts from the parts
TURNS = ((1, False), (2, False), (3, False), (None, False), (2, True), (3, True))
SORTED = 4  # batches drawn at once, so that captions of like length share one
HELD, TAUGHT = 1_000, 4_000  # captions that measure, and that teach the linear layers
HEAD_STEPS = 800  # of the linear layers


@dataclass(frozen=True)
class Reading:
    """What a generator gets of captions: sentence features [B, D] and their parts [B, 4, 64]."""

    sentence: Tensor
    parts: Tensor

    def distance(self, other: Reading, deviation: Tensor) -> Tensor:
        """Squared distance to another reading [..., B], in deviations [D] of the features."""
        sentence = ((self.sentence - other.sentence) / deviation).square().mean(dim=-1)
        return sentence + (self.parts - other.parts).square().mean(dim=(-1, -2))


def draw_facts(count: int, rng: random.Random) -> list[Facts]:
    """Draw what captions state: by turns of one, two, three, any number of kinds of things.

    Then come two lists, of two and of three kinds, which say of no thing where it is: there only
    the words tell which attribute goes with which thing, and left to chance lists are rare.
    """
    drawn: list[Facts] = []
    while len(drawn) < count:
        facts = choose_facts(sample_scene(rng, shares=CROWDED), rng)
        kinds, listed = TURNS[len(drawn) % len(TURNS)]
        fits = kinds is None or len(groups_of(facts)) == kinds
        if fits and not (listed and facts["relations"]):
            drawn.append(facts)
    return drawn


def draw_lessons(batch_size: int, rng: random.Random) -> Iterator[tuple[list[Facts], list[str]]]:
    """Draw freer wordings with what they state for ever; those of like length share a batch.

    Of every four batches half are authors', with their values exchanged.
    """
    half = SORTED * batch_size // 2
    while True:
        pairs = [authored_wordings.draw(rng) for _ in range(half)]
        pairs += [(word_freely(f, rng), f) for f in draw_facts(SORTED * batch_size - half, rng)]
        pairs.sort(key=lambda pair: len(pair[0]))
        starts = list(range(0, len(pairs), batch_size))
        rng.shuffle(starts)
        for start in starts:
            texts, stated = zip(*pairs[start : start + batch_size], strict=True)
            yield list(stated), list(texts)


def read(encoder: TextEncoder, reader: CaptionReader, texts: list[str]) -> Reading:
    """What a generator with this reader gets of captions."""
    sentence = encoder(texts).sentence.float()
    return Reading(sentence, reader(sentence))


@torch.no_grad()
def read_all(encoder: TextEncoder, reader: CaptionReader, texts: list[str]) -> Reading:
    """`read`, for any number of captions, without a gradient."""
    starts = range(0, len(texts), BATCH)
    readings = [read(encoder, reader, texts[k : k + BATCH]) for k in starts]
    return Reading(
        torch.cat([r.sentence for r in readings]), torch.cat([r.parts for r in readings])
    )


def teach_wordings(
    model: str | os.PathLike[str] = "gan",
    output: str | os.PathLike[str] = "my-caption-bert-free",
    steps: int = 4_000,
    batch_size: int = 64,
    seed: int = 0,
    device: str | None = None,
    command: str = "",
    progress: bool = True,
    init: str | None = None,
) -> Path:
    """Teach a copy of a GAN's text encoder freer wordings, and name it in the GAN's card.

    The card's shares of wordings read right are of the two grammars, not of the authors' sentences.

    The loss of a caption is the distance of what the copy reads to the nearest of four wordings of
    the grammar, as the encoder of the training reads them; that distance again, for some captions
    of the grammar, to themselves and those four; and 0.1 times the cross-entropy of all facts, read
    from the parts by linear layers that have learnt on the grammar's wordings and stand still. The
    encoder of the training misreads most lists of three things. What these layers misread is no
    aim: another wording is, or else the facts alone.

    Args:
        model: a GAN with parts, trained on scenes; `generation.load_model` takes the copy for its
            prompts from then on.
        output: name in `data/encoders`, or a path: a new folder.
        steps: of AdamW, its rate rising to 4e-4 and falling to 0.
        batch_size: captions a step.
        seed: of the captions.
        device: as `runtime.choose_device` takes it.
        command: that does it again, for the cards.
        progress: show a bar.
        init: an encoder that earlier lessons made, to go on with; by default that of the training.

    Returns:
        The encoder's folder.

    Raises:
        FileExistsError: the output folder is there already.
        FileNotFoundError: as `checkpoints.load_generator`.
        ValueError: as there; the GAN has no parts, or was trained on photos; or `init` has another
            vocabulary than the encoder of the training.
    """
    path = Path(output).expanduser()
    folder = runtime.data_folder() / "encoders" / path if len(path.parts) == 1 else path
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: move it, or name another --output")
    place = runtime.choose_device(device)
    generator, teacher, card = generation.load_model(model, place, training_encoder=True)
    reader = reader_of(generator, str(model))
    if card["data"] != "scenes":
        raise ValueError(f"{model} was trained on {card['data']}: only scenes have a grammar")
    student = TextEncoder(init or teacher.name, teacher.pooling, frozen=False, device=place).train()
    begun = card_entry(student)
    if init is not None:
        earlier = Path(encoder_folder(init)) / "card.json"
        if earlier.is_file():
            begun |= checkpoints.origin(json.loads(earlier.read_text(encoding="utf-8")))
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise ValueError(f"{init} has another vocabulary than {teacher.name}, by which {model} was "
                         "trained: begin with a copy of that one")  # fmt: skip
    runtime.seed_everything(seed)
    rng, start = random.Random(f"wordings {seed}"), time.perf_counter()
    heads, deviation = _heads(teacher, reader, rng)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=max(3, steps), pct_start=max(0.05, 2 / max(3, steps))
    )
    autocast = torch.autocast(place.type, torch.bfloat16, enabled=runtime.bf16_pays(place))
    words: set[str] = set()
    lessons, losses = draw_lessons(batch_size, rng), []
    for _ in (bar := tqdm(range(steps), desc="wordings", unit="step", disable=not progress)):
        facts, free = next(lessons)
        kept = [word_facts(f, rng, rng.random() < UNSEEN) for f in facts[::KEPT]]
        plain = [word_facts(f, rng) for _ in range(PLAIN) for f in facts]
        words.update(word for text in free for word in generation.caption_words(text))
        with torch.no_grad(), autocast:
            aims = read(teacher, reader, plain + kept)
        with autocast:
            found = read(student, reader, free + kept)
        labels = _labels(facts + facts[::KEPT], place)
        stated = torch.cat([labels[: len(facts)]] * PLAIN + [labels[len(facts) :]])
        right = heads.right(aims.parts.float(), stated)
        loss = _loss(found, aims, right, len(facts), deviation)
        loss = loss + LABELS * heads.loss(found.parts.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    seconds = time.perf_counter() - start
    student.eval().requires_grad_(False)
    held = draw_facts(HELD, random.Random(f"held wordings {seed}"))
    shares = {}
    for name, encoder in (("before", teacher), ("after", student)):
        for kind, word in (("the grammar's", word_facts), ("freer", word_freely)):
            texts = [word(f, rng) for f in held]
            right = heads.right(read_all(encoder, reader, texts).parts, _labels(held, place))
            shares[f"{kind} wordings read right, {name}"] = float(right.float().mean())
    told = {
        "model": f"a copy of {teacher.name}, taught freer wordings for prompts",
        "data": "captions of the course's grammar, and freer wordings: half of a second grammar, "
        "half sentences of six authors, language models, with other values (text alone)",
        "begun_with": begun,
        "reader_of": card["sha256"],
        "seed": seed,
        "batch_size": batch_size,
        "steps": steps,
        "seconds": round(seconds),
        "losses": {"wordings": round(float(np.mean(losses[-100:])), 4)},
        "metrics": {name: round(share, 4) for name, share in shares.items()},
        "command": command,
        "hardware": runtime.hardware(),
        "torch": torch.__version__,
        "license": "CC BY 4.0",
    }  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with runtime.atomic_folder(folder) as unfinished:
        student.tokenizer.save_pretrained(unfinished)
        write_encoder(unfinished, student.bert, told)
    student.name = str(output)
    checkpoints.name_prompt_encoder(
        model, {**card_entry(student), "words": " ".join(sorted(words))}
    )
    return folder


def _heads(
    teacher: TextEncoder, reader: CaptionReader, rng: random.Random
) -> tuple[PartHeads, Tensor]:
    """Linear layers that read the grammar's captions, and the deviation [D] of their features."""
    facts = draw_facts(TAUGHT, rng)
    found = read_all(teacher, reader, [word_facts(f, rng) for f in facts])
    labels, heads = _labels(facts, teacher.device), PartHeads().to(teacher.device)
    heads.learn(lambda rows: found.parts[rows], labels, heads, HEAD_STEPS, rate=1e-2)
    return heads.requires_grad_(False), found.sentence.std(dim=0)


def _labels(facts: Sequence[Facts], device: torch.device) -> Tensor:
    """What captions state, as `caption_parts.labels_of` numbers it: [N, 21]."""
    return torch.tensor([labels_of(f) for f in facts], device=device)


def _loss(found: Reading, aims: Reading, right: Tensor, count: int, deviation: Tensor) -> Tensor:
    """Mean distance of freer wordings to the nearest aim, plus that of kept ones.

    Args:
        found: of `count` freer wordings, then of K kept ones of every `KEPT`-th of these captions.
        aims: of `count` captions in `PLAIN` wordings, one wording after the other, then of the
            kept ones.
        right: bool, as many: whether an aim is read right; what has no such aim costs nothing.
        count: of freer wordings.
        deviation: [D], of the features.
    """
    split = PLAIN * count
    plain = Reading(
        aims.sentence[:split].unflatten(0, (PLAIN, count)),
        aims.parts[:split].unflatten(0, (PLAIN, count)),
    )
    own = Reading(aims.sentence[split:][None], aims.parts[split:][None])  # [1, K]
    others = Reading(plain.sentence[:, ::KEPT], plain.parts[:, ::KEPT])  # [P, K]
    good, kept_good = right[:split].unflatten(0, (PLAIN, count)), right[split:][None]

    def nearest(rows: slice, aims_and_right: Sequence[tuple[Reading, Tensor]]) -> Tensor:
        one = Reading(found.sentence[rows], found.parts[rows])
        far = torch.cat(
            [one.distance(a, deviation).masked_fill(~r, torch.inf) for a, r in aims_and_right]
        )
        least = far.min(dim=0).values
        return least.masked_fill(least.isinf(), 0).mean()

    return nearest(slice(count), [(plain, good)]) + nearest(
        slice(count, None), [(own, kept_good), (others, good[:, ::KEPT])]
    )
