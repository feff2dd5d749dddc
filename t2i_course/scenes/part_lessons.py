"""Lessons in reading for a discriminator, before the game: `python -m t2i_course judge part-judge`.

In the game a discriminator learns to read from what its generator happens to draw wrong, one number
a picture and sentence, and a fact that hardly moves that number is learnt last. Which side of a
pair the third thing stands on is such a fact. Here the head that reads part by part
(`t2i_course.scenes.part_judge`) learns from real pictures alone: the caption, and one that is false
in one fact. Half of the captions have a third thing, and the false one turns it to the other side.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from t2i_course import checkpoints, generation, runtime
from t2i_course.data import find_data, pack, resolve_data, to_float
from t2i_course.differentiable_augmentation import augment
from t2i_course.gan import Discriminator
from t2i_course.photos.shared_pictures import learnt_from
from t2i_course.scenes import drawing, mismatched_captions, wording
from t2i_course.scenes.caption_parts import PARTS, reader_of
from t2i_course.text_encoder import TextEncoder, card_entry

RATE = 1e-3  # the highest


class Lessons:
    """Pictures of a split, each with a caption, and with one that is false in one fact."""

    def __init__(self, folder: Path, split: str, size: int, progress: bool = True) -> None:
        """Open the scenes in a folder, at `size` pixels to a side."""
        self.packed = pack(folder, split, size, progress=progress)
        self.entries = drawing.read_captions(folder, split)
        self.scenes = drawing.read_instances(folder, split)
        facts = mismatched_captions.facts_of(folder, self.packed, split)
        self.turned = [wording.turn_third(stated) for stated in facts]
        self.aside = np.array([row for row, turned in enumerate(self.turned) if turned is not None])

    def draw(self, count: int, chance: random.Random) -> tuple[Tensor, list[str], list[str]]:
        """Draw pictures [count, 3, S, S] in [-1, 1], their captions, and false ones."""
        rows = chance.choices(self.aside.tolist(), k=count // 2)
        rows += chance.choices(range(len(self.entries)), k=count - len(rows))
        false = [self.turned[row] for row in rows[: count // 2]]
        for row in rows[count // 2 :]:
            entry = self.entries[row]
            shown = self.scenes[entry["image_id"]]
            false.append(mismatched_captions.contradicting_facts(entry, shown, chance))
        images = torch.from_numpy(np.array(self.packed.images[self.packed.images_of(rows)]))
        told = [self.packed.all_captions[row] for row in rows]
        return to_float(images), told, [wording.word_facts(facts, chance) for facts in false]


def teach_part_judge(
    data: str = "scenes",
    output: str | os.PathLike[str] = "my-part-judge",
    begin: str = "gan",
    steps: int = 3000,
    batch_size: int = 64,
    seed: int = 0,
    device: str | None = None,
    command: str = "",
    progress: bool = True,
) -> Path:
    """Teach the third head of a trained GAN's discriminator; trunk and other heads stand still.

    The head learns -log sigmoid(h(x, t) - h(x, t')), for a picture x, its caption t and a false one
    t', by Adam with the betas of the game.

    Args:
        data: "scenes", or a folder of scenes.
        output: name in `data/checkpoints`, or a path; "-discriminator" is added to it.
        begin: the GAN whose discriminator goes on, and whose reader it gets.
        steps: updates.
        batch_size: pictures a step.
        seed: of weights and draws.
        device: as `runtime.choose_device` takes it.
        command: that does it again, for the card.
        progress: show a bar.

    Returns:
        The weights' file, for `train --init-discriminator`.

    Raises:
        ValueError: the data are photos, or the GAN has no parts.
        FileNotFoundError: as `checkpoints.load_generator`.
    """
    place, folder = runtime.choose_device(device), resolve_data(data)
    if not drawing.are_in(folder):
        raise ValueError(f"a part-judge learns from scenes: no file of {data} states facts")
    generator, encoder, _ = generation.load_model(begin, place, training_encoder=True)
    reader = reader_of(generator, begin)
    file = checkpoints.discriminator_path(begin)
    earlier, card = checkpoints.load_generator(file, place, {Discriminator.name: Discriminator})
    learn, held = (
        Lessons(folder, split, earlier.image_size, progress) for split in ("train", "val")
    )
    runtime.seed_everything(seed)
    judge = Discriminator(**earlier.config | {"parts": True}).to(place)
    judge.load_state_dict(earlier.state_dict(), strict=earlier.config["parts"])
    judge.reader.load_state_dict(reader.state_dict())
    judge.requires_grad_(False)
    head = judge.part_judge.requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), lr=RATE, betas=(0.0, 0.9))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=max(0.05, 2 / steps)
    )
    chance, start = random.Random(f"part-judge {seed}"), time.perf_counter()
    for _ in tqdm(range(steps), desc="reading", unit="step", disable=not progress):
        true, false = read(judge, encoder, *learn.draw(batch_size, chance), move=True)
        optimizer.zero_grad()
        functional.softplus(false - true).mean().backward()
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        # Only differences were learnt: put 0 between true and false ones, for the hinge.
        middle = torch.cat(read(judge, encoder, *learn.draw(512, chance))).mean()
        head.verdict.bias -= middle / PARTS
        drawn = [read(judge, encoder, *held.draw(100, chance)) for _ in range(10)]
        right = torch.stack([true > false for true, false in drawn]).float()  # [10, 100]
    third, others = right.unflatten(1, (2, 50)).mean(dim=(0, 2)).tolist()
    card = {
        **{name: card[name] for name in ("data", "words", "license") if name in card},
        "encoder": card_entry(encoder),
        "trained_on": learnt_from(find_data(folder, "train"), card.get("trained_on", [])),
        "command": command,
        "steps": steps,
        "seconds": round(seconds, 1),
        "hardware": runtime.hardware(),
        "metrics": {
            "third things told from turned ones by the third head, val": round(third, 4),
            "true captions told from false ones by the third head, val": round(others, 4),
        },
        "seed": seed,
        "begun_with": checkpoints.origin(card),
    }
    return checkpoints.save_weights(checkpoints.discriminator_path(output), judge, card)


def read(
    judge: Discriminator,
    encoder: TextEncoder,
    images: Tensor,
    told: list[str],
    false: list[str],
    move: bool = False,
) -> tuple[Tensor, Tensor]:
    """What the third head says of captions and of false ones.

    Args:
        judge: with a third head.
        encoder: of the captions.
        images: [B, 3, S, S] in [-1, 1].
        told: B captions.
        false: B others.
        move: translate the pictures first, as in the game.

    Returns:
        Logits [B] of the captions, and [B] of the false ones.
    """
    place = judge.part_judge.place.device
    images = images.to(place)
    with torch.autocast(place.type, torch.bfloat16, enabled=runtime.bf16_pays(place)):
        with torch.no_grad():
            text = encoder([*told, *false]).sentence  # [2 B, D]
            fine = judge.see(augment(images, ("translation",)) if move else images)[1]
            parts = judge.reader(text)  # [2 B, 4, 64]
        logits = judge.part_judge(fine, parts)  # [2 B]
    first, second = logits.float().chunk(2)
    return first, second
