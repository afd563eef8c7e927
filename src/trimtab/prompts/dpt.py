"""DPT, decomposed prompt tuning (Xiao et al., Findings of EMNLP 2023, "Decomposed Prompt Tuning via Low-Rank
Reparameterization", arXiv 2310.10094).

    P = A B        A in R^{P x b},  B in R^{b x E},  b << min(P, E)

Symbols: P prompt, b its rank (`rank`). The paper writes the transpose. A and B exist while training only; their product
is what enters the backbone and what is kept.

Parameters: b (P + E); kept: P E. T5-large, P = 100, b = 10: 11,240, as published. Cost per step: negligible beside the
backbone.

A and B are drawn from U(-h, h), so an element of the product has the root mean square sqrt(b) h^2 / 3. By default h is
such that this is the embeddings' own; the paper's h of 0.5 (`range: 0.5`) gives 0.26 for b = 10, five times the
embeddings of BERT and far less than those of T5. With an `initializer` A B starts as the best approximation of its rows
that has rank b (truncated singular value decomposition), which so can be another run's prompt.

Deviations: that h, the initializer, and a length of 20 instead of 100; the optimizer is AdamW with our rate. With
P <= b the product is no longer of low rank, and has more parameters than the prompt itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, factors
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts

_RANK = 10


@final
@prompts.register("dpt")
class DPT(PromptEncoder):
    """A product of two thin matrices (DPT, Xiao et al. 2023).

    Args:
        length: number of virtual tokens P.
        rank: b, the width of the bottleneck.
        range: half width h of the first values of both factors; 0 matches the embeddings' root mean square.
        initializer: rows that the product starts close to; by default it is random.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 20,
        rank: Annotated[int, Field(ge=1)] = _RANK,
        range: Annotated[float, Field(ge=0)] = 0.0,
        initializer: Annotated[Initializer | None, initializers] = None,
    ) -> None:
        super().__init__()
        half = range or (3 * context.embedding_rms / rank**0.5) ** 0.5
        shapes = ((length, rank), (rank, context.embedding_size))
        left, right = ((2 * torch.rand(shape, generator=context.generator) - 1) * half for shape in shapes)
        if initializer is not None:
            left, right = factors(initializer(context, length), left)
        self.left, self.right = nn.Parameter(left), nn.Parameter(right)

    def forward(self) -> Float[Tensor, "P E"]:
        return self.left @ self.right

    @staticmethod
    def has_rows(options: Mapping[str, Any]) -> bool:
        return False

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        return int(options.get("rank", _RANK)) * (length + size)  # type: ignore[call-overload]
