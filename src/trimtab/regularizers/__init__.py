"""How training is steadied: penalties added to the loss, one file per perturbation."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from trimtab.types import TrainStep


@runtime_checkable
class Regularizer(Protocol):
    """`penalty(step)` -> one value per row [B]; the loop averages per run, times `weight`, and backpropagates."""

    weight: float

    def penalty(self, step: TrainStep) -> Float[Tensor, "B"]:
        """The penalty of each row, differentiable in the prompt table."""
        ...
