"""One direction for all virtual tokens, at different lengths.

    p_i = a_i d        d in R^E,  a_i in R

P + E numbers are trained.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from trimtab.initializers import Initializer, PromptContext, SampledVocab
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts


@prompts.register("one_direction")
class OneDirection(PromptEncoder):
    """One direction for all virtual tokens.

    Args:
        length: number of virtual tokens P.
        initializer: first value of the direction.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 10,
        initializer: Annotated[Initializer, initializers] = SampledVocab(),  # noqa: B008
    ) -> None:
        super().__init__()
        self.rows = nn.Parameter(initializer(context, 1))
        self.sizes = nn.Parameter(torch.ones(length, 1))

    def forward(self) -> Tensor:
        return self.sizes * self.rows

    @staticmethod
    def count(length: int, size: int, **options: object) -> int:
        return length + size
