"""What is learned: prompt encoders, one file per method.

An encoder is a module whose call returns the prompt, float32: of an input prompt [P,E], of prompts that enter elsewhere
or look at the text their parts by name (see `PromptTable.tensors`). It is written for one prompt, as in its paper;
packs of runs are stacked around it. What it calls `rows` is the raw prompt; every other parameter belongs to the
encoder's network (the optimizer's groups `prompt` and `encoder`). What is not trained and differs from run to run is a
buffer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from trimtab.initializers import PromptContext


class PromptEncoder(nn.Module, ABC):
    """Produces a soft prompt from its parameters. Construct as `Encoder(context, *, length=..., initializer=..., ...)`.

    Attributes:
        default_learning_rate: used where the recipe names none.
        is_fixed: whether it has nothing to train and says so, for a baseline; a run with it takes no steps.
        is_stackable: whether vmap can run several of them at once (an LSTM cannot).
        layers: of prompts that enter attention, the layers of each site that have keys and values.
        text_shift: positions that the text moves on.
        router_noise: of encoders with a router: standard deviation of the noise on its scores in training.
    """

    default_learning_rate: ClassVar[float]
    is_fixed: ClassVar[bool] = False
    is_stackable: ClassVar[bool] = True
    layers: Mapping[str, tuple[int, ...]] = {}
    text_shift: int = 0
    router_noise: float = 0.0

    @property
    def is_random(self) -> bool:
        """Whether a training-mode call draws random numbers (dropout)."""
        return any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.modules())

    @abstractmethod
    def forward(self) -> Float[Tensor, "P E"] | dict[str, Tensor]:
        """The prompt that enters the backbone."""

    def parts(self) -> dict[str, Tensor]:
        """The prompt by the names of `PromptTable.tensors`."""
        return named_parts(self())

    @torch.no_grad()
    def materialize(self) -> dict[str, Tensor]:
        """The final vectors, computed once without dropout; the encoder is not needed afterwards."""
        was_training = self.training
        self.eval()
        prompt = {name: part.detach().clone() for name, part in self.parts().items()}
        self.train(was_training)
        return prompt

    @staticmethod
    def slots(options: Mapping[str, Any]) -> int:
        """Virtual tokens in the text, for resolved options."""
        return int(options["length"])

    @staticmethod
    def position_shift(options: Mapping[str, Any], takes_positions: bool) -> int:
        """Positions that the text moves on, for resolved options.

        Args:
            takes_positions: whether the backbone's family counts from given positions.
        """
        return 0

    @staticmethod
    def has_network(options: Mapping[str, Any]) -> bool:
        """Whether there are parameters beside the raw prompt, for resolved options."""
        return True

    @staticmethod
    def has_rows(options: Mapping[str, Any]) -> bool:
        """Whether there is a raw prompt, for resolved options."""
        return True

    @staticmethod
    @abstractmethod
    def count(length: int, size: int, **options: object) -> int:
        """Trained parameters, by formula, for P = `length` and E = `size`.

        Args:
            options: those of the constructor, and of the backbone `there`, its sites, and `hidden_size`.
        """

    @staticmethod
    def kept(length: int, size: int, **options: object) -> int:
        """Parameters that are kept, as `count`."""
        return length * size


@runtime_checkable
class Searches(Protocol):
    """An encoder whose raw prompt takes the best of values that are tried, not an optimizer's step.

    Attributes:
        judges: how many training rows decide which is the best.
    """

    judges: int

    def alternatives(
        self, rows: Float[Tensor, "P E"], gradient: Float[Tensor, "P E"], rng: np.random.Generator
    ) -> Float[Tensor, "K P E"]:
        """Values of the raw prompt that a step tries.

        Args:
            rows: the raw prompt now.
            gradient: of the loss with respect to it.
            rng: of this step.
        """
        ...


class Wordless(PromptEncoder):
    """No virtual tokens at all: what baselines without a soft prompt are."""

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


def named_parts(prompt: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What an encoder returns, by the names of `PromptTable.tensors`: a lone tensor is the input prompt."""
    return {"inputs": prompt} if isinstance(prompt, Tensor) else prompt
