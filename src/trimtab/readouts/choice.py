"""Multiple choice with one trained vector (Devlin et al. 2019, section 4.4, their recipe for SWAG; P-tuning v2, Liu et
al. 2022, arXiv 2110.07602, for COPA).

    score(j) = w . h_j,    h_j = the last hidden state at one position of the sequence that holds choice j
    p(j)     = softmax over the choices of the example

Symbols: w [H], trained with the prompt and kept with it. Each choice is a sequence of its own, in which it stands where
the template says `{choice}`; so an example costs as many sequences as it has choices, and examples may have different
numbers of them: those that one lacks score -inf. There is no bias: added to every choice, it would leave the softmax as
it is, and have no gradient.

Noise on the embeddings of an example is drawn once and shared by its choices, position by position from the left.

Deviations: BERT reads the pooled [CLS] (a trained layer with tanh); here nothing stands between hidden state and w, as
in the readout `head`, whose positions these are. The released code of P-tuning v2 for COPA reads position 0 of a
sequence whose first vectors are the prompt; here `first` is the [CLS]. No dropout before w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.predictions import Prediction
from trimtab.readouts import WordIds
from trimtab.readouts.classes import own_choices
from trimtab.readouts.head import OneState, Position, linear, plan_at
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Row

FIELD = "choice"
"""The field of a template that stands for each choice in turn."""


@final
@readouts.register("choice")
class Choice(OneState):
    """One of several texts, each scored in a sequence of its own.

    Args:
        position: where a sequence is read, as in the readout `head`.
        random_pooler: seed of a random, frozen pooler, as there.
    """

    kinds: ClassVar[tuple[str, ...]] = ("choice",)
    has_bias: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, *, position: Position = "auto", **options: Any) -> AnswerPlan:
        """One sequence per choice."""
        return replace(plan_at(encoder, position), each=FIELD)

    @staticmethod
    def outputs(classes: int) -> int:
        """Rows of the head's weight: the same for every choice."""
        return 1

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X C"]:
        """Scores of each example's choices; not a number for rows without a prompt, which have no head."""
        per_row = linear(self.features(hidden, batch), batch.prompt_of, heads)[:, 0]
        column = torch.arange(len(per_row), device=per_row.device) - batch.first_row[batch.example_of]
        empty = per_row.new_full((len(batch.labels), int(column.max()) + 1), -torch.inf)
        return empty.index_put((batch.example_of, column), per_row)

    def measure(self, rows: Sequence[Row], answers: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
        """Accuracy; choices are no classes, so there is no macro-F1 over them."""
        found = super().measure(rows, answers, classes)
        return {name: found[name] for name in ("accuracy", "rows")}

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X C"], classes: Sequence[str]) -> list[Prediction]:
        """The best choice with its text, and a probability for each that the example has."""
        return own_choices(super().records(rows, scores, classes), rows, [len(row.variants) for row in rows])
