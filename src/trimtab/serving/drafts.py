"""Rows that are written together, one token each at a time, with a cache; for causal models.

Rows come and go between two tokens: whoever ends or is not waited for leaves, and drafts are merged to one, shorter
ones padded on the left, where caches are plain (those of sliding windows keep to themselves). The tokens are those that
`PromptedModel.generate_rows` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.errors import BackboneError
from trimtab.injection import attention_of
from trimtab.model import PromptedBackbone
from trimtab.serving.gathering import joined
from trimtab.serving.scoring import numbered
from trimtab.serving.tickets import Seat, Writing


@final
class Draft:
    """Some texts in the making.

    Args:
        seats: where each begins; by default at its own seat, with the prefix in it.
    """

    @torch.no_grad()
    def __init__(self, backbone: Backbone, writings: Sequence[Writing], seats: Sequence[Seat] | None = None) -> None:
        from transformers import DynamicCache

        self._backbone, self.writings = backbone, list(writings)
        self._seats = list(seats or [w.seat for w in writings])
        self._cache: Any = DynamicCache(config=backbone.model.config)
        rows, tables = numbered(self._seats)
        opened = [replace(row, encoded=row.encoded.opened(), others=()) for row in rows]
        model = PromptedBackbone(backbone)
        batch, embeds, _, self._attention = model.entered(model.collate(opened), joined(tables) if tables else None)
        self._mask, self._positions = batch.attention_mask, batch.position_ids[:, -1:]  # pads are on the left
        self._ids = batch.ids[:, -1:]
        self._take(self._logits(batch.ids, embeds, batch.position_ids))

    def __len__(self) -> int:
        return len(self.writings)

    @torch.no_grad()
    def step(self) -> None:
        """One more token for each."""
        self._leave()
        if not self.writings:
            return
        self._mask = torch.cat([self._mask, torch.ones_like(self._ids)], 1)
        self._positions = self._positions + 1
        self._take(self._logits(self._ids, None, self._positions))

    def _logits(
        self, ids: Int[Tensor, "B T"], embeds: Float[Tensor, "B T E"] | None, positions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B V"]:
        family: Any = self._backbone.family
        logits: Tensor = family.next_logits(
            self._backbone.model, ids, embeds, self._mask, positions, self._cache, self._attention
        )
        return logits

    def _take(self, logits: Float[Tensor, "B V"]) -> None:
        """Choose a token for each row; whose text has ended leaves."""
        likeliest, is_finite = logits.argmax(1).tolist(), (~logits.isnan().any(1)).tolist()
        tokens = []
        for i, writing in enumerate(self.writings):
            if not is_finite[i]:
                writing.fail(_not_finite(self._backbone))
            token = likeliest[i] if writing.chooser.is_greedy or not is_finite[i] else writing.chooser.draw(logits[i])
            tokens.append(token)
            if not writing.is_over:
                writing.take(token)
        self._ids = torch.tensor(tokens, device=logits.device)[:, None]
        self._leave()

    def _leave(self) -> None:
        """Drop the rows that nobody waits for any more."""
        keep = [i for i, writing in enumerate(self.writings) if not writing.is_over]
        if len(keep) == len(self.writings):
            return
        self.writings, self._seats = [self.writings[i] for i in keep], [self._seats[i] for i in keep]
        if not keep:
            return
        index = torch.tensor(keep, device=self._ids.device)
        self._cache.batch_select_indices(index)
        self._ids, self._mask, self._positions = self._ids[index], self._mask[index], self._positions[index]
        self._see()

    def _see(self) -> None:
        """Let the prompts of the rows that are here enter attention."""
        rows, tables = numbered(self._seats)
        prompt_of = torch.tensor([row.prompt for row in rows], device=self._ids.device)
        self._attention = attention_of(joined(tables), prompt_of) if tables else None

    @property
    def can_merge(self) -> bool:
        """Whether the cache may be padded: one that keeps everything it has seen."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def merge(self, other: Draft) -> None:
        """Take the rows of another draft in; both `can_merge`."""
        width = max(self._mask.shape[1], other._mask.shape[1])
        for layer, its in zip(self._cache.layers, other._cache.layers, strict=True):
            seen = layer.get_seq_length(), its.get_seq_length()
            layer.keys, layer.values = (
                torch.cat([_padded(a, max(seen), 2), _padded(b, max(seen), 2)])
                for a, b in ((layer.keys, its.keys), (layer.values, its.values))
            )
        self._mask = torch.cat([_padded(self._mask, width, 1), _padded(other._mask, width, 1)])
        self._ids, self._positions = (
            torch.cat(pair) for pair in ((self._ids, other._ids), (self._positions, other._positions))
        )
        self.writings, self._seats = self.writings + other.writings, self._seats + other._seats
        self._see()


def _padded(values: Tensor, length: int, dim: int) -> Tensor:
    """Zeros before the values along one dimension."""
    shape = list(values.shape)
    shape[dim] = length - shape[dim]
    return torch.cat([values.new_zeros(shape), values], dim) if shape[dim] else values


def _not_finite(backbone: Backbone) -> BackboneError:
    return BackboneError(
        f"the scores of {backbone.name!r} are not finite in {backbone.dtype}.",
        where="the prompt",
        fix="Train with backbone.dtype=float32 or a lower training.learning_rate.",
    )
