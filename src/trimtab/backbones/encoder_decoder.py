"""Encoder-decoders: T5 and its kin (Raffel et al. 2020), BART and mBART (Lewis et al. 2020).

The encoder reads the template with the prompt in it; the decoder reads its own part of the prompt, if it has one, then
the beginning of an answer, and its hidden states are what the readout sees. T5 with tied embeddings scales them by
d_model^-1/2 before the vocabulary matrix; BART adds a bias after it and scales its embeddings inside the embedding
module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones.attention import prompted
from trimtab.backbones.family import HEADS, Family, carrying, either, greedy
from trimtab.errors import BackboneError
from trimtab.prompt_table import AttentionPrompts, Site
from trimtab.registry import families
from trimtab.types import Batch


@contextmanager
def begun_with(decoder: Any, embeds: Float[Tensor, "B U E"] | None) -> Iterator[None]:
    """While this is open, the decoder reads its first U tokens from `embeds`, whatever their ids.

    `generate` feeds a decoder with ids only. The first call has them all, and so has each later one without a cache;
    with a cache the later ones have the newest token alone, and are left as they are.
    """
    if embeds is None:
        yield
        return

    def replace_ids(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        cache = named.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            return None
        newer = module.get_input_embeddings()(named["input_ids"][:, embeds.shape[1] :])
        return positional, {**named, "input_ids": None, "inputs_embeds": torch.cat([embeds, newer], dim=1)}

    handle = decoder.register_forward_pre_hook(replace_ids, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class EncoderDecoder(Family):
    """What encoder-decoders have in common."""

    architecture = "seq2seq"
    auto_class = "AutoModelForSeq2SeqLM"
    readouts = ("ranking", "text", "word", *HEADS)
    takes_positions = False
    head_prefix = "lm_head"
    head_advice = "Use a checkpoint that was saved with its language-model head."

    def hidden(
        self,
        model: Any,
        batch: Batch,
        embeds: Float[Tensor, "B T E"] | None,
        decoder_embeds: Float[Tensor, "B U E"] | None = None,
        attention: AttentionPrompts | None = None,
    ) -> Float[Tensor, "B _ H"]:
        """Last hidden states of the decoder; of the encoder, where the batch has nothing for the decoder."""
        carried = carrying(self.passage(model, attention))
        read = either(batch.ids, embeds)
        encoded = model.get_encoder()(**read, attention_mask=batch.attention_mask, **carried).last_hidden_state
        if batch.decoder_ids is None:
            return encoded
        out = model.get_decoder()(
            **either(batch.decoder_ids, decoder_embeds),
            encoder_hidden_states=encoded,
            encoder_attention_mask=batch.attention_mask,
            use_cache=False,
            **carried,
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
        assert batch.decoder_ids is not None
        start_id = int(batch.decoder_ids[0, 0])  # another first token than this, and transformers adds it in front
        encoder, decoder = model.get_encoder(), model.get_decoder()
        with begun_with(decoder, decoder_embeds), prompted([encoder, decoder], self.passage(model, attention)):
            written = model.generate(
                **either(batch.ids, embeds),
                attention_mask=batch.attention_mask,
                decoder_input_ids=batch.decoder_ids,
                generation_config=greedy(new_tokens, end_id, pad_id, decoder_start_token_id=start_id),
            )
        return written[:, batch.decoder_ids.shape[1] :]

    def site_of(self, path: str) -> str:
        names = {"EncDecAttention": "cross", "encoder_attn": "cross"}
        return names.get(path.rpartition(".")[2], path.partition(".")[0])

    def decoder_start_id(self, config: Any) -> int | None:
        start = getattr(config, "decoder_start_token_id", None)
        if start is None:
            raise BackboneError(
                "the checkpoint does not say what its decoder begins with.",
                where="backbone.model",
                fix='Set "decoder_start_token_id" in its config.json.',
            )
        return int(start)


@final
@families.register("t5")
@families.register("mt5")
class T5(EncoderDecoder):
    """T5, T5 v1.1, Flan-T5, mT5: relative positions, sentinels."""

    def sites(self, config: Any) -> dict[str, Site]:
        heads, size = int(config.num_heads), int(config.d_kv)
        layers = {
            "encoder": config.num_layers,
            "decoder": config.num_decoder_layers,
            "cross": config.num_decoder_layers,
        }
        return {site: Site(int(n), heads, heads, size) for site, n in layers.items()}

    def max_positions(self, config: Any) -> int:
        """Positions are relative, so this is what the model was trained with, not a limit of its own."""
        return int(getattr(config, "n_positions", None) or 512)

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A H"]:
        scaled = getattr(model.config, "scale_decoder_outputs", False)
        return hidden * model.config.d_model**-0.5 if scaled else hidden


@final
@families.register("bart")
@families.register("mbart")
class Bart(EncoderDecoder):
    """BART and mBART; they count positions from the first column, pads included."""

    padding_sides = ("right",)

    def sites(self, config: Any) -> dict[str, Site]:
        sizes = {"encoder": (config.encoder_layers, config.encoder_attention_heads)}
        sizes |= dict.fromkeys(("decoder", "cross"), (config.decoder_layers, config.decoder_attention_heads))
        return {site: Site(n, heads, heads, config.d_model // heads) for site, (n, heads) in sizes.items()}

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A H"]:
        return hidden

    def vocabulary_rows(
        self, model: Any, ids: Int[Tensor, "N"] | slice
    ) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N"]]:
        return model.lm_head.weight[ids].float(), model.final_logits_bias[0, ids].float()
