"""What differs between model families. The defaults fit encoders with a masked-LM head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trimtab.backbones.attention import KEYWORD, Passage, adopt, check_adopted
from trimtab.errors import BackboneError
from trimtab.prompt_table import AttentionPrompts, Site
from trimtab.registry import families
from trimtab.types import Batch

HEADS = ("head", "tokens", "choice", "span")
"""Readouts that need hidden states only, so that every family can do them."""


class Family(ABC):
    """The quirks of a set of `model_type`s. Stateless: every method is given the transformers model."""

    architecture: ClassVar[Literal["masked", "causal", "seq2seq"]] = "masked"
    """An encoder with a masked-LM head, a decoder alone, or both: what presets are chosen for."""
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    readouts: ClassVar[tuple[str, ...]] = ("cloze", "word", *HEADS, "cloze_choice", "cloze_span")
    """Readouts that make sense, the default first."""
    is_causal: ClassVar[bool] = False
    """Whether a position sees only what stands before it."""
    padding_side: ClassVar[Literal["left", "right"]] = "right"
    padding_sides: ClassVar[tuple[Literal["left", "right"], ...]] = ("left", "right")
    """Sides on which pads change nothing: both, where positions can be given or are relative."""
    fused_attention: ClassVar[bool] = True
    """Whether transformers offers PyTorch's fused attention (SDPA) for it beside the eager one."""
    takes_positions: ClassVar[bool] = True
    """Whether the model counts from the positions that it is given, so that a shift of them means something."""
    embeds_whole: ClassVar[bool] = False
    """Whether the base model's `embeddings` make vectors of ids and positions that can be given as `inputs_embeds`."""
    head_prefix: ClassVar[str | tuple[str, ...]]
    """Parameter names of the vocabulary head start so; used to refuse checkpoints that lack it."""
    head_advice: ClassVar[str] = "Use a checkpoint that was saved with its masked-LM head."
    """What to do where the checkpoint lacks it."""

    def embed(self, model: nn.Module, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """Word embeddings as `inputs_embeds` wants them: before positions, segments and LayerNorm."""
        return model.get_input_embeddings()(ids)  # type: ignore[operator]

    def embed_whole(
        self, model: nn.Module, ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T E"]:
        """What the whole embedding layer makes of ids: words, positions and segments together, and LayerNorm.

        Args:
            positions: as the model numbers them.
        """
        base: Any = model.base_model
        return base.embeddings(input_ids=ids, position_ids=positions)  # type: ignore[no-any-return]

    def check_embed_twice(self, name: str) -> None:
        """Refuse to embed text twice, where there is no such layer.

        Raises:
            BackboneError: with the model types that have one.
        """
        if not self.embeds_whole:
            able = [kind for kind in families.kinds() if families.get(kind).embeds_whole]  # type: ignore[attr-defined]
            raise BackboneError(
                f"models such as {name!r} have no embedding layer that takes what it has made a second time.",
                where="backbone.embed_twice",
                fix=f"Set backbone.embed_twice: false, or take one of {', '.join(able)}.",
            )

    def hidden(
        self,
        model: nn.Module,
        batch: Batch,
        embeds: Float[Tensor, "B T E"] | None,
        decoder_embeds: Float[Tensor, "B U E"] | None = None,
        attention: AttentionPrompts | None = None,
    ) -> Float[Tensor, "B T H"]:
        """Last hidden states, from `embeds` or, for the bare model, from the ids.

        Args:
            decoder_embeds: what the decoder of an encoder-decoder reads where prompts stand in it; None to read
                `decoder_ids`.
            attention: what enters the attention layers; None for nothing.

        Raises:
            BackboneError: the model's code gives `attention` no way in.
        """
        out = model.base_model(  # type: ignore[operator]
            **either(batch.ids, embeds),
            attention_mask=batch.attention_mask,
            position_ids=self.positions(model, batch),
            **carrying(self.passage(model, attention)),
        )
        return out.last_hidden_state

    def generate(
        self,
        model: nn.Module,
        batch: Batch,
        embeds: Float[Tensor, "B T E"] | None,
        new_tokens: int,
        end_id: int | None,
        pad_id: int,
        decoder_embeds: Float[Tensor, "B U E"] | None = None,
        attention: AttentionPrompts | None = None,
    ) -> Int[Tensor, "B N"]:
        """At most `new_tokens` most likely next tokens, one after the other; after a row's `end_id` come pads.

        Args:
            batch: rows without an answer, those of an encoder-decoder with decoders of one length.
            embeds: what they read; None for the bare model, which reads the ids.
            end_id: the token that ends a text; None to write on to the last.
            decoder_embeds: as in `hidden`.
            attention: as in `hidden`.

        Raises:
            BackboneError: masked language models do not write.
        """
        raise BackboneError(
            "a masked language model fills gaps and cannot write text.",
            where="backbone.model",
            fix="Use a causal model or an encoder-decoder, or a readout of label words (readout.kind=cloze).",
        )

    def embedding_size(self, config: Any) -> int:
        """E, the width of the input embeddings."""
        return int(config.hidden_size)

    def hidden_size(self, config: Any) -> int:
        """H, the width of the last hidden states."""
        return int(config.hidden_size)

    def sites(self, config: Any) -> dict[str, Site]:
        """The kinds of attention in the model, where keys and values may enter every layer."""
        queries = int(config.num_attention_heads)
        heads = int(getattr(config, "num_key_value_heads", None) or queries)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // queries)
        return {"self": Site(int(config.num_hidden_layers), heads, queries, size)}

    def check_shifts(self, name: str) -> None:
        """Refuse prompts that shift the positions of the text, where that would do nothing.

        Raises:
            BackboneError: the family takes no positions, or has relative ones that a shift does not change.
        """
        if not self.takes_positions:
            raise BackboneError(
                f"models such as {name!r} count positions by themselves, so the text cannot be moved to the positions "
                "behind a prompt.",
                where="prompt.shift_positions",
                fix="Set prompt.shift_positions: false, or take another backbone.",
            )

    def site_of(self, path: str) -> str:
        """The site of an attention module, by its path in the base model."""
        return "self"

    def adopt(self, model: nn.Module, kind: Literal["eager", "sdpa"]) -> None:
        """Open the attention of a model that was just loaded to keys and values; see `trimtab.backbones.attention`."""
        adopt(model, kind, self.sites(model.config), self.site_of)  # type: ignore[arg-type]

    def passage(self, model: nn.Module, attention: AttentionPrompts | None) -> Passage | None:
        """What carries `attention` through one forward pass.

        Raises:
            BackboneError: the model's code gives it no way in.
        """
        if attention is None:
            return None
        check_adopted(model)
        return Passage(attention)

    def positions(self, model: nn.Module, batch: Batch) -> Int[Tensor, "B T"]:
        """Positions as the model numbers them. Always explicit, so that they do not depend on the padding side."""
        return batch.position_ids

    def max_positions(self, config: Any) -> int:
        """How many positions a sequence may have."""
        return int(config.max_position_embeddings)

    def decoder_start_id(self, config: Any) -> int | None:
        """What the decoder of an encoder-decoder begins with."""
        return None

    def squash(self, model: nn.Module, logits: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """What happens to logits after the vocabulary matrix; nothing in most families."""
        return logits

    @abstractmethod
    def vocabulary_features(self, model: nn.Module, hidden: Float[Tensor, "B A H"]) -> Float[Tensor, "B A F"]:
        """What the vocabulary matrix is applied to: the head's transform of the hidden states."""

    def vocabulary_rows(
        self, model: nn.Module, ids: Int[Tensor, "N"] | slice
    ) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N"]]:
        """Rows of the vocabulary matrix and bias in float32: of a few token ids, or of a slice.

        A slice of a float32 matrix is a view of it.
        """
        output = model.get_output_embeddings()  # type: ignore[operator]
        bias = output.bias[ids] if output.bias is not None else torch.zeros_like(output.weight[ids, 0])
        return output.weight[ids].float(), bias.float()


def either(ids: Int[Tensor, "B T"] | None, embeds: Float[Tensor, "B T E"] | None) -> dict[str, Any]:
    """What a model reads, as transformers calls it: embeddings, or ids where there are none."""
    return {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}


def carrying(passage: Passage | None) -> dict[str, Any]:
    """The keyword of a forward pass that carries a passage; nothing where there is none."""
    return {} if passage is None else {KEYWORD: passage}


def greedy(new_tokens: int, end_id: int | None, pad_id: int, **special: int) -> Any:
    """All that decides what is generated: the most likely token, until `end_id` or for `new_tokens`.

    Transformers fills what is None here from `model.generation_config`, which `load_backbone` has emptied.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        **special,
    )
