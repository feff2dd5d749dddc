"""A discriminator's head to which the parts of a caption go one by one.

A discriminator that is told a sentence as one vector must find out by itself which colour goes with
which shape, from one number for picture and sentence. Here the vector comes sorted into the scene
and up to three kinds of things (`t2i_course.scenes.caption_parts`). Each part looks at the
picture's map and at the other parts, and says whether it is shown: a transformer decoder
(vaswani2017attention, section 3.1), as in `t2i_course.captioner`, with parts in the place of words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.scenes.caption_parts import HEADS, PARTS, SLOPE, WIDTH

TOKEN = 128  # width in which parts look at places
LAYERS = 2


class PartJudge(nn.Module):
    """How far a picture shows the parts of a caption: one logit, a sum over the parts."""

    def __init__(self, channels: int, side: int) -> None:
        """Build it for maps [B, channels, side, side]."""
        super().__init__()
        self.see = nn.Linear(channels, TOKEN)
        self.place = nn.Parameter(0.3 * torch.randn(side * side, TOKEN))
        self.normalize = nn.LayerNorm(TOKEN)
        self.tell = nn.Linear(WIDTH, TOKEN)
        self.name = nn.Parameter(0.3 * torch.randn(PARTS, TOKEN))  # which part it is
        layer = nn.TransformerDecoderLayer(
            TOKEN, HEADS, 2 * TOKEN, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.decoder = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(TOKEN))
        # No start at 0: with Adam's first beta at 0 such a layer trembles, and never leaves it.
        self.verdict = nn.Linear(TOKEN, 1)

    def forward(self, x: Tensor, parts: Tensor) -> Tensor:
        """Judge captions of pictures.

        Args:
            x: [B, C, H, W], maps of B pictures, before the activation.
            parts: [K B, 4, 64], of K captions for each picture: first one for each of the B, then
                a second one for each.

        Returns:
            Logits [K B].
        """
        x = functional.leaky_relu(x, SLOPE).flatten(2).mT  # [B, H W, C]
        seen = self.normalize(self.see(x) + self.place)  # [B, H W, 128]
        times = len(parts) // len(x)  # K
        tokens = (self.tell(parts) + self.name).unflatten(0, (times, len(x)))  # [K, B, 4, 128]
        # All captions of a picture look at it at once, and each at its own parts only.
        tokens = tokens.transpose(0, 1).flatten(1, 2)  # [B, K * 4, 128]
        caption = torch.arange(times, device=x.device).repeat_interleave(PARTS)
        tokens = self.decoder(tokens, seen, tgt_mask=caption[:, None] != caption)
        logits = self.verdict(tokens).unflatten(1, (times, PARTS)).sum(dim=(2, 3))  # [B, K]
        return logits.T.flatten()
