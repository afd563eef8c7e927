"""DeBERTa-v2 and v3 (He et al. 2021a, 2021b): attention over relative positions.

Transformers knows two heads. The `legacy` one (the default) is BERT's. The other is Microsoft's own, `lm_predictions`:
a dense layer, the activation, LayerNorm, then the *input* embeddings and a bias; `get_output_embeddings` names its
dense layer, so the vocabulary matrix has to be found here.

Microsoft's checkpoints hold the second head while their configs ask for the first; they are refused until the config
says otherwise. Of those, v3 was trained as ELECTRA is, as a discriminator, so its head predicts words badly
(transformers pull request 18674). Microsoft's enhanced mask decoder, which adds absolute positions to the mask before
the last layers, is not in transformers.

The first DeBERTa is not of this family: transformers 5.23 cannot run it in bfloat16.
"""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families


@final
@families.register("deberta-v2")
class DebertaV2(Family):
    """DeBERTa-v2 and v3: relative positions, eager attention only, one of two heads."""

    fused_attention = False
    head_prefix = ("cls.predictions", "lm_predictions")
    head_advice = (
        "Use a checkpoint that was saved with its masked-LM head. If its head is called lm_predictions, as in "
        'Microsoft\'s own checkpoints, write "legacy": false into its config.json.'
    )

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        if model.config.legacy:
            return model.cls.predictions.transform(hidden)
        head = model.lm_predictions.lm_head
        return head.LayerNorm(head.transform_act_fn(head.dense(hidden)))

    def vocabulary_rows(
        self, model: Any, ids: Int[Tensor, "N"] | slice
    ) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N"]]:
        if model.config.legacy:
            return super().vocabulary_rows(model, ids)
        return model.get_input_embeddings().weight[ids].float(), model.lm_predictions.lm_head.bias[ids].float()
