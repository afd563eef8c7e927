"""No prompt: what a head learns on the frozen backbone alone (linear probing), or a backbone that is trained without.

Parameters: none; the readout or the backbone has them. This is the baseline that says what a prompt adds.
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
@prompts.register("none")
class NoPrompt(PromptEncoder):
    """No prompt: the baseline of a head, or of a backbone, that is trained alone."""

    default_learning_rate = 1e-2

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
