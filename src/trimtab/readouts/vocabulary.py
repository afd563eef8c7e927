"""The vocabulary matrix as readouts apply it: all of its rows, or those of a few tokens."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trimtab.backbones import Backbone
from trimtab.types import Batch

_WHOLE: WeakKeyDictionary[nn.Module, tuple[object, tuple[Tensor, Tensor]]] = WeakKeyDictionary()
"""All rows of a frozen model, and what they are of: the weights as they were, the family that reads them, where."""


class Vocabulary:
    """Logits of some tokens in float32.

    The rows of a frozen backbone are fetched once: a copy per call would live until the backward pass, so the peak is
    the same. A copy of all of them, which can be larger than a layer, is shared by all readouts of a model. Those of a
    backbone in training are read at every call, also after an evaluation without gradients.

    Args:
        ids: the tokens; all by default.
    """

    def __init__(self, backbone: Backbone, ids: Int[Tensor, "N"] | slice = slice(None)) -> None:
        self._backbone, self._ids = backbone, ids
        self._is_frozen = not any(p.requires_grad for p in backbone.model.parameters())
        self._kept: tuple[Tensor, Tensor] | None = None

    def logits(self, features: Float[Tensor, "*S F"]) -> Float[Tensor, "*S V"]:
        """From the head's features, see `Family.vocabulary_features`."""
        family, model = self._backbone.family, self._backbone.model
        weight, bias = self._kept or self._fetched()
        if self._is_frozen:
            self._kept = weight, bias
        return family.squash(model, features.float() @ weight.T + bias)

    def _fetched(self) -> tuple[Float[Tensor, "V F"], Float[Tensor, "V"]]:
        family, model = self._backbone.family, self._backbone.model
        if not self._is_frozen or not isinstance(self._ids, slice):
            return family.vocabulary_rows(model, self._ids)
        state = sum(p._version for p in model.parameters()), type(family), self._backbone.device
        known = _WHOLE.get(model)
        if known is None or known[0] != state:
            with torch.inference_mode(False):  # others may learn through it
                known = _WHOLE[model] = state, family.vocabulary_rows(model, self._ids)
        return known[1]

    def likelihoods(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "B A"]:
        """Log-probability of the token that belongs at each read; 0 where none does."""
        if batch.targets is None:
            return hidden.new_zeros(hidden.shape[:2], dtype=torch.float32)
        known = batch.targets >= 0
        logits = self._at(hidden[known])
        token = logits.gather(1, batch.targets[known][:, None])[:, 0] - logits.logsumexp(-1)
        return torch.zeros(known.shape, device=hidden.device).masked_scatter(known, token)

    def likeliest(self, hidden: Float[Tensor, "B A H"], batch: Batch) -> Float[Tensor, "B A 2"]:
        """Of each read the token that belongs there, or else the likeliest one, and its log-probability."""
        real = batch.answer_mask
        logits = self._at(hidden[real]).log_softmax(-1)
        wanted = torch.full_like(real, -1, dtype=torch.long) if batch.targets is None else batch.targets
        token = torch.where(wanted[real] >= 0, wanted[real], logits.argmax(-1))
        pairs = torch.stack([token.float(), logits.gather(1, token[:, None])[:, 0]], -1)
        return torch.zeros(*real.shape, 2, device=hidden.device).masked_scatter(real[..., None], pairs)

    def _at(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
        family, model = self._backbone.family, self._backbone.model
        return self.logits(family.vocabulary_features(model, hidden[None])[0])
