"""Encoder-decoders: T5 and its kin (Raffel et al. 2020), BART and mBART (Lewis et al. 2020).

The encoder reads the template with the prompt in it; the decoder reads the beginning of a label word, and its hidden
states are what the readout sees. T5 with tied embeddings scales them by d_model^-1/2 before the vocabulary matrix;
BART adds a bias after it and scales its embeddings inside the embedding module.
"""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones.family import Family
from trimtab.errors import BackboneError
from trimtab.registry import families
from trimtab.types import Batch


class EncoderDecoder(Family):
    """What encoder-decoders have in common."""

    auto_class = "AutoModelForSeq2SeqLM"
    readouts = ("ranking",)
    head_prefix = "lm_head"
    head_advice = "Use a checkpoint that was saved with its language-model head."

    def hidden(self, model: Any, batch: Batch, embeds: Float[Tensor, "B T E"] | None) -> Float[Tensor, "B U H"]:
        inputs: dict[str, Any] = {"input_ids": batch.ids} if embeds is None else {"inputs_embeds": embeds}
        encoded = model.get_encoder()(**inputs, attention_mask=batch.attention_mask).last_hidden_state
        out = model.get_decoder()(
            input_ids=batch.decoder_ids,
            encoder_hidden_states=encoded,
            encoder_attention_mask=batch.attention_mask,
            use_cache=False,
        )
        return out.last_hidden_state

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

    def vocabulary_features(self, model: Any, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A H"]:
        return hidden

    def vocabulary_rows(
        self, model: Any, ids: Int[Tensor, "N"] | slice
    ) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N"]]:
        return model.lm_head.weight[ids].float(), model.final_logits_bias[0, ids].float()
