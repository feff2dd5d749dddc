"""Pre-training of the course's own small BERT, on captions alone.

Three stages, all on text alone. Masked words (Devlin et al., NAACL 2019) teach the language of
captions: the course's grammar and COCO's captions. A contrastive loss (SimCSE: Gao et al., EMNLP
2021, eq. 5) pulls two wordings of the same facts together and pushes captions that differ in one
fact apart: objects swapped, a relation turned round. It tells any two captions apart, but what it
leaves need not be readable: in the third stage linear layers read every stated fact from the
sentence feature, each bound to its place, while the contrastive loss goes on.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, get_cosine_schedule_with_warmup

from t2i_course import runtime
from t2i_course.scenes.drawing import sample_captions, sample_facts
from t2i_course.scenes.probe import stated_labels
from t2i_course.scenes.wording import Facts, contradict, groups_of, word_facts
from t2i_course.text_encoder import DEFAULT_ENCODER, masked_mean, write_encoder

VOCABULARY = 4_000
MAX_TOKENS = 64
TEMPERATURE = 0.05
STAGES = ("masked words", "contrastive", "reading")
STAGE_ENDINGS = ("-masked-words", "-contrastive")  # of the folders after the first two stages
IGNORED = -100  # cross_entropy leaves these positions out


def read_captions(files: Sequence[Path | str]) -> list[list[str]]:
    """Captions of COCO caption files, those of one image together.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not JSON, or not in COCO's caption format.
    """
    images: dict[tuple[str, int], list[str]] = {}
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"no captions file {file}: check the path")
        try:
            for entry in json.loads(Path(file).read_text(encoding="utf-8"))["annotations"]:
                caption = " ".join(entry["caption"].split())
                if caption:
                    images.setdefault((str(file), entry["image_id"]), []).append(caption)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is not a COCO captions file ({error!r}): it needs `annotations` with "
                "`image_id` and `caption`"
            ) from error
    return list(images.values())


def train_tokenizer(captions: Sequence[str], folder: Path) -> BertTokenizer:
    """Learn a WordPiece vocabulary of lower-case pieces from captions, and save it."""
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(
        captions, vocab_size=VOCABULARY, min_frequency=3, show_progress=False, limit_alphabet=100
    )
    vocabulary = folder / "vocab.txt"
    pieces = sorted(trainer.get_vocab().items(), key=lambda item: item[1])
    vocabulary.write_text(
        "".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8", newline="\n"
    )
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


def _masked_word_loss(
    model: BertForMaskedLM, batch: dict[str, Tensor], tokenizer: BertTokenizer, generator: Any
) -> Tensor:
    """Cross-entropy of the hidden tokens; the output layer sees only their positions."""
    special = torch.tensor(tokenizer.all_special_ids)
    tokens = batch["input_ids"]
    maskable = ~torch.isin(tokens, special)
    inputs, labels = mask_words(
        tokens, maskable, tokenizer.mask_token_id, len(tokenizer), generator
    )
    device = model.device
    hidden = model.bert(inputs.to(device), batch["attention_mask"].to(device)).last_hidden_state
    places = labels != IGNORED  # [B, T]
    logits = model.cls(hidden[places.to(device)])  # [number hidden, V]
    return functional.cross_entropy(logits.float(), labels[places].to(device))


def _tokenize(tokenizer: BertTokenizer, captions: Sequence[str]) -> dict[str, Tensor]:
    return tokenizer(
        list(captions),
        padding=True,
        truncation=True,
        max_length=MAX_TOKENS,
        return_tensors="pt",
        return_token_type_ids=False,
    )


def _masked_word_batches(
    images: list[list[str]], rng: random.Random, size: int
) -> Iterator[list[str]]:
    """Endless batches for the first stage: half grammar, half COCO (all grammar without files)."""
    while True:
        real = [rng.choice(rng.choice(images)) for _ in range(size // 2)] if images else []
        count = size - len(real)
        drawn = [word_facts(sample_facts(rng), rng, rng.random() < 0.3) for _ in range(count)]
        yield drawn + real


@dataclass(frozen=True)
class ContrastiveBatch:
    """Captions in pairs, with hard negatives.

    anchors, positives: B captions each that say the same; negatives: M captions that say something
    else; same [B, B]: which rows state the same facts; facts: what the first of the anchors, the
    first of the positives and all negatives state, in this order (captions of COCO have none).
    """

    anchors: list[str]
    positives: list[str]
    negatives: list[str]
    same: Tensor
    facts: list[Facts]


def _contrastive_batch(images: list[list[str]], rng: random.Random, size: int) -> ContrastiveBatch:
    """Draw pairs: three quarters grammar, each with a hard negative; the rest COCO.

    A pair of COCO is two captions of one image. Of the grammar's captions, half have one, two or
    three different objects with equal chance, so that those of three are not rare.
    """
    real = size // 4 if images else 0
    facts: list[Facts] = []
    while len(facts) < size - real:
        drawn = sample_facts(rng)
        wanted = len(facts) % 6 + 1  # 1, 2 or 3 groups; above 3, whatever comes
        if wanted > 3 or len(groups_of(drawn)) == wanted:
            facts.append(drawn)
    others = [contradict(f, rng) for f in facts]

    def wordings(many: list[Facts]) -> list[str]:
        return [word_facts(f, rng, rng.random() < 0.3) for f in many]

    anchors, positives, negatives = wordings(facts), wordings(facts), wordings(others)
    keys = [json.dumps(f, sort_keys=True) for f in facts]
    for number in rng.sample(range(len(images)), min(real, len(images))):
        captions = images[number]
        pair = rng.sample(captions, 2) if len(captions) > 1 else captions * 2
        anchors.append(pair[0])
        positives.append(pair[1])
        keys.append(f"image {number}")
    same = torch.tensor([[a == b for b in keys] for a in keys])
    return ContrastiveBatch(anchors, positives, negatives, same, facts + facts + others)


class FactReader(nn.Module):
    """A linear layer for each question of `probe.stated_labels`: features [N, D] to its answers."""

    def __init__(self, width: int) -> None:
        """Collect questions and answers from 20,000 captions of the grammar."""
        super().__init__()
        answers: dict[str, set[str]] = {}
        for facts in sample_captions(20_000, seed=0)[1]:
            for question, label in stated_labels(facts).items():
                answers.setdefault(question, set()).add(label)
        self.answers = {q: sorted(labels) for q, labels in sorted(answers.items())}
        self.heads = nn.ModuleList(nn.Linear(width, len(a)) for a in self.answers.values())

    def forward(self, features: Tensor, facts: list[Facts]) -> Tensor:
        """Cross-entropy of the stated labels, averaged over the questions asked in the batch."""
        labels = [stated_labels(f) for f in facts]
        losses = []
        for (question, answers), head in zip(self.answers.items(), self.heads, strict=True):
            rows = [i for i, of_caption in enumerate(labels) if question in of_caption]
            if rows:
                target = [answers.index(labels[i][question]) for i in rows]
                logits = head(features[rows]).float()
                losses.append(
                    functional.cross_entropy(logits, torch.tensor(target).to(logits.device))
                )
        return torch.stack(losses).mean()


def pretrain(
    captions_files: Sequence[Path | str] = (),
    output: Path | str | None = None,
    mlm_steps: int = 1_500,
    contrastive_steps: int = 2_500,
    reading_steps: int = 1_500,
    batch_size: int = 64,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Pre-train caption-bert from nothing and save it as `BertModel.from_pretrained` reads it.

    Args:
        captions_files: COCO caption files whose language the encoder should know as well.
        output: folder of the encoder; by default `encoders/caption-bert` in the data folder.
            Beside it, `<output>-masked-words` and `<output>-contrastive` keep the encoder as it
            was after the first and the second stage.
        mlm_steps: steps on masked words alone.
        contrastive_steps: steps on pairs of captions, masked words going on at weight 0.1.
        reading_steps: steps on pairs of captions, their facts read by linear layers.
        batch_size: captions a step in the first stage, pairs in the second.
        seed: seed of weights, scenes, wordings and masks.
        device: as `runtime.choose_device` takes it.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        FileExistsError: the output folder is there already.
    """
    folder = (
        runtime.data_folder() / "encoders" / DEFAULT_ENCODER if output is None else Path(output)
    )
    masked_words, contrastive = (folder.with_name(folder.name + e) for e in STAGE_ENDINGS)
    for path in (folder, masked_words, contrastive):
        if path.exists():
            raise FileExistsError(f"{path} is there already: move it, or name another --output")
    images = read_captions(captions_files)
    chosen = runtime.choose_device(device)
    generator = runtime.seed_everything(seed)
    rng = random.Random(f"caption-bert {seed}")
    start = time.monotonic()
    scratch = folder.with_name(folder.name + ".vocabulary")
    scratch.mkdir(parents=True, exist_ok=True)
    texts, _ = sample_captions(20_000, seed, unseen_words=0.5)
    tokenizer = train_tokenizer(texts + [c for captions in images for c in captions], scratch)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=MAX_TOKENS,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,  # the grammar never runs out of captions: nothing to overfit
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    model = BertForMaskedLM(config).to(chosen).train()
    autocast = torch.autocast(chosen.type, dtype=torch.bfloat16, enabled=runtime.bf16_pays(chosen))
    card = {
        "model": "BertModel, 4 layers, 256 wide, pre-trained from nothing",
        "data": "captions of the course's grammar (all shape and colour pairs; text alone), and "
        f"{sum(map(len, images))} COCO captions of {len(images)} images",
        "credit": "COCO captions: Chen et al., 2015, Microsoft COCO Captions; annotations by the "
        "COCO Consortium, CC BY 4.0, cocodataset.org" if images else "none needed",
        "note": "the COCO captions are of val2017: do not report retrieval or captioning figures "
        "on val2017 with this encoder without saying so" if images else "",
        "seed": seed,
        "batch_size": batch_size,
        "hardware": runtime.hardware(),
        "torch": torch.__version__,
        "license": "CC BY 4.0",
    }  # fmt: skip
    losses: dict[str, list[float]] = {name: [] for name in STAGES}
    reader = FactReader(config.hidden_size).to(chosen)

    def pair_losses() -> tuple[Tensor, Tensor]:
        """The contrastive loss of a new batch, and that of reading its facts."""
        batch = _contrastive_batch(images, rng, batch_size)
        texts = batch.anchors + batch.positives + batch.negatives
        tokens = _tokenize(tokenizer, texts).to(chosen)
        hidden = model.bert(**tokens).last_hidden_state  # [B + B + M, T, D]
        features = masked_mean(hidden.float(), tokens["attention_mask"])  # [B + B + M, D]
        pairs = len(batch.anchors)
        anchors, positives, negatives = features.split([pairs, pairs, len(batch.negatives)])
        loss = contrastive_loss(anchors, positives, negatives, batch.same.to(chosen))
        drawn = len(batch.negatives)  # anchors with facts come first
        with_facts = torch.cat([anchors[:drawn], positives[:drawn], negatives])
        return loss, reader(with_facts, batch.facts)

    def run(steps: int, stage: str, rate: float) -> None:
        rng.seed(f"caption-bert {seed} {stage}")
        weights = [*model.parameters(), *reader.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, max(1, steps // 20), steps)
        batches = _masked_word_batches(images, rng, batch_size)
        for _ in (bar := tqdm(range(steps), desc=stage, disable=not progress)):
            with autocast:
                if stage == "masked words":
                    tokens = _tokenize(tokenizer, next(batches))
                    loss = shown = _masked_word_loss(model, tokens, tokenizer, generator)
                elif stage == "contrastive":
                    shown, _ = pair_losses()
                    tokens = _tokenize(tokenizer, next(batches)[-batch_size // 4 :])
                    loss = shown + 0.1 * _masked_word_loss(model, tokens, tokenizer, generator)
                else:
                    contrast, shown = pair_losses()
                    loss = shown + 0.3 * contrast
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            losses[stage].append(shown.item())
            bar.set_postfix(loss=f"{losses[stage][-1]:.3f}")

    def save(target: Path, steps: dict[str, int]) -> None:
        with runtime.atomic_folder(target) as unfinished:
            for file in scratch.iterdir():
                shutil.copy(file, unfinished)
            content = card | {
                "steps": steps,
                "seconds": round(time.monotonic() - start),
                "losses": {
                    name: round(float(np.mean(values[-100:])), 4)
                    for name, values in losses.items()
                    if values
                },
            }
            write_encoder(unfinished, model.bert, content)

    steps = dict(zip(STAGES, (mlm_steps, contrastive_steps, reading_steps), strict=True))
    for stage, rate, target in zip(
        STAGES, (5e-4, 3e-4, 5e-4), (masked_words, contrastive, folder), strict=True
    ):
        run(steps[stage], stage, rate)
        save(target, {name: steps[name] for name in STAGES[: STAGES.index(stage) + 1]})
    shutil.rmtree(scratch)
    return folder
