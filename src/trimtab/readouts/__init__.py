"""How an answer is read: from hidden states at the answer slots to class scores [B,C]."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Readout(Protocol):
    """Reads rows of one readout table. `readout_of[b]` names the row's entry; scores of absent classes are -inf."""

    def scores(self, hidden: Float[Tensor, "B A H"], readout_of: Int[Tensor, "B"]) -> Float[Tensor, "B C"]:
        """Class scores in float32, differentiable in `hidden`."""
        ...

    def loss(self, scores: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Loss per row, in nats where it is a cross-entropy."""
        ...
