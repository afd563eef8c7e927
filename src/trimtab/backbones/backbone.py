"""A language model with its tokenizer, as the rest of the code sees it, and copies of it that are trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trimtab.backbones.attention import Recorder, check_adopted
from trimtab.backbones.family import Family
from trimtab.batching import collate
from trimtab.errors import BackboneError
from trimtab.prompt_table import Site
from trimtab.text_encoder import TextEncoder
from trimtab.types import Batch, Encoded, Row

NO_WORDS = ("[unused", "madeupword", "<0x")
"""How BERT and fairseq (RoBERTa) begin the names of entries that fill up the matrix, SentencePiece those of bytes."""


@dataclass(frozen=True)
class Backbone:
    """A language model with its tokenizer, frozen and shared; `trainable` makes a private copy that is not.

    Attributes:
        name: the model as the user named it: `nano-masked`, a folder or a Hugging Face id.
        model: the transformers model: evaluation mode, no parameter requires a gradient.
        family: what is particular to its `model_type`.
        encoder: the tokenizer, as templates use it.
        fingerprint: SHA-256 over the weight files (files over 1 GiB: size and 64 samples of 1 MiB).
        tokenizer_fingerprint: SHA-256 over the tokenizer's definition.
        revision: commit of a Hugging Face id, where known.
        embed_twice: rows with a prompt at the input have their text embedded twice, see `embed`.
    """

    name: str
    model: Any
    family: Family
    encoder: TextEncoder
    fingerprint: str
    tokenizer_fingerprint: str
    revision: str | None = None
    embed_twice: bool = False

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def pass_cost(self) -> int:
        """Tokens whose arithmetic takes about as long as one more pass; a GPU mostly waits for its next kernel."""
        return 64 if self.device.type == "cpu" else 4096

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding_weight.dtype

    @property
    def embedding_weight(self) -> Float[Tensor, "V E"]:
        """The input embedding matrix."""
        return self.model.get_input_embeddings().weight

    @property
    def embedding_size(self) -> int:
        """E, the width of `inputs_embeds` (on ALBERT smaller than the hidden size)."""
        return int(self.embedding_weight.shape[1])

    @property
    def hidden_size(self) -> int:
        """H, the width of the last hidden states."""
        return self.family.hidden_size(self.model.config)

    def embed(self, batch: Batch) -> Float[Tensor, "B T E"]:
        """What the model is given as `inputs_embeds`: word embeddings; slots hold a filler.

        With `embed_twice`, the text of rows with a prompt at the input has been through the whole embedding layer, at
        positions that count no slots, and the model will apply that layer to it again. So does the released code of
        P-tuning v2 (Liu et al. 2022) for its baseline of input prompts. Bare rows stay those of the bare model.
        """
        words = self.family.embed(self.model, batch.ids)
        if not self.embed_twice:
            return words
        whole = self.family.embed_whole(self.model, batch.ids, self._text_positions(batch))
        return torch.where(batch.has_slots[:, None, None], whole, words)

    def embed_words(self, ids: Int[Tensor, "N"], batch: Batch, row: int, position: int) -> Float[Tensor, "N E"]:
        """What `embed` would make of words, each in one place of a batch."""
        if not (self.embed_twice and batch.has_slots[row]):
            return self.family.embed(self.model, ids[None])[0]
        there = self._text_positions(batch)[row, position].expand(1, len(ids))
        return self.family.embed_whole(self.model, ids[None], there)[0]

    def _text_positions(self, batch: Batch) -> Int[Tensor, "B T"]:
        return self.family.positions(self.model, replace(batch, position_ids=batch.text_position_ids))

    @cached_property
    def embedding_scale(self) -> float:
        """What the embedding module multiplies its rows with (Gemma, BART); 1 in most families."""
        module = self.model.get_input_embeddings()
        return float(getattr(module, "scalar_embed_scale", getattr(module, "embed_scale", None)) or 1.0)

    @cached_property
    def embedding_rows(self) -> Float[Tensor, "V E"]:
        """Word embeddings as `inputs_embeds` has them."""
        return self.embedding_weight if self.embedding_scale == 1.0 else self.embedding_weight * self.embedding_scale

    @cached_property
    def embedding_rms(self) -> float:
        """Root mean square of an embedding element: the natural unit for prompts and noise."""
        return float(self.embedding_weight.detach().float().square().mean().sqrt()) * self.embedding_scale

    @cached_property
    def ordinary_words(self) -> tuple[int, ...]:
        """Ids of vocabulary entries that are words or parts of words, in the order of the vocabulary."""
        special = set(self.encoder.tokenizer.all_special_ids)
        tokens = self.encoder.tokens(range(len(self.encoder.tokenizer)))
        return tuple(i for i, t in enumerate(tokens) if t and i not in special and not t.startswith(NO_WORDS))

    @cached_property
    def max_positions(self) -> int:
        return self.family.max_positions(self.model.config)

    @cached_property
    def sites(self) -> dict[str, Site]:
        """The kinds of attention in the model, where a deep prompt may have keys and values.

        Raises:
            BackboneError: the model's code gives them no way in.
        """
        check_adopted(self.model)
        return self.family.sites(self.model.config)

    def check_shifts(self) -> None:
        """As `Family.check_shifts`."""
        self.family.check_shifts(self.name)

    @torch.no_grad()
    def keys_values(self, ids: Int[Tensor, "P"]) -> dict[str, Float[Tensor, "L 2 P K D"]]:
        """The keys and values of a text as each attention layer receives them, by site, float32 on the CPU.

        Positions are 0 to P-1. The decoder of an encoder-decoder reads the same ids, and `cross` holds what the encoder
        made of them.
        """
        recorder, tokens = Recorder(), tuple(ids.tolist())
        encoded = Encoded(tokens, (), (0,), decoder=tokens if "decoder" in self.sites else ())
        self.family.hidden(self.model, collate([Row(encoded)], self.pad_id).to(self.device), None, None, recorder)
        return recorder.by_site(self.sites)

    @property
    def pad_id(self) -> int:
        pad = self.encoder.tokenizer.pad_token_id
        return int(pad) if pad is not None else 0

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def trainable(self, opened: Callable[[Any], None]) -> Backbone:
        """A copy with weights of its own, float32; this one stays as it is.

        Args:
            opened: lets what is trained require gradients, see `trimtab.tunings`.
        """
        model = copy.deepcopy(self.model).float()
        opened(model)
        return replace(self, model=model)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that require gradients, by name; none of a frozen backbone."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def with_weights(self, opened: Callable[[Any], None], weights: Mapping[str, Tensor]) -> Backbone:
        """A frozen copy in which what was trained has other values, rounded to its dtype; this one stays as it is.

        Args:
            opened: as `trainable`.
            weights: by name.

        Raises:
            BackboneError: they are not those that were trained.
        """
        model = copy.deepcopy(self.model)
        opened(model)
        copied = replace(self, model=model)
        own = {n: tuple(p.shape) for n, p in copied.trained.items()}
        got = {n: tuple(v.shape) for n, v in weights.items()}
        for name in sorted(own.keys() | got.keys()):
            if own.get(name) != got.get(name):
                raise BackboneError(
                    f"the trained weights do not fit the backbone {self.name!r}: {name} must have the shape "
                    f"{own.get(name)}, got {got.get(name)}.",
                    fix="Use the version of transformers that bundle.json names under provenance.environment.",
                )
        for name, parameter in copied.trained.items():
            parameter.copy_(weights[name])
        model.requires_grad_(False)
        return copied
