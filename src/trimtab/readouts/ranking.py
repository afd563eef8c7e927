"""Ranking: how likely a causal or encoder-decoder model finds each label word (Brown et al. 2020, section 2.4; the
candidate scoring of lm-evaluation-harness).

    score(w) = sum over j of log p( w_j | text, w_1 .. w_(j-1) );    score(c) = mean over the words of class c
    length_normalized:  score(w) / number of tokens

The word stands where `{answer}` does. A causal model reads the text up to there and the word's first tokens; words
that share these need one pass together, so a set of one-token words costs one pass. Text after `{answer}` is left out:
it is the same for every word. An encoder-decoder reads the whole text in the encoder, with T5's first sentinel in the
slot where the vocabulary has one, and the word in the decoder, after the same sentinel.

Deviations: no end-of-text token is scored after a word. lm-evaluation-harness divides by characters or bytes where it
normalizes; we divide by tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.readouts import WordIds
from trimtab.readouts.classes import Classes
from trimtab.readouts.label_words import Combine, LabelWords
from trimtab.readouts.sentinels import sentinel_of
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Fill, WordPlan


@final
@readouts.register("ranking")
class Ranking(Classes):
    """Label words by their likelihood under a causal or encoder-decoder model.

    Args:
        combine: how the scores of several label words make a class score.
        length_normalized: divide the score of a word by its number of tokens.
        sentinel: whether an encoder-decoder reads T5's `<extra_id_0>` in the answer slot; `auto` where it has one.
    """

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        combine: Combine = "mean",
        length_normalized: bool = False,
        sentinel: Literal["auto", "yes", "no"] = "auto",
    ) -> None:
        self._words = LabelWords(backbone, plans, combine, length_normalized)

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, *, sentinel: str = "auto", **options: Any) -> AnswerPlan:
        """One sequence per beginning of a word: all its tokens but the last."""
        begun = sorted({tuple(w[:-1]) for its in words for w in its})
        if encoder.decoder_start_id is None:
            fills = [Fill(b, tuple(range(-1, len(b))), is_last=True) for b in begun]
        else:
            ids = sentinel_of(encoder, sentinel)
            head = (encoder.decoder_start_id, *(ids or encoder.prefix))
            fills = [Fill(ids, tuple(range(len(head) - 1, len(head) + len(b))), head + b) for b in begun]
        plans = tuple(tuple(WordPlan(begun.index(tuple(w[:-1])), tuple(w)) for w in its) for its in words)
        return AnswerPlan(tuple(fills), plans)

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X C"]:
        """Class scores from the positions that predict the tokens of the words."""
        return self._words.scores(hidden, batch)
