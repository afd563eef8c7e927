"""Answers that stand in a context (Devlin et al. 2019, sections 4.2 and 4.3; P-tuning v2, Liu et al. 2022, arXiv
2110.07602, for SQuAD).

    p_start(i) = softmax over i of w_s . h_i,    p_end(j) = softmax over j of w_e . h_j
    loss       = - (log p_start(s) + log p_end(e)) / 2
    score(i,j) = w_s . h_i + w_e . h_j,          i <= j < i + max_answer_tokens

Symbols: h_i the last hidden state at token i of the context; w_s, w_e [H], trained with the prompt and kept with it. A
bias would be the same at every token and leave both softmaxes as they are, so there is none. The softmaxes run over the
tokens of the context and, where the tokenizer puts a token before a text that sees all of it ([CLS]), over that one: it
stands for "no answer".

A context that does not fit is read in windows that share `stride` tokens, so that each token is read; a window is a row
of training. As in the released scripts of BERT and P-tuning v2, a window without the answer learns "no answer" whatever
the data; where no token stands for that, it learns nothing. Of several right answers the first that is in the window
counts. The answer to a question is the best one of all its windows, cut out of the context by character.

Where dev has questions without an answer, a question has none if "no answer" (w_s . h_0 + w_e . h_0, in the window
where it is lowest) exceeds the best answer by more than a threshold. It is the one with the best F1 on dev, and kept
with the prompt. Without such questions every question is answered.

Deviations: all pairs of tokens are searched, not those of the 20 best starts and ends, which finds the same answers or
better ones; softmaxes leave out prompt and question, whose tokens can be no answer. No dropout before the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab.backbones import Backbone
from trimtab.errors import TemplateError
from trimtab.predictions import Extracted
from trimtab.readouts import WordIds
from trimtab.readouts.head import linear
from trimtab.registry import readouts
from trimtab.span_metrics import best_threshold, extraction
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Encoded, Example, Fill, Row

FIELD = "context"
"""The field that answers are cut from."""


@dataclass(frozen=True)
class Found:
    """The best answer to a question, `context[start:end]`.

    Attributes:
        score: its share in the softmax over the best answers.
        odds: how far "no answer" is preferred to it; 0 where nothing stands for that.
    """

    text: str
    start: int | None
    end: int | None
    score: float
    odds: float


@final
@readouts.register("span")
class Span:
    """A stretch of the context, by its first and its last token.

    Args:
        stride: tokens that two windows of a long context share, at most half a window.
        max_answer_tokens: the longest answer that may be given.
        n_best: how many answers a score is a share of.
        threshold: how much "no answer" must score above the best answer to be the answer; null to choose it on dev,
            where dev has questions without one.
    """

    kinds: ClassVar[tuple[str, ...]] = ("span",)
    trains: ClassVar[bool] = True
    per_read: ClassVar[bool] = True
    has_bias: ClassVar[bool] = False
    writes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("f1", "exact_match")
    new_tokens: ClassVar[int] = 0
    end_id: ClassVar[int | None] = None

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        stride: Annotated[int, Field(ge=0)] = 128,
        max_answer_tokens: Annotated[int, Field(ge=1)] = 30,
        n_best: Annotated[int, Field(ge=1)] = 20,
        threshold: float | None = None,
    ) -> None:
        self._first = int(_can_refuse(backbone.encoder))
        self._longest, self._n_best, self.threshold = max_answer_tokens, n_best, threshold

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, *, stride: int = 128, **options: Any) -> AnswerPlan:
        """One sequence per window, read at every token of the context."""
        return AnswerPlan((Fill((), ()),), locate=partial(_locate, _can_refuse(encoder)), field=FIELD, stride=stride)

    @staticmethod
    def outputs(classes: int) -> int:
        """Rows of the head's weight: start and end."""
        return 2

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X A C"]:
        """Scores as start and as end of each token that is read; not a number for rows without a prompt."""
        found = linear(hidden.float(), batch.prompt_of, heads)
        return torch.where(batch.answer_mask[..., None], found, -torch.inf)

    def loss(self, scores: Float[Tensor, "X A C"], labels: Int[Tensor, "X Y"]) -> Float[Tensor, "X"]:
        """Mean of the cross-entropies of start and end; 0 for windows that have no label."""
        known = labels[:, 0] >= 0
        each = [cross_entropy(scores[..., i], labels[:, i].clamp(min=0), reduction="none") for i in range(2)]
        return torch.where(known, (each[0] + each[1]) / 2, 0.0)

    def distribution(
        self, scores: Float[Tensor, "X A C"], labels: Int[Tensor, "X Y"]
    ) -> tuple[Float[Tensor, "X C A"], Bool[Tensor, "X C"]]:
        """Log-probabilities of the tokens as start and as end; of windows that have a label."""
        known = (labels[:, :1] >= 0).expand(-1, scores.shape[2])
        return scores.transpose(1, 2).log_softmax(2), known

    def decide(
        self, scores: Float[Tensor, "X A C"], rows: Sequence[Row], threshold: float | None = None
    ) -> list[Found]:
        """The best answer of each question over its windows; none where "no answer" is above the threshold."""
        limit = self.threshold if threshold is None else threshold
        return [self._best(scores[group], rows[group], limit) for group in _groups(rows)]

    def chosen(self, scores: Float[Tensor, "X A C"], rows: Sequence[Row]) -> dict[str, float]:
        """The threshold with the best F1 on these rows, unless there is one or every question has an answer."""
        gold = [_gold(rows[group.start]) for group in _groups(rows)]
        if self.threshold is not None or all(gold):
            return {}
        found = [self._best(scores[group], rows[group], None) for group in _groups(rows)]
        return {"threshold": best_threshold(gold, [f.text for f in found], [f.odds for f in found])[0]}

    def measure(self, rows: Sequence[Row], answers: Sequence[Found], classes: Sequence[str]) -> dict[str, Any]:
        """F1 over words and exact match with the right answers, by the rules of SQuAD."""
        return extraction([_gold(rows[group.start]) for group in _groups(rows)], [a.text for a in answers])

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X A C"], classes: Sequence[str]) -> list[Extracted]:
        """The answers, and where they stand."""
        found = []
        for group, a in zip(_groups(rows), self.decide(scores, rows), strict=True):
            example = rows[group.start].origin
            gold = None if self.missing(example, classes) else tuple(_gold(rows[group.start]))
            found.append(Extracted(example.id, a.text, a.start, a.end, a.score, gold))
        return found

    def missing(self, example: Example, classes: Sequence[str]) -> str | None:
        """Answers, or the word that there are none."""
        return "the question has no answer." if example.label is None and not example.answers else None

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """What "no answer" scores, where that is right for some questions."""
        gold = [_gold(rows[group.start]) for group in _groups(rows)]
        return None if all(gold) else float(extraction(gold, [""] * len(gold))[metric])

    def _best(self, scores: Float[Tensor, "N A C"], rows: Sequence[Row], threshold: float | None) -> Found:
        """The best answer over the windows of one question."""
        nulls, spans, values = [], [], []
        for its, row in zip(scores, rows, strict=True):
            length = len(row.encoded.answer_at)
            nulls.append(float(its[0].sum()))
            best, pairs = best_pairs(its[self._first : length], self._longest, self._n_best)
            values += best
            spans += [(row.encoded.spans[i][1], row.encoded.spans[j][2]) for i, j in pairs]
        order = sorted(range(len(values)), key=lambda i: -values[i])[: self._n_best]
        null = min(nulls) if self._first else values[order[0]]
        odds = null - values[order[0]]
        rivals = torch.tensor([values[i] for i in order] + ([null] if threshold is not None else []))
        shares = rivals.softmax(0).tolist()
        if threshold is not None and odds > threshold:
            return Found("", None, None, shares[-1], odds)
        context = rows[0].origin.fields[FIELD]
        start, end = spans[order[0]]
        text = context[start:end]
        start += len(text) - len(text.lstrip())  # the token of a word may hold the space before it
        return Found(text.strip(), start, start + len(text.strip()), shares[0], odds)


def best_pairs(scores: Float[Tensor, "A 2"], longest: int, n_best: int) -> tuple[list[float], list[tuple[int, int]]]:
    """The best pairs (first, last) of tokens, at most `longest` tokens apart counting both, and their scores.

    >>> best_pairs(torch.tensor([[0.0, 9.0], [3.0, 0.0], [0.0, 2.0]]), longest=2, n_best=2)
    ([9.0, 5.0], [(0, 0), (1, 2)])
    """
    starts, ends = scores.unbind(1)
    padded = torch.cat([ends, ends.new_full((longest - 1,), -torch.inf)])
    totals = starts[:, None] + padded.unfold(0, longest, 1)
    values, flat = totals.flatten().topk(min(n_best, totals.numel()))
    real = values > -torch.inf
    pairs = [(i // longest, i // longest + i % longest) for i in flat[real].tolist()]
    return values[real].tolist(), pairs


def _can_refuse(encoder: TextEncoder) -> bool:
    """Whether a token before the text sees all of it, and so can stand for "no answer"."""
    return bool(encoder.prefix) and not encoder.is_causal


def _locate(
    can_refuse: bool, encoded: Encoded, example: Example, classes: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """The tokens that are read, that for "no answer" first, and which of them the right answer begins and ends with."""
    name = example.source or example.id
    reads = ((0,) if can_refuse else ()) + tuple(position for position, _, _ in encoded.spans)
    if example.label == "" and not example.answers and not can_refuse:
        raise TemplateError(
            "the question has no answer, and this backbone has no token before the text, seeing all of it, that could "
            "stand for that.",
            where=name,
            fix="Leave such questions out (task.unanswerable=drop), or use an encoder such as BERT.",
        )
    if example.label is None and not example.answers:
        return reads, None
    held = (_held(encoded.spans, text, start) for text, start in example.answers)
    shift = int(can_refuse)
    return reads, next(((a + shift, b + shift) for a, b in held if a >= 0), (0, 0) if can_refuse else (-1, -1))


def _held(spans: Sequence[tuple[int, int, int]], text: str, start: int) -> tuple[int, int]:
    """The first and the last token of an answer; -1 where it is not whole in these tokens."""
    stop = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    touched = [i for i, (_, a, b) in enumerate(spans) if a < stop and b > start]
    if not touched:
        return -1, -1
    first, last = touched[0], touched[-1]
    is_cut = (first == 0 and spans[0][1] > start) or (last == len(spans) - 1 and spans[-1][2] < stop)
    return (-1, -1) if is_cut else (first, last)


def _groups(rows: Sequence[Row]) -> list[slice]:
    """The rows of each question, which stand together."""
    begun = [i for i, row in enumerate(rows) if row.part == 0]
    return [slice(a, b) for a, b in zip(begun, [*begun[1:], len(rows)], strict=True)]


def _gold(row: Row) -> list[str]:
    return [text for text, _ in row.origin.answers]
