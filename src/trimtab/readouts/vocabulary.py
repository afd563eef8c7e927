"""The vocabulary matrix over all tokens: what readouts need that normalize over the whole vocabulary."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone


class Vocabulary:
    """Logits of all tokens in float32.

    A frozen matrix of another dtype is copied to float32 once and kept: a copy per call would live until the backward
    pass, so the peak is the same. A trained one is read at every call.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._kept: tuple[Tensor, Tensor] | None = None

    def logits(self, features: Float[Tensor, "*S F"]) -> Float[Tensor, "*S V"]:
        """From the head's features, see `Family.vocabulary_features`."""
        weight, bias = self._rows()
        return self._backbone.family.squash(self._backbone.model, features.float() @ weight.T + bias)

    def _rows(self) -> tuple[Float[Tensor, "V F"], Float[Tensor, "V"]]:
        if self._kept is not None:
            return self._kept
        weight, bias = self._backbone.family.vocabulary_rows(self._backbone.model, slice(None))
        if not (weight.requires_grad or bias.requires_grad):
            self._kept = weight, bias
        return weight, bias
