"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020) and CamemBERT (Martin et al. 2020).

Positions are numbered from padding_idx + 1, a heritage of fairseq, where `make_positions` gives pads the number
padding_idx:

    position = padding_idx + (how many real tokens up to here, itself included);    padding_idx for a pad

Transformers derives them so from ids, but counts pads as well when it is given `inputs_embeds`, so left padding would
shift a prompted row. The head is dense, GELU, LayerNorm, then the tied vocabulary matrix.
"""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.registry import families
from trimtab.types import Batch


@final
@families.register("roberta")
@families.register("xlm-roberta")
@families.register("camembert")
class Roberta(Family):
    """RoBERTa, XLM-R and CamemBERT: positions start behind the padding index."""

    embeds_whole = True
    head_prefix = "lm_head"

    def positions(self, model: Any, batch: Batch) -> Int[Tensor, "B T"]:
        pad = model.config.pad_token_id
        return torch.where(batch.attention_mask.bool(), batch.position_ids + pad + 1, pad)

    def max_positions(self, config: Any) -> int:
        """Positions up to the padding index are not for tokens: 512 of RoBERTa's 514 are left."""
        return int(config.max_position_embeddings) - config.pad_token_id - 1

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        head = model.lm_head
        return head.layer_norm(torch.nn.functional.gelu(head.dense(hidden)))
