"""A run whose loss is a quadratic: a backbone that hands embeddings through, read where the prompt or the text stands.

f(h) = mean over examples of 1/2 h' A h        h: all vectors that are read, one after the other
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.backbones.bert import Bert
from trimtab.landscape.point import LossAt
from trimtab.model import PromptedModel
from trimtab.prompt_table import PromptTable
from trimtab.types import Batch, Encoded, Row


class Through(Bert):
    """A family whose models change nothing."""

    def hidden(
        self, model: Any, batch: Batch, embeds: Tensor | None, decoder_embeds: Any = None, attention: Any = None
    ) -> Tensor:
        assert embeds is not None
        return embeds


class Quadratic:
    """A readout whose loss is a quadratic form of what is read."""

    kinds, trains, writes, metrics, new_tokens, end_id = ("class",), True, False, ("accuracy",), 0, None

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def scores(self, hidden: Tensor, batch: Batch, heads: Mapping[str, Tensor] = {}) -> Tensor:
        return hidden.flatten(1)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return 0.5 * torch.einsum("xi,ij,xj->x", scores, self.matrix, scores)

    def decide(self, scores: Tensor, rows: Sequence[Row]) -> list[Any]:
        raise NotImplementedError

    measure = records = missing = constant = decide


def quadratic_loss(backbone: Backbone, read: str, vectors: int = 2, examples: int = 3, seed: int = 0) -> LossAt:
    """A loss that is a quadratic form of the prompt's vectors ("prompt") or of each text's first ones ("text")."""
    draw = torch.Generator().manual_seed(seed)
    size = vectors * backbone.embedding_size
    half = torch.randn(size, size, generator=draw) / size**0.5
    slots, text = tuple(range(1, 1 + vectors)), tuple(range(1 + vectors, 1 + 2 * vectors))
    rows = []
    for x in range(examples):
        ids = [2, *[0] * vectors, *range(30 + 7 * x, 30 + 7 * x + vectors + x), 3]
        eligible = tuple(range(1 + vectors, len(ids) - 1))
        rows.append(Row(Encoded(tuple(ids), slots, slots if read == "prompt" else text, eligible), 0, 0))
    model = PromptedModel(replace(backbone, family=Through()), Quadratic(half @ half.T))
    inputs = torch.randn(1, vectors, backbone.embedding_size, generator=draw)
    return LossAt(model, PromptTable(inputs), rows)
