"""Scores of label words of any length from the hidden states at the answer slots; what `cloze` and `ranking` share.

    score(w) = sum over its tokens j of log p( token j | read j of the sequence that its plan names )
    score(c) = mean, max or logsumexp of score(w) over the words of class c

Where every word of every entry is one token of the same sequence, the normalizer of p is the same for all of them and
cancels in the softmax over classes: then the vocabulary head runs for the label words only, N_words rows of the
vocabulary matrix instead of V, and scores are logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.lookup import look_up
from trimtab.readouts.vocabulary import Vocabulary
from trimtab.types import AnswerPlan, Batch

Combine = Literal["mean", "max", "logsumexp"]


class LabelWords:
    """The label words of a readout table as padded tensors.

    Args:
        plans: one per entry of the table.
        combine: how the scores of several words make a class score.
        normalize: divide the score of a word by its number of tokens.
    """

    def __init__(self, backbone: Backbone, plans: Sequence[AnswerPlan], combine: Combine, normalize: bool) -> None:
        self._backbone, self._combine, self._normalize = backbone, combine, normalize
        words = [[list(its) for its in plan.words] for plan in plans]
        self._is_short = all(len(w.ids) == 1 and w.fill == 0 for entry in words for its in entry for w in its)
        n_classes = max(len(entry) for entry in words)
        n_words = max(len(its) for entry in words for its in entry)
        n_tokens = max(len(w.ids) for entry in words for its in entry for w in its)
        tokens = torch.full((len(words), n_classes, n_words, n_tokens), -1)
        fill = torch.zeros((len(words), n_classes, n_words), dtype=torch.long)
        for r, entry in enumerate(words):
            for c, its in enumerate(entry):
                for i, word in enumerate(its):
                    tokens[r, c, i, : len(word.ids)] = torch.tensor(word.ids)
                    fill[r, c, i] = word.fill
        used = tokens[tokens >= 0].unique()
        column = torch.searchsorted(used, tokens.clamp(min=0)).clamp(max=len(used) - 1)
        device = backbone.device
        self._tokens, self._fill, self._column = tokens.to(device), fill.to(device), column.to(device)
        self._vocabulary = Vocabulary(backbone, used.to(device) if self._is_short else slice(None))

    def scores(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "X C"]:
        """Class scores; -inf for classes that an entry does not have."""
        entry = batch.readout_of
        per_token = self._logits(hidden, batch) if self._is_short else self._log_probabilities(hidden, batch)
        real = self._tokens[entry] >= 0
        present = real[..., 0]
        per_word = torch.where(real, per_token, 0.0).sum(-1)
        if self._normalize:
            per_word = per_word / real.sum(-1).clamp(min=1)
        if self._combine == "mean":
            total = torch.where(present, per_word, 0.0).sum(-1) / present.sum(-1).clamp(min=1)
        elif self._combine == "max":
            total = torch.where(present, per_word, -torch.inf).amax(-1)
        else:
            total = torch.where(present, per_word, -torch.inf).logsumexp(-1)
        return torch.where(present.any(-1), total, -torch.inf)

    def _logits(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "X C W N"]:
        """One token a word, all read at the first answer slot: logits of the label words."""
        backbone = self._backbone
        logits = self._vocabulary.logits(backbone.family.vocabulary_features(backbone.model, hidden[:, :1])[:, 0])
        column = self._column[batch.readout_of]
        return logits.gather(1, column.flatten(1)).view(column.shape)

    def _log_probabilities(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "X C W N"]:
        """Log-probability of every token of every word, normalized over the vocabulary."""
        backbone = self._backbone
        logits = self._vocabulary.logits(backbone.family.vocabulary_features(backbone.model, hidden))
        normalizer = logits.logsumexp(-1)
        tokens = self._tokens[batch.readout_of]
        row = (batch.first_row[:, None, None] + self._fill[batch.readout_of])[..., None]
        read = torch.arange(tokens.shape[-1], device=hidden.device)
        read = read.clamp(max=hidden.shape[1] - 1)  # no row of the batch may have the longest words of the table
        return look_up(logits, row, read, tokens.clamp(min=0)) - look_up(normalizer, row, read)
