"""How an answer is read: from hidden states at the answer slots to class scores [X,C], or to written text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch

WordIds = Sequence[Sequence[Sequence[int]]]
"""Token ids of label words: by class, by word."""


@runtime_checkable
class Readout(Protocol):
    """Reads examples of one readout table. `readout_of[x]` names the entry; scores of absent classes are -inf.

    Built from a backbone and one `AnswerPlan` per entry, which its class method `plan` makes. One that writes its
    answer scores a known answer with C = 1, its mean log-likelihood per token.

    Attributes:
        writes: whether the answer is written, token by token, instead of chosen among label words.
        metrics: the dev metrics that may select a checkpoint, beside `loss`; the first is the default.
        new_tokens: how much is written; 0 for readouts that do not.
        end_id: the token that ends what is written, where that is not the tokenizer's own end.
    """

    writes: ClassVar[bool]
    metrics: ClassVar[tuple[str, ...]]
    new_tokens: int
    end_id: int | None

    def scores(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "X C"]:
        """Class scores in float32, differentiable in `hidden`."""
        ...

    def loss(self, scores: Float[Tensor, "X C"], labels: Int[Tensor, "X"]) -> Float[Tensor, "X"]:
        """Loss per example, in nats where it is a cross-entropy."""
        ...


def plan_answers(spec: Mapping[str, Any], encoder: TextEncoder, words: WordIds) -> AnswerPlan:
    """How the readout of a resolved `spec` wants sequences to be rendered for these label words.

    Raises:
        TemplateError: the tokenizer lacks a token that the readout needs.
    """
    options = {k: v for k, v in spec.items() if k != "kind"}
    plan: AnswerPlan = readouts.get(spec["kind"]).plan(encoder, words, **options)  # type: ignore[attr-defined]
    return plan
