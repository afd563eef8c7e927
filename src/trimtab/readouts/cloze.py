"""Cloze: the vocabulary head's opinion of the label words at the answer slot (Schick and Schutze 2021, PET,
section 3.1; P-tuning's SuperGLUE code).

    score(c) = mean over the words w of class c of logit(w at the answer slot);    p(c) = softmax over classes

The head runs at the answer slots only, and only for label words: N_words rows of the vocabulary matrix instead of V.

Deviations: the mean over the words of a class follows P-tuning's code; `combine: max` and `logsumexp` are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab.backbones import Backbone
from trimtab.registry import readouts


@final
@readouts.register("cloze")
class Cloze:
    """Label words at the mask token of a masked language model.

    Args:
        combine: how the logits of several label words make a class score.
    """

    def __init__(
        self,
        backbone: Backbone,
        label_ids: Sequence[Sequence[Sequence[int]]],
        *,
        combine: Literal["mean", "max", "logsumexp"] = "mean",
    ) -> None:
        self._backbone, self._combine = backbone, combine
        flat = sorted({i for entry in label_ids for words in entry for i in words})
        n_classes = max(len(entry) for entry in label_ids)
        n_words = max(len(words) for entry in label_ids for words in entry)
        column = torch.zeros(len(label_ids), n_classes, n_words, dtype=torch.long)
        present = torch.zeros(len(label_ids), n_classes, n_words, dtype=torch.bool)
        for r, entry in enumerate(label_ids):
            for c, words in enumerate(entry):
                column[r, c, : len(words)] = torch.tensor([flat.index(i) for i in words])
                present[r, c, : len(words)] = True
        device = backbone.device
        self._column, self._present = column.to(device), present.to(device)
        ids = torch.tensor(flat, device=device)
        self._weight, self._bias = backbone.family.vocabulary_rows(backbone.model, ids)

    def scores(self, hidden: Float[Tensor, "B A H"], readout_of: Int[Tensor, "B"]) -> Float[Tensor, "B C"]:
        """Class scores from the first answer slot of each row."""
        features = self._backbone.family.vocabulary_features(self._backbone.model, hidden[:, :1])[:, 0]
        logits = features.float() @ self._weight.T + self._bias
        column, present = self._column[readout_of], self._present[readout_of]
        words = logits.gather(1, column.flatten(1)).view(column.shape)
        if self._combine == "mean":
            total = torch.where(present, words, 0.0).sum(-1) / present.sum(-1).clamp(min=1)
        elif self._combine == "max":
            total = torch.where(present, words, -torch.inf).amax(-1)
        else:
            total = torch.where(present, words, -torch.inf).logsumexp(-1)
        return torch.where(present.any(-1), total, -torch.inf)

    def loss(self, scores: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Cross-entropy over the classes, per row."""
        return cross_entropy(scores, labels, reduction="none")
