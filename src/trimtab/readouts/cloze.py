"""Cloze: the vocabulary head's opinion of the label words at the mask (Schick and Schutze 2021, PET, section 3.1;
P-tuning's SuperGLUE code).

    score(c) = mean over the words w of class c of logit(w at the mask);    p(c) = softmax over classes

A word of n tokens is read at n masks, in one pass (Schick and Schutze 2021b, "It's not just size", section 3.2, their
approximation for training): score(w) = sum over j of log p(token j at mask j).

Deviations: the mean over the words of a class follows P-tuning's code; `combine: max` and `logsumexp` are ours. At test
time PET fills several masks one by one, the most confident first; here testing is done as training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.errors import TemplateError
from trimtab.readouts import WordIds
from trimtab.readouts.classes import Classes
from trimtab.readouts.label_words import Combine, LabelWords
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Fill, WordPlan


@final
@readouts.register("cloze")
class Cloze(Classes):
    """Label words at the mask token of a masked language model.

    Args:
        combine: how the scores of several label words make a class score.
        length_normalized: divide the score of a word by its number of tokens; matters where words of one token meet
            words of several.
    """

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        combine: Combine = "mean",
        length_normalized: bool = False,
    ) -> None:
        self._words = LabelWords(backbone, plans, combine, length_normalized)

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, **options: Any) -> AnswerPlan:
        """One sequence per word length, with as many masks."""
        if encoder.mask_id is None:
            raise TemplateError(
                "the readout 'cloze' needs a mask token, this tokenizer has none.",
                where="readout.kind",
                fix="Use a masked language model, or readout.kind=ranking.",
            )
        lengths = sorted({len(w) for its in words for w in its})
        fills = tuple(Fill((encoder.mask_id,) * n, tuple(range(n))) for n in lengths)
        return AnswerPlan(fills, tuple(tuple(WordPlan(lengths.index(len(w)), tuple(w)) for w in its) for its in words))

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X C"]:
        """Class scores from the masks of each example."""
        return self._words.scores(hidden, batch)
