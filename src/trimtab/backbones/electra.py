"""ELECTRA (Clark et al. 2020): only the generator is a masked language model.

The discriminator, the half that is usually published and fine-tuned, tells replaced tokens from original ones and has
no vocabulary head, so a cloze cannot be read from it; its checkpoints are refused. In the generator, as in ALBERT, the
embeddings (E) may be narrower than the hidden states (H), and the head `generator_predictions` maps H to E.
"""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@final
@families.register("electra")
class Electra(Family):
    """ELECTRA generators; discriminators predict no words."""

    embeds_whole = True
    head_prefix = "generator_"
    head_advice = (
        "An ELECTRA discriminator predicts no words. Use the generator, such as google/electra-small-generator."
    )

    def embedding_size(self, config: Any) -> int:
        return int(config.embedding_size)

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        return model.generator_predictions(hidden)
