"""The vocabulary matrix as readouts apply it: all of its rows, or those of a few tokens."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones import Backbone


class Vocabulary:
    """Logits of some tokens in float32.

    The rows of a frozen backbone are fetched once: a copy per call would live until the backward pass, so the peak is
    the same. Those of a backbone in training are read at every call, also after an evaluation without gradients.

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
        weight, bias = self._kept or family.vocabulary_rows(model, self._ids)
        if self._is_frozen:
            self._kept = weight, bias
        return family.squash(model, features.float() @ weight.T + bias)
