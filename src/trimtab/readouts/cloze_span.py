"""A phrase, written into masks by a masked language model, and compared with one of the example (Schick and Schutze
2021b, "It's not just size", section 3; P-tuning, Liu et al. 2021, its code for WSC).

    loss = - 1/(n+m) [ sum over k of log p( token k of the phrase | n+m masks ) + m terms for the pad token behind it ]

Symbols: n tokens of the phrase; m masks more, 0 to 3, drawn once per example, which the model learns to fill with pads,
so that the number of masks does not give the phrase away. Only phrases that are right are learned.

To predict, there is one mask more than the example's phrase has tokens (`extra_masks`). All are filled with the
likeliest token, one after the other, the most confident first, and what then stands there, pads aside, is the answer:
right if one of the two has all words of the other (see `trimtab.grading.means_the_same`). Nothing is trained but the
prompt.

Deviations: m depends on the example's id alone, so it is the same under every seed; the loss is averaged over the
tokens of an example, then over examples, as in the readout `text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.metrics import majority_baseline
from trimtab.readouts import Look, WordIds
from trimtab.readouts.filling import fill, mask_of
from trimtab.readouts.vocabulary import Vocabulary
from trimtab.readouts.written import Written, mean_likelihood
from trimtab.registry import readouts
from trimtab.seeding import stream
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Fill, Label, Row


@final
@readouts.register("cloze_span")
class ClozeSpan(Written):
    """A phrase that a masked language model writes; the label says whether the example's own is right.

    Args:
        most_pads: while training, up to so many masks more than the phrase has tokens.
        extra_masks: to predict, so many more.
    """

    kinds: ClassVar[tuple[str, ...]] = ("match",)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    new_tokens: ClassVar[int] = 0
    end_id: ClassVar[int | None] = None

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        most_pads: Annotated[int, Field(ge=0)] = 3,
        extra_masks: Annotated[int, Field(ge=0)] = 1,
    ) -> None:
        self._mask, self._vocabulary = mask_of(backbone.encoder, "cloze_span"), Vocabulary(backbone)
        self._pad, self._extra = backbone.pad_id, extra_masks

    @classmethod
    def plan(
        cls, encoder: TextEncoder, words: WordIds, *, most_pads: int = 3, extra_masks: int = 1, **options: Any
    ) -> AnswerPlan:
        """One sequence, with a mask per token of the phrase and some more."""
        mask, pad = mask_of(encoder, "cloze_span"), int(encoder.tokenizer.pad_token_id)
        return AnswerPlan((Fill((mask,), (0,)),), compose=partial(_compose, mask, pad, most_pads), room=extra_masks)

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X 1"]:
        """Mean log-likelihood per mask of the phrase and the pads behind it, all masks open."""
        return mean_likelihood(self._vocabulary.likelihoods(hidden, batch), batch)

    def look(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "B A 2"]:
        """The token that belongs at each mask, or else the likeliest, and its log-probability."""
        return self._vocabulary.likeliest(hidden, batch)

    def write_in_passes(self, rows: Sequence[Row], look: Look) -> list[tuple[int, ...]]:
        """The likeliest tokens, the most confident first; pads left out."""
        open_masks: list[list[int | None]] = [[None] * (_length(row, self._pad) + self._extra) for row in rows]
        found = fill(rows, open_masks, look, self._mask)
        return [tuple(token for token, _ in its if token != self._pad) for its in found]

    def measure(self, rows: Sequence[Row], answers: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
        """Nothing beyond the classes that phrases stand for, see `trimtab.grading`."""
        return {}

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """Accuracy of the more frequent label."""
        return majority_baseline([str(row.origin.label) for row in rows])


def _compose(
    mask: int, pad: int, most: int, phrases: Sequence[tuple[int, ...]], right: int, name: str
) -> tuple[Fill, Label]:
    """The masks of the phrase and of some pads. The label is 0 where the phrase is right, else -1, as there is nothing
    to learn."""
    (phrase,) = phrases
    pads = int(stream(0, f"pads:{name}").integers(most + 1))
    targets = (*phrase, *[pad] * pads)
    return Fill((mask,) * len(targets), tuple(range(len(targets))), targets=targets), 0 if right == 1 else -1


def _length(row: Row, pad: int) -> int:
    """Tokens of the phrase."""
    return sum(token != pad for token in row.encoded.targets)
