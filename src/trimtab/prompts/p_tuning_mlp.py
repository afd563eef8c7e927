"""P-tuning with an MLP prompt encoder (Liu et al. 2021, "GPT Understands, Too", arXiv 2103.10385; the `mlp` encoder of
its SuperGLUE code).

    h_i = W2 ReLU( W1 e_i + b1 ) + b2        W1, W2: E -> E

Symbols: e_i raw pseudo-token, h_i its embedding. Parameters: P E + 2 (E^2 + E); kept: P E. Cost per step: negligible.

Deviations: the backbone is frozen (the released SuperGLUE code trains it too). The released encoder fails with more
than one pseudo-token; this one does not. `width` is an option, E in the code.
"""

from __future__ import annotations

from typing import Annotated, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts


@final
@prompts.register("p_tuning_mlp")
class PTuningMLP(PromptEncoder):
    """Pseudo-tokens through a two-layer network (Liu et al. 2021).

    Args:
        length: number of virtual tokens P.
        initializer: first values of the raw rows.
        width: hidden width; 0 means E.
    """

    default_learning_rate = 3e-3

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
        width: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        size = context.embedding_size
        self.rows = nn.Parameter(initializer(context, length))
        self.network = nn.Sequential(nn.Linear(size, width or size), nn.ReLU(), nn.Linear(width or size, size))

    def forward(self) -> Float[Tensor, "P E"]:
        return self.network(self.rows)

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        w = int(options.get("width", 0)) or size  # type: ignore[call-overload]
        return length * size + 2 * size * w + w + size
