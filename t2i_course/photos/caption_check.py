"""Can the encoder read these captions? Asked before a training that would otherwise learn nothing.

A vocabulary that cannot spell a word puts [UNK] in its place, and all unknown words are the same
unknown. Captions in another script become rows of [UNK]; those of equal length get equal features,
and a generator trained on them is told nothing.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2i_course.text_encoder import TextEncoder

LOOKED_AT = 20_000  # captions, spread evenly: a second or two
NOTED = 0.01  # share of words that are unknown, from which a note is due
REFUSED = 0.9  # from which next to nothing is read
REMEDY = (
    "Take an encoder that knows the language: --encoder bert-base-multilingual-cased, for Chinese "
    "--encoder bert-base-chinese; or let one learn these captions, without a network: `python -m "
    "t2i_course encoder --data FOLDER --output my-encoder`, then --encoder my-encoder"
)


@dataclass(frozen=True)
class Reading:
    """How much of some captions an encoder reads.

    Attributes:
        captions: different ones that were looked at.
        unknown: share of their words and parts of words that are [UNK], 0 to 1; marks that are no
            letters or digits do not count.
        alike: captions whose tokens, [UNK] among them, are those of another caption.
    """

    captions: int
    unknown: float
    alike: int

    def __str__(self) -> str:
        """In words, for a note."""
        alike = f", and {self.alike:,} of them read like another one" if self.alike else ""
        return (
            f"of {self.captions:,} different captions the encoder cannot read {self.unknown:.1%} "
            f"of the words{alike}"
        )


def read_share(encoder: TextEncoder, captions: Sequence[str]) -> Reading:
    """Count unknown words, and captions that nothing tells apart, in at most `LOOKED_AT` captions.

    The encoder's tokens are counted; its network does not run.
    """
    different = list(dict.fromkeys(captions))
    spread = np.linspace(0, len(different) - 1, min(LOOKED_AT, len(different))).astype(int)
    chosen = [different[row] for row in spread]
    unknown = encoder.tokenizer.unk_token
    words, unread, rows = 0, 0, Counter()
    for tokens in map(encoder.tokenizer.tokenize, chosen):
        words += sum(any(map(str.isalnum, token)) for token in tokens)  # [UNK] is one, too
        unread += tokens.count(unknown)
        if unknown in tokens:
            rows[tuple(tokens)] += 1
    alike = sum(count for count in rows.values() if count > 1)
    return Reading(len(chosen), unread / max(words, 1), alike)


def check_captions(encoder: TextEncoder, captions: Sequence[str]) -> Reading:
    """Warn of captions that the encoder cannot read, and refuse them where next to nothing is read.

    Raises:
        ValueError: `REFUSED` of the words are unknown; with the remedy.
    """
    found = read_share(encoder, captions)
    if found.unknown >= REFUSED:
        raise ValueError(f"{found}: a network would learn nothing from them. {REMEDY}.")
    if found.unknown >= NOTED:
        warnings.warn(f"{found}. {REMEDY}.", stacklevel=2)
    return found
