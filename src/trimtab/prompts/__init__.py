"""What is learned: prompt encoders, one file per method.

An encoder is a module whose call returns the prompt, [P,E] float32. It is written for one prompt, as in its paper;
packs of runs are stacked around it. `rows` is the raw prompt; every other parameter belongs to the encoder's network
(the optimizer's groups `prompt` and `encoder`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PromptEncoder(nn.Module, ABC):
    """Produces a soft prompt from its parameters. Construct as `Encoder(context, *, length=..., initializer=..., ...)`.

    Attributes:
        rows: the raw prompt [P,E], initialized by the initializer.
        default_learning_rate: used where the recipe names none.
        is_stackable: whether vmap can run several of them at once (an LSTM cannot).
    """

    default_learning_rate: ClassVar[float]
    is_stackable: ClassVar[bool] = True
    rows: nn.Parameter

    @property
    def is_random(self) -> bool:
        """Whether a training-mode call draws random numbers (dropout)."""
        return any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.modules())

    @abstractmethod
    def forward(self) -> Float[Tensor, "P E"]:
        """The prompt that enters the backbone."""

    @torch.no_grad()
    def materialize(self) -> Float[Tensor, "P E"]:
        """The final vectors, computed once without dropout; the encoder is not needed afterwards."""
        was_training = self.training
        self.eval()
        prompt = self().detach().clone()
        self.train(was_training)
        return prompt

    @staticmethod
    @abstractmethod
    def count(length: int, size: int, **options: object) -> int:
        """Trained parameters, by formula, for P = `length` and E = `size`."""
