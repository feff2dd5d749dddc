"""Pre-training of the course's own small BERT, on captions alone.

Three stages, all on text alone. Masked words (Devlin et al., NAACL 2019) teach the language of
captions: the course's grammar, freer wordings of the same facts, and COCO's captions. A contrastive
loss (SimCSE: Gao et al., EMNLP 2021, eq. 5) pulls two wordings of the same facts together and
pushes captions that differ in one fact apart: objects swapped, a relation turned round. It tells
any two captions apart, but what it leaves need not be readable: in the third stage every stated
fact is read, each bound to its object, from the sentence feature by linear layers and from the
word features by one layer of attention, while the contrastive loss goes on.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import (
    BatchEncoding,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    get_cosine_schedule_with_warmup,
)

from t2i_course import runtime
from t2i_course.photos.coco_folder import find_split, read_captions_file
from t2i_course.scenes import authored_wordings
from t2i_course.scenes.drawing import sample_facts
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.probe import NOT_ASKED, FactReader
from t2i_course.scenes.wording import WORDS, Facts, contradict, groups_of, word_facts
from t2i_course.text_encoder import DEFAULT_ENCODER, masked_mean, write_encoder

VOCABULARY = 4_000
MAX_TOKENS = 64
TEMPERATURE = 0.05
STAGES = ("masked words", "contrastive", "reading")
IGNORED = -100  # cross_entropy leaves these positions out


def read_captions(
    files: Sequence[Path | str], image_ids: Collection[int] | None = None
) -> list[list[str]]:
    """Captions of COCO caption files, those of one image together; of some images, or of all.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see `coco_folder.read_captions_file`.
    """
    images: dict[tuple[str, int], list[str]] = {}
    for file in map(Path, files):
        if not file.is_file():
            raise FileNotFoundError(f"no captions file {file}: check the path")
        for entry in read_captions_file(file)["annotations"]:
            caption = " ".join(entry["caption"].split())
            if caption and (image_ids is None or entry["image_id"] in image_ids):
                images.setdefault((str(file), entry["image_id"]), []).append(caption)
    return list(images.values())


def train_tokenizer(captions: Sequence[str], folder: Path) -> BertTokenizer:
    """Learn a WordPiece vocabulary of lower-case pieces from captions, and save it."""
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(
        captions, vocab_size=VOCABULARY, min_frequency=3, show_progress=False,
        limit_alphabet=VOCABULARY // 2,  # where every character is a word, most of them are kept
    )  # fmt: skip
    vocabulary, numbers = folder / "vocab.txt", trainer.get_vocab()
    lines = "".join(f"{piece}\n" for piece in sorted(numbers, key=numbers.get))
    vocabulary.write_text(lines, encoding="utf-8", newline="\n")
    tokenizer = BertTokenizer(str(vocabulary), do_lower_case=True, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def mask_words(
    tokens: Tensor, maskable: Tensor, mask_id: int, vocabulary: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide 15 % of the tokens: 80 % of them as [MASK], 10 % as another token, 10 % as they are.

    Args:
        tokens: [B, T] token numbers.
        maskable: [B, T], True where a token may be hidden (no padding, no [CLS], no [SEP]).
        mask_id: number of [MASK].
        vocabulary: size of the vocabulary.
        generator: the source of chance.

    Returns:
        Input [B, T] and labels [B, T]: the hidden tokens' numbers, `IGNORED` elsewhere.
    """
    chance = torch.rand(tokens.shape, generator=generator)
    hidden = maskable & (chance < 0.15)
    labels = torch.where(hidden, tokens, IGNORED)
    others = torch.randint(vocabulary, tokens.shape, generator=generator)
    masked = torch.where(hidden & (chance < 0.12), mask_id, tokens)
    masked = torch.where(hidden & (chance >= 0.12) & (chance < 0.135), others, masked)
    return masked, labels


def contrastive_loss(anchors: Tensor, positives: Tensor, negatives: Tensor, same: Tensor) -> Tensor:
    """InfoNCE with hard negatives (Gao et al., EMNLP 2021, eq. 5), cosine over temperature 0.05.

    Args:
        anchors: [B, D] features of captions.
        positives: [B, D] features of other wordings of the same facts, in the same order.
        negatives: [M, D] features of captions that are true of none of the anchors' pictures.
        same: [B, B], True where two captions state the same facts, so that neither is a negative.

    Returns:
        The mean loss, a scalar.
    """
    anchors, positives, negatives = (
        functional.normalize(v.float(), dim=-1) for v in (anchors, positives, negatives)
    )
    own = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    close = (anchors @ positives.T / TEMPERATURE).masked_fill(same & ~own, -torch.inf)  # [B, B]
    far = anchors @ negatives.T / TEMPERATURE  # [B, M]
    target = torch.arange(len(anchors), device=anchors.device)
    return functional.cross_entropy(torch.cat([close, far], dim=1), target)


def _draw_pair(rng: random.Random) -> tuple[str, Facts, str]:
    """A caption, what it states, and another wording of the same.

    A quarter of the captions are authors' sentences with other values, a quarter come from the
    second grammar, half from the first. Half of the drawn facts are of one, two or three kinds of
    objects with equal chance, so that three different ones are not rare.
    """
    while True:
        if rng.random() < 0.25:
            caption, facts = authored_wordings.draw(rng, held_out=False)
        else:
            facts, kinds = sample_facts(rng), rng.randrange(6) + 1  # above 3, whatever comes
            if kinds <= 3 and len(groups_of(facts)) != kinds:
                continue
            caption = _word(facts, rng, 1 / 3)
        try:
            return caption, facts, _word(facts, rng, 0.5)
        except ValueError:  # an author stated relations for which the grammars have no sentence
            continue


def _word(facts: Facts, rng: random.Random, free: float) -> str:
    """Word facts by the second grammar in a share of the draws, else by the first."""
    if rng.random() < free:
        return word_freely(facts, rng)
    return word_facts(facts, rng, rng.random() < 0.3)


def _masked_word_batches(
    images: list[list[str]], rng: random.Random, size: int, scenes: bool
) -> Iterator[list[str]]:
    """Endless batches for the first stage: half scenes, half COCO (where there are both)."""
    count = (size // 2 if images else size) if scenes else 0
    while True:
        real = [rng.choice(rng.choice(images)) for _ in range(size - count)]
        yield [_draw_pair(rng)[0] for _ in range(count)] + real


@dataclass(frozen=True)
class ContrastiveBatch:
    """B pairs of captions that say the same, and M that say something else.

    same [B, B]: which rows state the same facts; facts: of the first of the anchors, of the first
    of the positives and of all negatives, in this order (captions of COCO have none).
    """

    anchors: list[str]
    positives: list[str]
    negatives: list[str]
    same: Tensor
    facts: list[Facts]


def _contrastive_batch(
    images: list[list[str]], rng: random.Random, size: int, scenes: bool
) -> ContrastiveBatch:
    """Draw pairs: scenes, each with a hard negative, and an eighth pairs of captions of a photo."""
    real = (size // 8 if scenes else size) if images else 0
    anchors, positives, negatives, keys, facts, others = [], [], [], [], [], []
    while len(anchors) < size - real:
        caption, stated, again = _draw_pair(rng)
        other = contradict(stated, rng, swap_listed=True, third=True)
        try:
            negatives.append(_word(other, rng, 0.5))
        except ValueError:  # the change left relations that no sentence of the grammars states
            continue
        anchors.append(caption)
        positives.append(again)
        facts.append(stated)
        others.append(other)
        keys.append(json.dumps(stated, sort_keys=True))
    for number in rng.sample(range(len(images)), min(real, len(images))):
        captions = images[number]
        one, other = rng.sample(captions, 2) if len(captions) > 1 else captions * 2
        anchors.append(one)
        positives.append(other)
        keys.append(f"image {number}")
    same = torch.tensor([[a == b for b in keys] for a in keys])
    return ContrastiveBatch(anchors, positives, negatives, same, facts + facts + others)


class Pretraining:
    """The parts of a run: a tokenizer, a BERT, what reads its features, and the captions."""

    def __init__(
        self, images: list[list[str]], scratch: Path, scenes: bool, batch_size: int, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        """Learn the vocabulary, and build the networks; `scratch` gets the tokenizer's files."""
        self.generator = runtime.seed_everything(seed)
        self.rng = random.Random(f"caption-bert {seed}")
        self.images, self.scenes, self.batch_size, self.seed = images, scenes, batch_size, seed
        texts = [_draw_pair(self.rng)[0] for _ in range(20_000 if scenes else 0)]
        texts += [w for _, held_out in WORDS.values() for w in held_out] * 3 if scenes else []
        self.tokenizer = train_tokenizer(texts + [c for of in images for c in of], scratch)
        config = BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=MAX_TOKENS,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,  # the grammar never runs out of captions: nothing to overfit
            attention_probs_dropout_prob=0.0,
            pad_token_id=self.tokenizer.pad_token_id,
            attn_implementation="eager",
        )
        self.model = BertForMaskedLM(config).to(device).train()
        self.reader = FactReader(config.hidden_size).to(device)
        self.losses: dict[str, list[float]] = {name: [] for name in STAGES}

    def tokenize(self, captions: list[str]) -> BatchEncoding:
        """Numbers of tokens, and their mask."""
        return self.tokenizer(
            captions, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt",
            return_token_type_ids=False,
        )  # fmt: skip

    def masked_words(self, captions: list[str]) -> Tensor:
        """Cross-entropy of hidden tokens; the output layer sees only their positions."""
        batch, device = self.tokenize(captions), self.model.device
        tokens, tokenizer = batch["input_ids"], self.tokenizer
        maskable = ~torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
        inputs, labels = mask_words(
            tokens, maskable, tokenizer.mask_token_id, len(tokenizer), self.generator
        )
        mask = batch["attention_mask"].to(device)
        hidden = self.model.bert(inputs.to(device), mask).last_hidden_state
        places = labels != IGNORED  # [B, T]
        logits = self.model.cls(hidden[places.to(device)])  # [number hidden, V]
        return functional.cross_entropy(logits.float(), labels[places].to(device))

    def encode(self, texts: list[str]) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """Sentence features [N, D], and words as `FactReader.forward` takes them."""
        order = torch.tensor(sorted(range(len(texts)), key=lambda row: len(texts[row])))
        parts = []
        for rows in order.split(48):
            tokens = self.tokenize([texts[row] for row in rows]).to(self.model.device)
            words = self.model.bert(**tokens).last_hidden_state.float()
            parts.append((rows, words, tokens["attention_mask"]))
        features = torch.cat([masked_mean(words, mask) for _, words, mask in parts])
        return features[order.argsort()], parts

    def pair_losses(self, read: bool) -> tuple[Tensor, Tensor | None]:
        """The contrastive loss of a new batch, and, if wanted, that of reading its facts."""
        device = self.model.device
        batch = _contrastive_batch(self.images, self.rng, self.batch_size, self.scenes)
        texts = batch.anchors + batch.positives + batch.negatives
        features, parts = self.encode(texts)
        pairs, drawn = len(batch.anchors), len(batch.negatives)
        loss = contrastive_loss(*features.split([pairs, pairs, drawn]), batch.same.to(device))
        if not read:
            return loss, None
        targets = torch.full((len(texts), len(self.reader.answers)), NOT_ASKED)
        rows = torch.cat([torch.arange(drawn) + start for start in (0, pairs, 2 * pairs)])
        targets[rows] = self.reader.targets(batch.facts)  # captions of COCO, after those, have none
        with torch.autocast(device.type, enabled=False):
            return loss, self.reader(features, parts, targets.to(device))

    def loss(self, stage: str, batches: Iterator[list[str]]) -> tuple[Tensor, Tensor]:
        """The loss of a step, and the part of it that is recorded."""
        if stage == "masked words":
            loss = self.masked_words(next(batches))
            return loss, loss
        if stage == "contrastive":
            shown, _ = self.pair_losses(read=False)
            return shown + 0.1 * self.masked_words(next(batches)[-self.batch_size // 4 :]), shown
        contrast, shown = self.pair_losses(read=True)
        return shown + 0.3 * contrast, shown

    def run(self, stage: str, steps: int, rate: float, progress: bool) -> None:
        """Train by one stage: AdamW, the rate rising and then falling along a cosine."""
        self.rng.seed(f"caption-bert {self.seed} {stage}")
        device = self.model.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=runtime.bf16_pays(device))
        weights = [*self.model.parameters(), *self.reader.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, max(1, steps // 20), steps)
        batches = _masked_word_batches(self.images, self.rng, self.batch_size, self.scenes)
        for _ in (bar := tqdm(range(steps), desc=stage, disable=not progress)):
            with autocast:
                loss, shown = self.loss(stage, batches)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            self.losses[stage].append(shown.item())
            bar.set_postfix(loss=f"{self.losses[stage][-1]:.3f}")

    def last_losses(self) -> dict[str, float]:
        """Means of the last hundred steps of the stages that were run."""
        return {n: round(float(np.mean(of[-100:])), 4) for n, of in self.losses.items() if of}


def _card(images: list[list[str]], scenes: bool, coco: bool) -> dict[str, Any]:
    """What the model card says of architecture and data."""
    number = f"{sum(map(len, images))}{' COCO' if coco else ''} captions of {len(images)} images"
    drawn = (
        "captions of the course's grammar, freer wordings of a second grammar and of six authors, "
        "language models (all shape and colour pairs; text alone)"
    )
    return {
        "model": "BertModel, 4 layers, 256 wide, pre-trained from nothing",
        "data": ", and ".join([drawn] * scenes + [number] * bool(images)),
        "credit": "COCO captions: Chen et al., 2015, Microsoft COCO Captions; annotations by the "
        "COCO Consortium, CC BY 4.0, cocodataset.org" if coco else "none needed",
        "note": "the COCO captions are of val2017: do not report retrieval or captioning figures "
        "on val2017 with this encoder without saying so" if coco else "",
        "license": "CC BY 4.0" if scenes else "as the captions allow",
    }  # fmt: skip


def _free_folders(output: Path) -> list[Path]:
    """Where an encoder goes after each stage; raise FileExistsError if something is there."""
    output = output.expanduser()
    if len(output.parts) == 1:  # where `encoder_folder` finds it by its name, from any folder
        output = runtime.data_folder() / "encoders" / output
    folders = [output.with_name(output.name + end) for end in ("-masked-words", "-contrastive", "")]
    for folder in folders:
        if folder.exists():
            raise FileExistsError(f"{folder} is there already: move it, or name another --output")
    return folders


def _training_captions(folder: Path | str) -> list[list[str]]:
    """Captions of a folder's training pictures, picture by picture, without the held-out ones."""
    split = find_split(folder, "train")
    ids = None if split.image_ids is None else set(split.image_ids)
    return read_captions([split.captions_file], ids)


def pretrain(
    captions_files: Sequence[Path | str] = (),
    output: Path | str | None = None,
    mlm_steps: int = 1_000,
    contrastive_steps: int = 1_000,
    reading_steps: int = 4_500,
    batch_size: int = 48,
    folder: Path | str | None = None,
    command: str = "",
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Pre-train caption-bert from nothing and save it as `BertModel.from_pretrained` reads it.

    Args:
        captions_files: COCO caption files whose language the encoder should know as well.
        output: the encoder's folder, a path, or a name in `encoders` of the data folder, by
            default caption-bert. Beside it, `<output>-masked-words` and `<output>-contrastive` keep
            the encoder as it was after the first and the second stage.
        mlm_steps: on masked words alone.
        contrastive_steps: on pairs of captions, masked words going on at weight 0.1.
        reading_steps: on pairs of captions, their facts read by linear layers.
        batch_size: captions a step in the first stage, pairs in the others.
        folder: a data set in COCO's layout, in whatever language: learn its training captions
            (and the files'), and not those of scenes, by the first two stages.
        command: what makes it again, for the card.
        seed: of weights, scenes, wordings and masks.
        device: as `runtime.choose_device` takes it.
        progress: show a bar.

    Raises:
        FileExistsError: the output folder is there already.
        FileNotFoundError, ValueError: as `coco_folder.find_split` and `read_captions`.
    """
    masked_words, contrastive, finished = _free_folders(Path(output or DEFAULT_ENCODER))
    scenes = folder is None
    images = read_captions(captions_files) + ([] if scenes else _training_captions(folder))
    start, scratch = time.monotonic(), finished.with_name(finished.name + ".vocabulary")
    scratch.mkdir(parents=True, exist_ok=True)
    run = Pretraining(images, scratch, scenes, batch_size, seed, runtime.choose_device(device))
    card = _card(images, scenes, coco=scenes and bool(images)) | {
        "seed": seed, "batch_size": batch_size, "command": command,
        "hardware": runtime.hardware(), "torch": torch.__version__,
    }  # fmt: skip
    stages = [
        (STAGES[0], mlm_steps, 5e-4, masked_words),
        (STAGES[1], contrastive_steps, 3e-4, contrastive if scenes else finished),
        (STAGES[2], reading_steps, 5e-4, finished),
    ][: 3 if scenes else 2]  # other captions have no facts to read
    done: dict[str, int] = {}
    for stage, steps, rate, target in stages:
        run.run(stage, steps, rate, progress)
        done[stage] = steps
        with runtime.atomic_folder(target) as unfinished:
            shutil.copytree(scratch, unfinished, dirs_exist_ok=True)
            card |= {"steps": done, "seconds": round(time.monotonic() - start)}
            write_encoder(unfinished, run.model.bert, card | {"losses": run.last_losses()})
    shutil.rmtree(scratch)
    return finished
