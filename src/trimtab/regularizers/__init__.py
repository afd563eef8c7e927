"""How training is steadied: penalties beside the loss, one file per perturbation.

    objective = (1 - w') loss + sum over penalties k of w_k penalty_k

w_k is the weight of a penalty and w' the sum over those that stand in the place of the clean loss
(`Needs.replaces_loss`: NEFTune, FreeLB, SAM), 0 without such. All terms are per example, averaged over the run's
logical batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from trimtab.perturbations import Target, TrainStep


@dataclass(frozen=True)
class Needs:
    """What a regularizer asks of the training loop and of the run.

    Attributes:
        graph: gradient flows into the clean scores, too. Where nobody needs this or one of the two gradients below, and
            the clean loss has no weight, there is no clean pass, and the penalty is what the history shows as the loss.
        gradient: the gradient of the clean loss at the text, the prompt or both; the backward pass through the frozen
            model has it for nothing.
        table_gradient: that at the prompt table, over the logical batch.
        replaces_loss: stands in the place of the clean loss, in part or (weight 1) wholly.
        distribution: the readout's scores are a distribution over answers.
        text: rows have text that may be perturbed.
        prompt: there is a prompt that may be perturbed.
        mask: the vocabulary has a token for what is hidden.
        one_process: what it keeps cannot be shared between processes.
    """

    graph: bool = False
    gradient: Target | None = None
    table_gradient: bool = False
    replaces_loss: bool = False
    distribution: bool = False
    text: bool = False
    prompt: bool = False
    mask: bool = False
    one_process: bool = False

    @property
    def clean_pass(self) -> bool:
        """Whether it must be known what the model says without perturbation."""
        return self.graph or self.gradient is not None or self.table_gradient


@runtime_checkable
class Regularizer(Protocol):
    """A penalty. The loop averages it per run, times `weight`, and backpropagates."""

    weight: float

    @property
    def needs(self) -> Needs:
        """What must be there before `penalties` is called."""
        ...

    def penalties(self, step: TrainStep) -> Iterator[Float[Tensor, "X"]]:
        """Parts of the penalty of each example, to be added up, differentiable in the prompt table.

        Each part is backpropagated, times a positive factor, before the next one is asked for; so a penalty of several
        passes holds the graph of one at a time and may use the gradients of the last.
        """
        ...


@runtime_checkable
class Remembering(Protocol):
    """What a regularizer has beside its options that a killed run must get back. In a pack the one of the first member
    acts for all, so what belongs to a run is kept by the run's number in the pack (`Batch.prompt_of`).
    """

    @property
    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON can say it."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Remember what another one did."""
        ...


def notes_of(built: Sequence[Regularizer]) -> tuple[str, ...]:
    """What a user should know of regularizers as they work here, in sentences: their `notes`, if they have any."""
    return tuple(note for r in built for note in getattr(r, "notes", ()))
