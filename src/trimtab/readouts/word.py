"""One word of the vocabulary (Petroni et al. 2019, LAMA; P-tuning, Liu et al. 2021, arXiv 2103.10385, their LAMA code).

    p(w)  = softmax over the vocabulary of logit(w at the answer slot)
    loss  = - log p(right word)                          over the full vocabulary, or over the words that may be answers
    rank  = 1 + number of words that may be answers and score higher

Symbols: w a token. A masked language model is read at a mask token in the answer slot; a causal one at the last token
before the slot, whose next token is the answer, so nothing may follow the slot; an encoder-decoder at the position of
the decoder that predicts its first token, with T5's first sentinel in the slot where the vocabulary has one. Of words
that score the same, the one with the lower id comes first.

Which words may be answers is the task's to say. An answer that is not one token, or none of these, cannot be ranked: it
teaches nothing, and metrics count it (`unreachable`, see `trimtab.fact_metrics`).

`as_released` repeats a slip of P-tuning's released LAMA code for GPT-2 and Megatron: there the label stands at the last
input position, and the language-model loss shifts labels by one itself; so training supervises the token before the
last, while testing reads the last. The last virtual token then gets no gradient from its own position.

Deviations from P-tuning's code: an object counts as one token if the tokenizer makes one of it (there its exact text
must be an entry of the vocabulary, so an uncased model would have no names); ranks and top words are kept, not the best
alone; P@1 is a mean over relations, where one run has several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab.backbones import Backbone
from trimtab.errors import TemplateError
from trimtab.fact_metrics import RankedFact, most_frequent, ranked_facts
from trimtab.predictions import Ranked
from trimtab.readouts import WordIds
from trimtab.readouts.sentinels import sentinel_of
from trimtab.readouts.vocabulary import Vocabulary
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Example, Fill, Label, Row, WordPlan

TOP = 10
"""How many of the best words are kept."""

_UNKNOWN = -torch.inf
"""The log-probability of a word that is not known."""


@dataclass(frozen=True)
class Answer:
    """What the scores of a row come to. `rank` is None where the right word is not known or cannot be ranked."""

    rank: int | None
    top: tuple[tuple[int, float], ...]


@final
@readouts.register("word")
class Word:
    """The words of the vocabulary by how well they fit into the answer slot, for answers that are one token.

    Scores are logits [X,A,V] of the reads, of which the first is learned from and the last is answered by; there are
    two with `as_released` only.

    Args:
        loss: normalize the loss over the `full` vocabulary, or over the `allowed` words, which the task names.
        as_released: with a causal model, learn from the token before the last, as P-tuning's released code does.
        sentinel: whether an encoder-decoder reads T5's `<extra_id_0>` in the answer slot; `auto` where it has one.
    """

    kinds: ClassVar[tuple[str, ...]] = ("word",)
    trains: ClassVar[bool] = False
    per_read: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("p_at_1", "p_at_10", "mrr", "p_at_1_all")
    new_tokens: ClassVar[int] = 0
    end_id: ClassVar[int | None] = None

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        loss: Literal["full", "allowed"] = "full",
        as_released: bool = False,
        sentinel: Literal["auto", "yes", "no"] = "auto",
    ) -> None:
        self._backbone, self._vocabulary, self._is_restricted = backbone, Vocabulary(backbone), loss == "allowed"
        groups = [[w.ids[0] for w in its] for plan in plans for its in (plan.words or ((),))]
        size = len(backbone.embedding_weight)
        allowed = torch.zeros(len(groups), size, dtype=torch.bool)
        for row, ids in zip(allowed, groups, strict=True):
            row[ids or slice(len(backbone.encoder.tokenizer))] = True
        first = [0, *(len(plan.words or ((),)) for plan in plans)][:-1]
        self._first = torch.tensor(first, device=backbone.device).cumsum(0)
        self._allowed = allowed.to(backbone.device)

    @classmethod
    def plan(
        cls, encoder: TextEncoder, words: WordIds, *, as_released: bool = False, sentinel: str = "auto", **options: Any
    ) -> AnswerPlan:
        """One sequence per example. `words` are those that may be answers, by group of examples; none for all."""
        if as_released and not encoder.is_causal:
            raise TemplateError(
                "the slip of the released code is in its part for models that read from left to right, and this "
                "backbone is none.",
                where="readout.as_released",
                fix="Leave it out.",
            )
        plans = tuple(tuple(WordPlan(0, tuple(ids)) for ids in its) for its in words)
        allowed = tuple(frozenset(ids[0] for ids in its) for its in words)
        return AnswerPlan((_fill(encoder, as_released, sentinel),), plans, label=partial(_label, encoder, allowed))

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X A V"]:
        """Logits of all words; -inf for those that may not be answers, where the loss is restricted to these."""
        backbone = self._backbone
        features = backbone.family.vocabulary_features(backbone.model, hidden[batch.first_row])
        logits = self._vocabulary.logits(features)
        return logits.masked_fill(~self._may(batch)[:, None], -torch.inf) if self._is_restricted else logits

    def _may(self, batch: Batch) -> Bool[Tensor, "X V"]:
        """Which words may be answers of each example."""
        return self._allowed[self._first[batch.readout_of] + batch.labels[:, 1].clamp(min=0)]

    def condensed(self, scores: Float[Tensor, "X A V"], batch: Batch) -> Float[Tensor, "X K"]:
        """What is kept of rows that are not learned from: the right word's log-probability and rank (-inf and 0 where
        it is not known), the log-probabilities of the best words, and their ids, which float32 holds exactly.
        """
        last, gold = scores[:, -1], batch.labels[:, 0]
        normalizer = last.logsumexp(1, keepdim=True)
        among = last.masked_fill(~self._may(batch), -torch.inf)
        own = last.gather(1, gold.clamp(min=0)[:, None])
        ids = torch.arange(last.shape[1], device=last.device)
        before = (among > own) | ((among == own) & (ids < gold[:, None]))
        values, best = among.topk(min(TOP, last.shape[1]), dim=1)
        kept = [own - normalizer, before.sum(1, keepdim=True) + 1, values - normalizer, best]
        known = (gold >= 0)[:, None]
        kept[:2] = [torch.where(known, kept[0], _UNKNOWN), torch.where(known, kept[1], 0)]
        return torch.cat([part.float() for part in kept], 1)

    def loss(self, scores: Float[Tensor, "X *C"], labels: Int[Tensor, "X Y"]) -> Float[Tensor, "X"]:
        """Cross-entropy at the first read (of condensed scores: at the last); 0 where the right word is not known."""
        known = labels[:, 0] >= 0
        if scores.ndim == 2:
            return torch.where(known, -scores[:, 0], 0.0)
        each = cross_entropy(scores[:, 0], labels[:, 0].clamp(min=0), reduction="none")
        return torch.where(known, each, 0.0)

    def distribution(
        self, scores: Float[Tensor, "X A V"], labels: Int[Tensor, "X Y"]
    ) -> tuple[Float[Tensor, "X 1 V"], Bool[Tensor, "X 1"]]:
        """Log-probabilities of the words at the first read, of rows whose right word is known."""
        return scores[:, :1].log_softmax(2), labels[:, :1] >= 0

    def decide(self, scores: Float[Tensor, "X K"], rows: Sequence[Row]) -> list[Answer]:
        """Rank of the right word, and the best words with their probabilities."""
        width = (scores.shape[1] - 2) // 2
        found = []
        for its in scores.tolist():
            values, ids = its[2 : 2 + width], its[2 + width :]
            pairs = [(int(i), v) for i, v in zip(ids, values, strict=True) if v > -torch.inf]
            best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
            top = torch.tensor([v for _, v in best]).exp().tolist()
            found.append(Answer(int(its[1]) or None, tuple(zip([i for i, _ in best], top, strict=True))))
        return found

    def measure(self, rows: Sequence[Row], answers: Sequence[Answer], classes: Sequence[str]) -> dict[str, Any]:
        """P@1, P@10 and MRR over relations, and what else `trimtab.fact_metrics.ranked_facts` tells."""
        pairs = zip(rows, answers, strict=True)
        return ranked_facts([RankedFact(_relation(r.origin), a.rank, r.origin.prior) for r, a in pairs])

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X K"], classes: Sequence[str]) -> list[Ranked]:
        """The best words, and the rank of the right one."""
        found = []
        for row, answer in zip(rows, self.decide(scores, rows), strict=True):
            example = row.origin
            top = tuple((self._named(i), p) for i, p in answer.top)
            found.append(Ranked(example.id, top[0][0], top, example.label, answer.rank, _relation(example)))
        return found

    def missing(self, example: Example, classes: Sequence[str]) -> str | None:
        """The right word."""
        return None if example.label else "the example has no answer."

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """What the objects of the training facts score, the most frequent first, relation by relation."""
        reached = [1 if _token(row) >= 0 else None for row in rows]
        facts = [RankedFact(_relation(r.origin), one, r.origin.prior) for r, one in zip(rows, reached, strict=True)]
        found = most_frequent(facts)
        return None if found is None else found.get(metric)

    @staticmethod
    def notes(
        rows: Mapping[str, Sequence[Row]], words: Mapping[str, Sequence[str]], ids: Sequence[Sequence[tuple[int, ...]]]
    ) -> list[str]:
        """How many answers cannot be ranked, split by split, and how many of the words that may be answers are lost."""
        found = []
        for split, its in rows.items():
            lost = [row.gold for row in its if row.gold and _token(row) < 0]
            if lost:
                some = ", ".join(repr(word) for word in dict.fromkeys(lost[:3]))
                what = "it teaches nothing" if split == "train" else "it is counted as unreachable"
                found.append(
                    f"In {split} {len(lost)} of {len(its)} answers are no single token of the vocabulary, or none of "
                    f"the words that may be answers (such as {some}): {what}."
                )
        for (group, all_of), kept in zip(words.items(), ids, strict=True):
            if len(kept) < len(all_of):
                at = f" of {group}" if group else ""
                found.append(
                    f"{len(all_of) - len(kept)} of the {len(all_of)} words that may be answers{at} are not one token, "
                    "or the same as another's, and are left out."
                )
        return found

    def _named(self, token: int) -> str:
        encoder = self._backbone.encoder
        return encoder.decode((token,)) or encoder.tokens((token,))[0]


def _fill(encoder: TextEncoder, as_released: bool, sentinel: str) -> Fill:
    """What stands in the slot, and where it is read."""
    if encoder.decoder_start_id is not None:
        ids = sentinel_of(encoder, sentinel)
        head = (encoder.decoder_start_id, *(ids or encoder.prefix))
        return Fill(ids, (len(head) - 1,), head)
    if encoder.is_causal:
        return Fill((), (-2, -1) if as_released else (-1,), is_last=True)
    if encoder.mask_id is None:
        raise TemplateError(
            "the readout 'word' needs a mask token, this tokenizer has none.",
            where="readout.kind",
            fix="Use a masked, causal or encoder-decoder model.",
        )
    return Fill((encoder.mask_id,), (0,))


def _label(encoder: TextEncoder, allowed: Sequence[frozenset[int]], ids: tuple[int, ...], group: int) -> Label:
    """The token of the right word, -1 where there is none that can be ranked, and the example's group."""
    is_one = len(ids) == 1 and ids[0] != encoder.unk_id and (not allowed or ids[0] in allowed[group])
    return (ids[0] if is_one else -1, group)


def _token(row: Row) -> int:
    return row.label[0] if isinstance(row.label, tuple) else row.label


def _relation(example: Example) -> str:
    return example.fields.get("relation", "")
