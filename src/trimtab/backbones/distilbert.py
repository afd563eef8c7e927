"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no segments. The parts of the head are the model's own:
`vocab_transform`, `activation`, `vocab_layer_norm`, then the tied `vocab_projector`.
"""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@final
@families.register("distilbert")
class DistilBert(Family):
    """DistilBERT: BERT without segments."""

    embeds_whole = True
    head_prefix = "vocab_"

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        return model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
