"""The step of prompts that are searched for, not descended to: other values are tried, and the best one stays.

The encoder says what is tried (`PromptEncoder.alternatives`), from its gradient; here a candidate is a prompt of a
table, so that one batch scores many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.batching import labels_of
from trimtab.config import Seeds
from trimtab.model import PromptedModel, stacked
from trimtab.prompt_table import PromptTable
from trimtab.prompts import Searches
from trimtab.seeding import stream
from trimtab.training.encoder_pack import EncoderPack
from trimtab.training.parallel import Processes
from trimtab.types import Row

Losses = Callable[[Sequence[Row], PromptTable], Float[Tensor, "N"]]
"""Rows, each with its prompt in the table, to their losses."""


@runtime_checkable
class Searched(Protocol):
    """What is asked of a member of the pack."""

    seeds: Seeds
    step: int
    train: Sequence[Row]
    findings: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Search:
    """Tries other prompts of the members of a pack, where their encoders search.

    Attributes:
        model: scores what is tried.
        processes: share the work.
        max_tokens: per pass.
    """

    model: PromptedModel
    processes: Processes
    max_tokens: int

    def step(self, pack: EncoderPack, members: Mapping[int, Searched]) -> None:
        """Let the raw prompts of some members, by their numbers in the pack, take the best of what is tried.

        The optimizer is left no gradient of them.
        """
        encoder, rows = pack.encoder[0], pack.stacked.get("rows")
        if not isinstance(encoder, Searches) or rows is None:
            return
        assert rows.grad is not None, "the step was backpropagated"
        table = pack.table(training=False)
        for r, member in members.items():
            rng = stream(member.seeds.noise, "noise:search", member.step)
            tried = encoder.alternatives(rows[r].detach(), rows.grad[r], rng)
            judges = [member.train[i] for i in rng.permutation(len(member.train))[: encoder.judges]]
            best, loss = best_of(table, r, tried, judges, self._losses)
            if best >= 0:
                pack.accept(r, tried[best])
                words = spelled(self.model.backbone, tried[best])
                member.findings.setdefault("words", []).append({"step": member.step, "words": words, "loss": loss})
        rows.grad = None

    def _losses(self, rows: Sequence[Row], table: PromptTable) -> Float[Tensor, "N"]:
        """Of each row, the processes sharing the work."""

        def score(part: Sequence[Row]) -> Tensor:
            return self.model.score_rows(part, table, self.max_tokens)

        scores = stacked(self.processes.merged(rows, [row.cost for row in rows], score))
        return self.model.readout.loss(scores, labels_of(rows, scores.shape[1]))


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
    matrix = backbone.embedding_rows.detach().float()
    ids = [int((matrix - row).abs().sum(1).argmin()) for row in rows]
    return [str(t) for t in backbone.encoder.tokens(ids)]
