"""Prompt tuning (Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv 2104.08691).

    P in R^{P x E} is trained directly;  input = [P ; E(x)]

Symbols: P prompt, E(x) embedded text. Parameters: P E, all kept. Cost per step: that of the longer sequence.

Deviations: the optimizer is AdamW at a rate scaled to small embeddings, not Adafactor at 0.3 (which suits T5's large
ones); the default length is 10, not 100; the template, not the method, decides where the prompt stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts


@final
@prompts.register("prompt_tuning")
class PromptTuning(PromptEncoder):
    """Vectors trained directly (Lester et al. 2021).

    Args:
        length: number of virtual tokens P.
        initializer: their first values.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),
    ) -> None:
        super().__init__()
        self.rows = nn.Parameter(initializer(context, length))

    def forward(self) -> Float[Tensor, "P E"]:
        return self.rows * 1.0

    @staticmethod
    def has_network(options: Mapping[str, Any]) -> bool:
        return False

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        return length * size
