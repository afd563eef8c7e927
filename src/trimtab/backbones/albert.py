"""ALBERT (Lan et al. 2020): word embeddings of size E are projected to the hidden size H (section 3.1, factorized
embedding parameterization), so a prompt has E = 128 numbers per virtual token, whatever H is.

The head goes the other way: a dense layer from H to E, the activation, LayerNorm, then the tied vocabulary matrix.
"""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@final
@families.register("albert")
class Albert(Family):
    """ALBERT: small word embeddings, one layer's weights shared by all."""

    head_prefix = "predictions"

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        head = model.predictions
        return head.LayerNorm(head.activation(head.dense(hidden)))
