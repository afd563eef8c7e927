"""What readouts that write their answers have in common: what is known of an answer is how likely its tokens are.

    score = 1/n sum over j of log p( y_j | what is read before it ),    y = the n tokens of the known answer

and the loss is its negative. What the model itself writes, and what that is worth, is each readout's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.readouts.classes import missing_label
from trimtab.types import Batch, Example


class Written:
    """A written answer, from scores [X,1]."""

    trains: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def loss(self, scores: Float[Tensor, "X 1"], labels: Int[Tensor, "X"]) -> Float[Tensor, "X"]:
        """Mean cross-entropy per token of the answer, in nats; 0 where there is none to learn (a label of -1)."""
        return torch.where(labels >= 0, -scores[:, 0], 0.0)

    def missing(self, example: Example, classes: Sequence[str]) -> str | None:
        """A text, or a label of the task where it has classes."""
        return missing_label(example, classes)


def mean_likelihood(per_read: Float[Tensor, "B A"], batch: Batch) -> Float[Tensor, "B 1"]:
    """Mean over the reads that have a token to predict; not a number where none has."""
    if batch.targets is None:
        return per_read.new_full((len(per_read), 1), torch.nan)
    known = (batch.targets >= 0).sum(1)
    mean = per_read.sum(1) / known.clamp(min=1)
    return torch.where(known > 0, mean, torch.nan)[:, None]
