"""BERT (Devlin et al. 2019): the masked-LM head is a dense layer, GELU, LayerNorm, then the tied vocabulary matrix."""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@final
@families.register("bert")
class Bert(Family):
    """BERT and models of its shape, such as MiniLM and the embedded nano-masked."""

    embeds_whole = True
    head_prefix = "cls.predictions"

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        return model.cls.predictions.transform(hidden)
