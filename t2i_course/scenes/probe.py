"""A linear probe: what a sentence feature holds of what its caption states.

Alain and Bengio (2016): train a linear classifier on frozen features and see what it can read. Here
it must read every stated fact, each bound to its object: not only that red and blue occur, but
which of them is on the left. What the probe cannot read, a generator will not draw.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.scenes.drawing import sample_captions, sample_facts
from t2i_course.scenes.wording import ATTRIBUTES, ENDS, VALUES, Facts, groups_of, word_facts

UNSTATED = "unstated"
NOT_ASKED = -100  # in place of an answer's number


def roles_of(facts: Facts) -> tuple[str, dict[int, str]]:
    """How a caption arranges its groups, and which group plays which role in it."""
    groups = groups_of(facts)
    number = len(groups)
    if not facts["relations"]:
        return f"{number} listed", ({0: "it"} if number == 1 else {})
    place = {index: k for k, group in enumerate(groups) for index in group}
    pairs = {(place[i], relation, place[j]) for i, relation, j in facts["relations"]}
    used = sorted({relation for _, relation, _ in pairs}, key=list(ENDS).index)
    ends = {"left of": ("left", "right"), "above": ("upper", "lower")}
    if number == 2:
        ((a, relation, b),) = pairs
        return f"2 {relation}", {a: ends[relation][0], b: ends[relation][1]}
    if len(used) == 1:  # a row or a column
        relation = used[0]
        (first,) = {a for a, _, _ in pairs} - {b for _, _, b in pairs}
        (last,) = {b for _, _, b in pairs} - {a for a, _, _ in pairs}
        (middle,) = {0, 1, 2} - {first, last}
        return f"3 {relation}", {
            first: ends[relation][0], middle: "middle", last: ends[relation][1],
        }  # fmt: skip
    named = [relation for _, relation, _ in pairs]
    inner = min(used, key=named.count)  # said of the pair once; the other relation is said twice
    ((a, _, b),) = [p for p in pairs if p[1] == inner]
    (third,) = {0, 1, 2} - {a, b}
    return f"3 {inner}, one aside", {a: ends[inner][0], b: ends[inner][1], third: "aside"}


def stated_labels(facts: Facts, lists: bool = False) -> dict[str, str]:
    """Everything a caption states, as one label for each question that can be put to it.

    Args:
        facts: what it states.
        lists: ask of things without places, too, what each is like, in the order of `VALUES`.

    Returns:
        For example {"background": "white", "count": "2", "2: arrangement": "2 left of",
        "2 left of: left color": "red", "2 left of: right color": "unstated", ...}.
    """

    def rank(group: int) -> list[int]:
        stated = facts["objects"][groups[group][0]]
        return [[*VALUES[name], UNSTATED].index(stated.get(name, UNSTATED)) for name in ATTRIBUTES]

    groups = groups_of(facts)
    arrangement, roles = roles_of(facts)
    if lists and not roles:
        in_order = sorted(range(len(groups)), key=rank)
        roles = dict(zip(in_order, ("first", "second", "third"), strict=False))
    labels = {"background": facts["background"] or UNSTATED, "count": str(len(facts["objects"]))}
    if len(groups) > 1:
        labels[f"{len(groups)}: arrangement"] = arrangement
    for group, role in roles.items():
        stated = facts["objects"][groups[group][0]]
        for name in ATTRIBUTES:
            labels[f"{arrangement}: {role} {name}"] = stated.get(name, UNSTATED)
        if role == "aside":
            third = groups[group][0]
            outer = next(r for r in facts["relations"] if third in (r[0], r[2]))
            labels[f"{arrangement}: side"] = "first" if outer[0] == third else "second"
    if len(facts["objects"]) == 1:
        labels["1 listed: it corner"] = facts["objects"][0].get("corner", UNSTATED)
    return labels


def probe_captions(count: int, seed: int = 0) -> tuple[list[str], list[Facts]]:
    """Captions to train the probe on: a third each with one, two and three different objects."""
    rng = random.Random(f"probe {seed}")
    captions, chosen = [], []
    while len(captions) < count:
        facts = sample_facts(rng)
        if len(groups_of(facts)) == len(captions) % 3 + 1:
            captions.append(word_facts(facts, rng))
            chosen.append(facts)
    return captions, chosen


def fit_linear(features: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Multinomial logistic regression by L-BFGS with a small weight decay.

    Args:
        features: float32 [N, D], standardised.
        labels: int64 [N], from 0 to `classes` - 1.
        classes: number of classes C.

    Returns:
        Weights [D + 1, C]; the last row is the bias.
    """
    inputs = functional.pad(features, (0, 1), value=1.0)  # [N, D + 1]
    weights = torch.zeros(inputs.shape[1], classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=120, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weights, labels) + 1e-4 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def probe_features(
    train_features: np.ndarray,
    train_facts: Sequence[Facts],
    test_features: np.ndarray,
    test_facts: Sequence[Facts],
) -> dict[str, tuple[float, int]]:
    """Train one linear classifier a question, and count its right answers on other captions.

    Args:
        train_features: [N, D] sentence features.
        train_facts: what the N captions state.
        test_features: [M, D] sentence features of held-out captions.
        test_facts: what the M captions state.

    Returns:
        For each question of `stated_labels` the share of right answers, and the number of all.
    """
    train, test = torch.tensor(np.array(train_features)), torch.tensor(np.array(test_features))
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    train_labels = [stated_labels(f) for f in train_facts]
    test_labels = [stated_labels(f) for f in test_facts]
    results = {}
    for question in sorted({q for labels in train_labels for q in labels}):
        rows, asked = (
            [i for i, of in enumerate(labels) if question in of]
            for labels in (train_labels, test_labels)
        )
        if not asked:
            continue
        classes = sorted({train_labels[i][question] for i in rows})
        target = torch.tensor([classes.index(train_labels[i][question]) for i in rows])
        weights = fit_linear(train[rows], target, len(classes))
        answers = (functional.pad(test[asked], (0, 1), value=1.0) @ weights).argmax(1).tolist()
        right = [
            classes[a] == test_labels[i][question] for a, i in zip(answers, asked, strict=True)
        ]
        results[question] = (float(np.mean(right)), len(asked))
    return results


class FactReader(nn.Module):
    """Answers to the questions of `probe.stated_labels`, from the sentence and from the words.

    The sentence feature goes through a linear layer. For each question a query attends to the word
    features (one layer, one head), and a linear layer of its own reads what it gathers.
    """

    def __init__(self, width: int) -> None:
        """Collect questions and answers from 20,000 captions of the grammar."""
        super().__init__()
        answers: dict[str, set[str]] = {}
        for facts in sample_captions(20_000, seed=0)[1]:
            for question, label in stated_labels(facts, lists=True).items():
                answers.setdefault(question, set()).add(label)
        self.answers = {q: sorted(labels) for q, labels in sorted(answers.items())}
        self.sizes = [len(labels) for labels in self.answers.values()]
        total = sum(self.sizes)
        self.sentence_head = nn.Linear(width, total)
        self.queries = nn.Parameter(torch.randn(len(self.sizes), width) * width**-0.5)
        self.key = nn.Linear(width, width)
        self.word_head = nn.Linear(width, total)

    def targets(self, facts: list[Facts]) -> Tensor:
        """The number of each stated answer, [N, Q]; `NOT_ASKED` where a question is not asked."""
        rows = []
        for stated in facts:
            labels = stated_labels(stated, lists=True)
            rows.append([
                known.index(labels[question]) if labels.get(question) in known else NOT_ASKED
                for question, known in self.answers.items()
            ])  # fmt: skip
        return torch.tensor(rows)

    def from_sentence(self, sentence: Tensor) -> list[Tensor]:
        """Logits of each question's answers from sentences [N, D]."""
        return list(self.sentence_head(sentence).split(self.sizes, dim=1))

    def from_words(self, words: Tensor, mask: Tensor) -> list[Tensor]:
        """The same from words [N, T, D] and their mask [N, T]."""
        scores = self.key(words) @ self.queries.T * words.shape[-1] ** -0.5  # [N, T, Q]
        scores = scores.masked_fill(mask[:, :, None] == 0, -torch.inf)
        gathered = torch.einsum("ntq,ntd->qnd", scores.softmax(dim=1), words)  # [Q, N, D]
        parts = zip(
            gathered,
            self.word_head.weight.split(self.sizes),
            self.word_head.bias.split(self.sizes),
            strict=True,
        )
        return [functional.linear(rows, weight, bias) for rows, weight, bias in parts]

    def forward(
        self, sentence: Tensor, parts: list[tuple[Tensor, Tensor, Tensor]], targets: Tensor
    ) -> Tensor:
        """Mean cross-entropy of the two readings over the questions that the batch asks.

        Args:
            sentence: [N, D].
            parts: rows [n] of the captions, their words [n, T, D] and mask [n, T], of all N.
            targets: [N, Q].
        """
        order = torch.cat([rows for rows, _, _ in parts]).argsort()
        found = [self.from_words(words, mask) for _, words, mask in parts]
        from_words = [torch.cat(logits)[order] for logits in zip(*found, strict=True)]
        readings = self.from_sentence(sentence), from_words
        return sum(reading_loss(each, targets) for each in readings) / 2


def reading_loss(readings: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits [N, A], a tensor for each of Q questions, where one is asked.

    In `targets` [N, Q], `NOT_ASKED` stands where it is not.
    """
    losses = []
    for logits, column in zip(readings, targets.T, strict=True):
        asked = column != NOT_ASKED
        if asked.any():
            losses.append(functional.cross_entropy(logits[asked], column[asked]))
    return torch.stack(losses).mean()
