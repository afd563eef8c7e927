"""The step of prompts that are searched for, not descended to: other values are tried, and the best one stays.

The encoder says what is tried (`PromptEncoder.alternatives`), from its gradient; here a candidate is a prompt of a
table, so that one batch scores many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.types import PromptTable, Row

Losses = Callable[[Sequence[Row], PromptTable], Float[Tensor, "N"]]
"""Rows, each with its prompt in the table, to their losses."""


@torch.no_grad()
def best_of(
    table: PromptTable, run: int, tried: Float[Tensor, "K P E"], rows: Sequence[Row], losses: Losses
) -> tuple[int, float]:
    """Which of the values of a run's input prompt has the lowest mean loss on some rows: its number from 0, and the
    loss; -1 for the present one, which wins ties.

    Args:
        table: the prompts of all runs.
    """
    own = table.rows(torch.full((len(tried) + 1,), run, device=table.inputs.device))
    own = replace(own, inputs=torch.cat([own.inputs[:1], tried]))
    each = [replace(row, prompt=k) for k in range(len(own)) for row in rows]
    means = losses(each, own).view(len(own), len(rows)).double().mean(1)
    best = int(means.argmin())
    return best - 1, float(means[best])


@torch.no_grad()
def spelled(backbone: Backbone, rows: Float[Tensor, "P E"]) -> list[str]:
    """The vocabulary entries whose embeddings these are, as the tokenizer writes them."""
    matrix = backbone.embedding_rows.detach()
    ids = [int((matrix.float() - row).abs().sum(1).argmin()) for row in rows]
    return [str(t) for t in backbone.encoder.tokens(ids)]
