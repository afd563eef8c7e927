"""Choices of several tokens, written into masks (Schick and Schutze 2021b, "It's not just size", section 3; P-tuning,
Liu et al. 2021, its code for COPA).

    l(j)  = 1/n_j sum over k of log p( token k of choice j | the first of max_j n_j masks, all of them open )
    loss  = max(0, 1 - l(right) + l(wrong))                       averaged over the wrong choices
    s(j)  = sum over k of log p( token k of choice j | n_j masks, those filled before it ),    p(j) = softmax of s

Symbols: n_j tokens of choice j. While training, one sequence is read once, with as many masks as the longest choice
has. To predict, each choice has as many masks as tokens, and they are filled with its own tokens one after the other,
the most confident first, so a choice of n tokens takes n passes. Nothing is trained but the prompt.

Deviations: the hinge is taken per example and averaged; P-tuning's code takes it of the batch's mean cross-entropies,
over all tokens of the batch at once, which makes an example's weight depend on its batch mates (`batch_hinge`):

    loss = max(0, 1 - mean over all tokens of right choices of log p + mean over all tokens of wrong ones)

With two choices, all that COPA has, the average over wrong ones is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.metrics import classification, majority_baseline
from trimtab.predictions import Prediction
from trimtab.readouts import Look, WordIds
from trimtab.readouts.classes import Classes, own_choices
from trimtab.readouts.filling import fill, mask_of
from trimtab.readouts.vocabulary import Vocabulary
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Fill, Label, Row


@final
@readouts.register("cloze_choice")
class ClozeChoice(Classes):
    """One of several texts of the example, by how well a masked language model writes each into the slot.

    Args:
        batch_hinge: take the hinge of a batch, as P-tuning's released code does. Runs then train alone, in one process,
            and each micro-batch is a batch; the dev loss is that of all dev rows at once.
    """

    controls: ClassVar[tuple[str, ...]] = ("batch_hinge",)
    kinds: ClassVar[tuple[str, ...]] = ("infill",)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __init__(self, backbone: Backbone, plans: Sequence[AnswerPlan], *, batch_hinge: bool = False) -> None:
        self._mask, self._vocabulary = mask_of(backbone.encoder, "cloze_choice"), Vocabulary(backbone)
        self._of_batch = batch_hinge

    @classmethod
    def plan(cls, encoder: TextEncoder, words: WordIds, **options: Any) -> AnswerPlan:
        """One sequence, with as many masks as the longest choice has tokens."""
        mask = mask_of(encoder, "cloze_choice")
        return AnswerPlan((Fill((mask,), (0,)),), compose=partial(_compose, mask))

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X C"]:
        """Log-probability of each choice in the open masks, summed over its tokens."""
        per_read, sizes = self._vocabulary.likelihoods(hidden, batch), _sizes(batch.labels)
        ends = sizes.clamp(min=0).cumsum(1)
        read = torch.arange(per_read.shape[1], device=per_read.device)
        choice = (read[None, :, None] >= ends[:, None, :]).sum(2).clamp(max=sizes.shape[1] - 1)
        total = per_read.new_zeros(sizes.shape).scatter_add(1, choice, per_read)
        return torch.where(sizes > 0, total, -torch.inf)

    def loss(self, scores: Float[Tensor, "X C"], labels: Int[Tensor, "X Y"]) -> Float[Tensor, "X"]:
        """The hinge; 0 where the right choice is not known."""
        sizes, right = _sizes(labels)[:, : scores.shape[1]], labels[:, :1]
        wrong = (sizes > 0) & (torch.arange(sizes.shape[1], device=sizes.device) != right)
        if self._of_batch:
            return _hinge_of_batch(scores, sizes, right, wrong)
        per_token = torch.where(sizes > 0, scores, 0.0) / sizes.clamp(min=1)
        margin = (1 - per_token.gather(1, right.clamp(min=0)) + per_token).clamp(min=0)
        mean = torch.where(wrong, margin, 0.0).sum(1) / wrong.sum(1).clamp(min=1)
        return torch.where(right[:, 0] >= 0, mean, 0.0)

    def distribution(
        self, scores: Float[Tensor, "X C"], labels: Int[Tensor, "X Y"]
    ) -> tuple[Float[Tensor, "X 1 C"], Bool[Tensor, "X 1"]]:
        """Log-probabilities of the choices."""
        return super().distribution(scores, labels[:, 0])

    def look(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "B A 2"]:
        """The token that belongs at each mask, or else the likeliest, and its log-probability."""
        return self._vocabulary.likeliest(hidden, batch)

    def score_in_passes(self, rows: Sequence[Row], look: Look) -> Float[Tensor, "N C"]:
        """Log-probability of each choice, its tokens put into its own masks, the most confident first."""
        own = [(i, tokens) for i, row in enumerate(rows) for tokens in _choices(row)]
        filled = iter(fill([rows[i] for i, _ in own], [list(tokens) for _, tokens in own], look, self._mask))
        totals = [[sum(p for _, p in next(filled)) for _ in _choices(row)] for row in rows]
        most = max(map(len, totals))
        return torch.tensor([its + [-torch.inf] * (most - len(its)) for its in totals])

    def measure(self, rows: Sequence[Row], answers: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
        """Accuracy; choices are no classes, so there is no macro-F1 over them."""
        found = classification(_right(rows), answers, classes)
        return {name: found[name] for name in ("accuracy", "rows")}

    def records(self, rows: Sequence[Row], scores: Float[Tensor, "X C"], classes: Sequence[str]) -> list[Prediction]:
        """The best choice with its text, and a probability for each that the example has."""
        return own_choices(super().records(rows, scores, classes), rows, [len(_choices(row)) for row in rows])

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """Accuracy of the choice that is right most often."""
        return majority_baseline(_right(rows))


def _compose(mask: int, choices: Sequence[tuple[int, ...]], right: int, name: str) -> tuple[Fill, Label]:
    """The masks, read once per choice; the label is the right choice, then the number of tokens of each."""
    masks = (mask,) * max(map(len, choices))
    reads = tuple(k for tokens in choices for k in range(len(tokens)))
    targets = tuple(token for tokens in choices for token in tokens)
    return Fill(masks, reads, targets=targets), (right, *map(len, choices))


def _hinge_of_batch(
    scores: Float[Tensor, "X C"], sizes: Int[Tensor, "X C"], right: Int[Tensor, "X 1"], wrong: Bool[Tensor, "X C"]
) -> Float[Tensor, "X"]:
    """The loss of a batch, for each of its examples whose right choice is known."""
    known = right >= 0
    of_right = torch.zeros_like(wrong).scatter(1, right.clamp(min=0), known)
    likelihoods = [
        torch.where(mask, scores, 0.0).sum() / torch.where(mask, sizes, 0).sum().clamp(min=1)
        for mask in (of_right, wrong & known)
    ]
    return torch.where(known[:, 0], (1 - likelihoods[0] + likelihoods[1]).clamp(min=0), 0.0)


def _sizes(labels: Int[Tensor, "X Y"]) -> Int[Tensor, "X C"]:
    return labels[:, 1:]


def _choices(row: Row) -> list[tuple[int, ...]]:
    """The token ids of each choice."""
    assert isinstance(row.label, tuple)
    found, at = [], 0
    for size in row.label[1:]:
        found.append(row.encoded.targets[at : at + size])
        at += size
    return found


def _right(rows: Sequence[Row]) -> list[int]:
    return [row.label[0] for row in rows if isinstance(row.label, tuple)]
