"""ALBERT (Lan et al. 2020): word embeddings of size E are projected to the hidden size H (section 3.1, factorized
embedding parameterization), so a prompt has E = 128 numbers per virtual token, whatever H is.

All layers share one module, so the attention layers of a pass are counted, and nothing can be recomputed.

The head goes the other way: a dense layer from H to E, the activation, LayerNorm, then the tied vocabulary matrix.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.attention import CountedPassage, Passage
from trimtab.backbones.family import Family
from trimtab.prompt_table import AttentionPrompts, Site
from trimtab.registry import families


@final
@families.register("albert")
class Albert(Family):
    """ALBERT: small word embeddings, one layer's weights shared by all."""

    embeds_whole = True
    head_prefix = "predictions"

    def sites(self, config: Any) -> dict[str, Site]:
        (own,) = super().sites(config).values()
        return {"self": replace(own, layers=own.layers * config.inner_group_num)}

    def passage(self, model: Any, attention: AttentionPrompts | None) -> Passage | None:
        plain = super().passage(model, attention)
        return None if plain is None else CountedPassage(plain.prompts)

    def embedding_size(self, config: Any) -> int:
        return int(config.embedding_size)

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        head = model.predictions
        return head.LayerNorm(head.activation(head.dense(hidden)))
