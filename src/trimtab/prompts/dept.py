"""DePT, decomposed prompt tuning (Shi and Lipani, ICLR 2024, arXiv 2309.05173).

    input = [ P ; E(x) + s A B ]        P in R^{P x E},  A in R^{O x r},  B in R^{r x E},  s = alpha / sqrt(r)

Symbols: P short prompt, E(x) embedded text, r rank, O the longest text (`text_length`). Row n of s A B is added to the
n-th token of the text, whatever that token is. A is random and B zero, so that training starts at the text itself. P
and the pair A, B are learned at rates of their own: the groups `prompt` and `encoder` of `training.learning_rates`.

Parameters: P E + r (O + E); kept: (P + O) E, the prompt and s A B. T5-base with P = 40, r = 45, O = 256: 76,800, as
many as 100 vectors. Cost per step: that of the shorter sequence.

Deviations. What is counted: the tokens of literals and fields, in their order. The released code adds its rows to all
positions of a text that was padded on the right, [CLS], </s>, pads and the answer of causal models included. Here these
neither have an offset nor count, nor do slots, so padding, the place of the prompt and what a model writes itself
change nothing. Tokens behind the O-th have no offset; the code cuts them off. Of an encoder-decoder the encoder's text
has the offset, as in the paper.
The scale: s is multiplied with the embeddings' root mean square, so that equal rates mean equal steps on all backbones
(`scale: paper` leaves that out). Defaults are P = 10 and r = 8, alpha is that of the released checkpoints, 8. One rate
for both groups by default, with AdamW; the paper's are 0.3 or 0.4 for P and from 0.0005 on for A and B. With another
DePT run as the `initializer` the offset starts at that run's as well, or at the nearest one of rank r.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab, factors, part_of
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts

_RANK, _TEXT = 8, 256


@final
@prompts.register("dept")
class DePT(PromptEncoder):
    """A short prompt and a low-rank offset of the text (DePT, Shi and Lipani 2024).

    Args:
        length: number of virtual tokens P.
        initializer: their first values.
        rank: r, of the offset.
        text_length: O, how many tokens of a text have an offset.
        alpha: numerator of the offset's scale.
        scale: `scaled` counts the offset in units of the embeddings' root mean square, `paper` does not.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        rank: Annotated[int, Field(ge=1)] = _RANK,
        text_length: Annotated[int, Field(ge=1)] = _TEXT,
        alpha: Annotated[float, Field(gt=0)] = 8.0,
        scale: Literal["scaled", "paper"] = "scaled",
    ) -> None:
        super().__init__()
        size = context.embedding_size
        self.rows = nn.Parameter(initializer(context, length))
        self.factor = alpha / rank**0.5 * (context.embedding_rms if scale == "scaled" else 1.0)
        left = (2 * torch.rand(text_length, rank, generator=context.generator) - 1) / rank**0.5
        right = torch.zeros(rank, size)
        known = part_of(initializer, context, "text_offset", (text_length, size), "prompt.text_length")
        if known is not None:
            left, right = factors(known / self.factor, left)
        self.left, self.right = nn.Parameter(left), nn.Parameter(right)

    def forward(self) -> dict[str, Tensor]:
        return {"inputs": self.rows * 1.0, "text_offset": self.factor * (self.left @ self.right)}

    @staticmethod
    def count(length: int, size: int, **options: Any) -> int:
        return length * size + options.get("rank", _RANK) * (options.get("text_length", _TEXT) + size)

    @staticmethod
    def kept(length: int, size: int, **options: Any) -> int:
        return (length + options.get("text_length", _TEXT)) * size
