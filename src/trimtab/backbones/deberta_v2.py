"""DeBERTa-v2 and v3 (He et al. 2021a, 2021b): attention over relative positions.

Transformers knows two heads. The `legacy` one (the default) is BERT's. The other is Microsoft's own, `lm_predictions`:
a dense layer, the activation, LayerNorm, then the *input* embeddings and a bias; `get_output_embeddings` names its
dense layer, so the vocabulary matrix has to be found here.

Microsoft's checkpoints hold the second head while their configs ask for the first; they are refused until the config
says otherwise. Of those, v3 was trained as ELECTRA is, as a discriminator, so its head predicts words badly
(transformers pull request 18674). Microsoft's enhanced mask decoder, which adds absolute positions to the mask before
the last layers, is not in transformers.

Its attention is not transformers' interface, so the layers get a class of their own that takes prompts. With content
scores and the relative ones of pos_att_type (equation 4 of He et al. 2021a, here with a mask),

    scores = (q k^T + c2p + p2c) / sqrt(D (1 + number of relative terms))

the keys of a prompt have no positions, so they take part in the first term alone, under the same root.

The first DeBERTa is not of this family: transformers 5.23 cannot run it in bfloat16.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones.attention import KEYWORD, Place
from trimtab.backbones.family import Family, either
from trimtab.prompt_table import AttentionCall, AttentionPrompts
from trimtab.registry import families
from trimtab.types import Batch


@final
@families.register("deberta-v2")
class DebertaV2(Family):
    """DeBERTa-v2 and v3: relative positions, eager attention only, one of two heads."""

    fused_attention = False
    takes_positions = False
    head_prefix = ("cls.predictions", "lm_predictions")
    head_advice = (
        "Use a checkpoint that was saved with its masked-LM head. If its head is called lm_predictions, as in "
        'Microsoft\'s own checkpoints, write "legacy": false into its config.json.'
    )

    def adopt(self, model: Any, kind: Literal["eager", "sdpa"]) -> None:
        layers = model.base_model.encoder.layer
        if {type(layer).__name__ for layer in layers} == {"DebertaV2Layer"}:
            for n, layer in enumerate(layers):
                layer.__class__ = _prompted_layer()
                layer.trimtab_place = Place("self", n)
            model.takes_passages = True

    def hidden(
        self,
        model: Any,
        batch: Batch,
        embeds: Float[Tensor, "B T E"] | None,
        decoder_embeds: Float[Tensor, "B U E"] | None = None,
        attention: AttentionPrompts | None = None,
    ) -> Float[Tensor, "B T H"]:
        passage = self.passage(model, attention)
        if passage is None:
            return super().hidden(model, batch, embeds)
        base, positions = model.base_model, self.positions(model, batch)
        vectors = base.embeddings(**either(batch.ids, embeds), position_ids=positions, mask=batch.attention_mask)
        encoder, hidden = base.encoder, vectors
        given = {
            "attention_mask": encoder.get_attention_mask(batch.attention_mask),
            "relative_pos": encoder.get_rel_pos(vectors),
            "rel_embeddings": encoder.get_rel_embedding(),
            KEYWORD: passage,
        }
        for n, layer in enumerate(encoder.layer):
            following, _ = layer(hidden, **given)
            has_convolution = n == 0 and encoder.conv is not None
            hidden = encoder.conv(vectors, following, batch.attention_mask) if has_convolution else following
        return hidden

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


@cache
def _prompted_layer() -> type[Any]:
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Layer

    class PromptedLayer(DebertaV2Layer):  # type: ignore[misc]
        """A layer that takes prompts; without them it is its parent."""

        def forward(
            self, hidden_states: Tensor, attention_mask: Tensor, *, attention_prompts: Any = None, **rest: Any
        ) -> tuple[Tensor, Tensor | None]:
            if attention_prompts is None:
                own: tuple[Tensor, Tensor | None] = super().forward(hidden_states, attention_mask, **rest)
                return own
            place = attention_prompts.place(self)
            call = attention_call(self.attention.self, place, hidden_states, attention_mask, **rest)
            context = attention_prompts.prompts(call).flatten(2)
            attended = self.attention.output(context, hidden_states)
            return self.output(self.intermediate(attended), attended), None

    return PromptedLayer


def attention_call(
    module: Any,
    place: Place,
    hidden: Float[Tensor, "B T H"],
    visible: Int[Tensor, "B 1 T T"],
    relative_pos: Tensor | None,
    rel_embeddings: Tensor | None,
) -> AttentionCall:
    """One layer of disentangled attention, step by step as transformers computes it, to the last bit."""
    heads = module.num_attention_heads
    projections = (module.query_proj, module.key_proj, module.value_proj)
    query, key, value = (module.transpose_for_scores(p(hidden), heads) for p in projections)  # [B*Q,T,D]
    factor = 1 + sum(term in module.pos_att_type for term in ("c2p", "p2c"))
    scale = torch.sqrt(torch.tensor(query.shape[-1], dtype=torch.float) * factor)
    mask = torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible.bool(), torch.finfo(query.dtype).min)
    if module.relative_attention:
        relative = module.pos_dropout(rel_embeddings)
        bias = module.disentangled_attention_bias(query, key, relative_pos, relative, factor)
        mask = bias.unflatten(0, (-1, heads)) + mask

    def attend(key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        scores = torch.bmm(query, key.flatten(0, 1).transpose(-1, -2) / scale.to(query.dtype)).unflatten(0, (-1, heads))
        weights = module.dropout((scores if mask is None else scores + mask).softmax(-1))
        return torch.bmm(weights.flatten(0, 1), value.flatten(0, 1)).unflatten(0, (-1, heads)).transpose(1, 2)

    query_heads, key_heads, value_heads = (x.unflatten(0, (-1, heads)) for x in (query, key, value))
    return AttentionCall(
        *place,
        query=query_heads,
        key=key_heads,
        value=value_heads,
        mask=mask,
        scaling=1 / float(scale),
        attend=attend,
        bare=lambda: attend(key_heads, value_heads, mask),
    )
