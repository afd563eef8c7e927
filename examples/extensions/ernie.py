"""ERNIE (Sun et al. 2019, 2020): BERT with a third sort of embeddings, of tasks, that the model fills in by itself.

The masked-LM head is BERT's: a dense layer, GELU, LayerNorm, then the tied vocabulary matrix.
"""

from typing import Any

from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@families.register("ernie")
class Ernie(Family):
    """ERNIE: BERT with embeddings of tasks."""

    head_prefix = "cls.predictions"

    def vocabulary_features(self, model: Any, hidden: Tensor) -> Tensor:
        return model.cls.predictions.transform(hidden)
