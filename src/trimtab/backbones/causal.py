"""Causal language models: the vocabulary matrix is applied to the last hidden states as they are.

GPT-2 (Radford et al. 2019), GPT-NeoX and Pythia, OPT (Zhang et al. 2022), Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3.
All take explicit positions. Gemma scales embeddings inside the embedding module, so `inputs_embeds` are scaled already;
Gemma 2 caps its logits, cap * tanh(logits / cap), and so its attention scores, which PyTorch's fused attention cannot.
"""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones.attention import prompted
from trimtab.backbones.family import HEADS, Family, carrying, either, greedy
from trimtab.prompt_table import AttentionPrompts
from trimtab.registry import families
from trimtab.types import Batch


class DecoderOnly(Family):
    """What decoder-only models have in common."""

    architecture = "causal"
    auto_class = "AutoModelForCausalLM"
    readouts = ("ranking", "text", "word", *HEADS)
    is_causal = True
    padding_side = "left"
    head_prefix = "lm_head"
    head_advice = "Use a checkpoint that was saved with its language-model head."

    def hidden(
        self,
        model: Any,
        batch: Batch,
        embeds: Float[Tensor, "B T E"] | None,
        decoder_embeds: Float[Tensor, "B U E"] | None = None,
        attention: AttentionPrompts | None = None,
    ) -> Float[Tensor, "B T H"]:
        out = model.base_model(
            **either(batch.ids, embeds),
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
            **carrying(self.passage(model, attention)),
        )
        return out.last_hidden_state

    def generate(
        self,
        model: Any,
        batch: Batch,
        embeds: Float[Tensor, "B T E"] | None,
        new_tokens: int,
        end_id: int | None,
        pad_id: int,
        decoder_embeds: Float[Tensor, "B U E"] | None = None,
        attention: AttentionPrompts | None = None,
    ) -> Int[Tensor, "B N"]:
        with prompted([model.get_decoder()], self.passage(model, attention)):
            written = model.generate(
                **either(batch.ids, embeds),
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                generation_config=greedy(new_tokens, end_id, pad_id),
            )
        return written if embeds is not None else written[:, batch.ids.shape[1] :]

    def next_logits(
        self,
        model: Any,
        ids: Int[Tensor, "B T"],
        embeds: Float[Tensor, "B T E"] | None,
        attention_mask: Int[Tensor, "B S"],
        position_ids: Int[Tensor, "B T"],
        cache: Any,
        attention: AttentionPrompts | None = None,
    ) -> Float[Tensor, "B V"]:
        """Logits of the token behind each row, float32: one step of writing. What was read goes into `cache`.

        Args:
            embeds: what is read; None to read `ids`.
            attention_mask: of all that was read so far and is read now.
        """
        out = model.base_model(
            **either(ids, embeds),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            **carrying(self.passage(model, attention)),
        )
        return self.squash(model, model.get_output_embeddings()(out.last_hidden_state[:, -1])).float()

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A H"]:
        return hidden

    def squash(self, model: Any, logits: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        cap = getattr(model.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


@final
@families.register("opt")
class Opt(DecoderOnly):
    """OPT; the smallest but one (350M) projects its hidden states to the size of its embeddings."""

    def embedding_size(self, config: Any) -> int:
        return int(config.word_embed_proj_dim)

    def hidden_size(self, config: Any) -> int:
        return int(config.word_embed_proj_dim)


@final
@families.register("gpt2")
@families.register("gpt_neox")
@families.register("llama")
@families.register("mistral")
@families.register("qwen2")
@families.register("qwen3")
@families.register("gemma")
@families.register("gemma3_text")
class Causal(DecoderOnly):
    """Models with nothing of their own."""


@final
@families.register("gemma2")
class Gemma2(DecoderOnly):
    """Gemma 2 has eager attention only."""

    fused_attention = False
