"""A manual prompt: the words of the template, and nothing that is trained (zero-shot; Brown et al. 2020,
arXiv 2005.14165; the column MP of P-tuning's LAMA table, Liu et al. 2021, arXiv 2103.10385).

    scores = readout( M( template(x) ) )        with the slots for virtual tokens left out

Parameters: none, and no optimizer step is taken: the dev split is scored once, then test. It is the baseline that says
what any training adds. What it scores equals `baselines.no_prompt` of every run on the same template; a task that has
another one for the bare model (LAMA) is asked by it with `task.template: manual`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.initializers import PromptContext
from trimtab.prompts import PromptEncoder
from trimtab.registry import prompts


@final
@prompts.register("manual")
class Manual(PromptEncoder):
    """The template as it is, nothing trained: the zero-shot baseline."""

    default_learning_rate = 1e-2
    is_fixed = True

    def __init__(self, context: PromptContext) -> None:
        super().__init__()
        self.register_buffer("empty", torch.zeros(0, context.embedding_size), persistent=False)

    def forward(self) -> Float[Tensor, "P E"]:
        return self.get_buffer("empty")

    @staticmethod
    def slots(options: Mapping[str, Any]) -> int:
        return 0

    @staticmethod
    def has_network(options: Mapping[str, Any]) -> bool:
        return False

    @staticmethod
    def has_rows(options: Mapping[str, Any]) -> bool:
        return False

    @staticmethod
    def count(length: int = 0, size: int = 0, **options: object) -> int:
        return 0

    @staticmethod
    def kept(length: int = 0, size: int = 0, **options: object) -> int:
        return 0
