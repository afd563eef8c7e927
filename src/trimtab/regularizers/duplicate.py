"""The clean loss once more: what a regularizer does merely by adding a second loss of the same size.

    penalty = loss( M(s, e), y )

A control, not a method: a penalty that is no more than a copy multiplies the gradient by 1 + weight. An optimizer that
divides by the size of gradients (AdamW) undoes that up to its epsilon; gradient clipping and plain SGD do not. What a
perturbation gains beside `duplicate` at the same weight is due to the perturbation. Without backbone dropout the second
pass would repeat the first, so it is not made: cost per step: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.perturbations import TrainStep
from trimtab.registry import regularizers
from trimtab.regularizers import Needs


@final
@regularizers.register("duplicate")
class Duplicate:
    """The clean loss once more, as a control for the effective learning rate.

    Args:
        weight: of the copy.
    """

    needs = Needs(graph=True)

    def __init__(self, *, weight: Annotated[float, Field(ge=0)] = 1.0) -> None:
        self.weight = weight

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """The clean loss."""
        yield step.loss(step.scores, step.batch.labels)
