"""Where a finished run stands, and its loss at other points around it, on examples that stay the same.

    f(delta) = 1/X sum_x loss( M(s + delta_s, e_x + delta_x), y_x )

Symbols: s the materialized prompt (input vectors, keys and values), e_x the embedded text of example x, M the frozen
backbone with its readout, X how many examples. delta_x moves eligible positions only: field text, as regularizers see
it (`trimtab.perturbations`), never slots, answers, literals, special tokens or label words.

Everything is float32 with eager attention, whatever the run was trained in, and without dropout: fused attention has no
second derivative, and a landscape in bfloat16 is a staircase. Many points are computed at once, as rows of one batch:
a prompt that is changed is a table with a prompt per point, a text that is changed a copy of the examples per point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.batching import micro_batches
from trimtab.loading import load
from trimtab.model import PromptedModel
from trimtab.perturbations import TEXT, prompt_names, text_mask, text_of
from trimtab.predictor import Predictor
from trimtab.prompt_table import PromptTable
from trimtab.types import Batch, Example, Row

MAX_TOKENS = 8192
"""Tokens per pass, padding included, where nothing else is asked for."""

Change = Mapping[str, Tensor]
"""What is added at G points, by name: `text` [G,N,E], one entry per eligible token of all examples, one after the
other; a tensor of the prompt, by its name in `PromptTable.tensors`, [G,...]."""


@final
@dataclass(frozen=True)
class Space:
    """Some of what can be changed, as one vector of M numbers, so that numerics need not know what it is.

    Attributes:
        shapes: by name, of one point: `text` [N,E], `inputs` [P,E], `deep.<site>` [N,2,P,K,D].
    """

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """M."""
        return sum(map(math.prod, self.shapes.values()))

    def split(self, values: Float[Tensor, "G M"]) -> dict[str, Tensor]:
        """Points as changes; differentiable."""
        parts = values.split([math.prod(shape) for shape in self.shapes.values()], dim=1)
        return {n: v.reshape(len(v), *shape) for (n, shape), v in zip(self.shapes.items(), parts, strict=True)}

    def join(self, change: Change) -> Float[Tensor, "G M"]:
        """Changes as points; differentiable."""
        return torch.cat([change[name].flatten(1) for name in self.shapes], dim=1)

    @property
    def tokens(self) -> Int[Tensor, "M"]:
        """The token that each number belongs to, from 0: an eligible token of a text, a virtual token of the input
        prompt, the keys or the values of a virtual token in one layer.

        >>> Space({"text": (2, 3), "deep.self": (1, 2, 1, 1, 2)}).tokens.tolist()
        [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
        """
        found, begun = [], 0
        for shape in self.shapes.values():
            inner = math.prod(shape[-1:] if len(shape) < 4 else shape[-2:])  # keys and values: all heads together
            count = math.prod(shape) // inner
            found.append(torch.arange(begun, begun + count).repeat_interleave(inner))
            begun += count
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True)
class Group:
    """Examples that are computed together.

    Attributes:
        places: their numbers among all.
        tokens: the number of each eligible token among those of all examples, -1 where there is none.
    """

    batch: Batch
    places: tuple[int, ...]
    tokens: Int[Tensor, "X N"]


@final
class LossAt:
    """The loss of a finished run on fixed examples, at points around it; differentiable twice.

    Args:
        model: in float32 with eager attention.
        table: the run's prompt, a table of one.
        rows: the examples, rendered for the prompt 0. A text that is read in windows is several of them.
        max_tokens: tokens per pass for a single point; more rows are computed in several passes.
    """

    def __init__(
        self, model: PromptedModel, table: PromptTable, rows: Sequence[Row], max_tokens: int = MAX_TOKENS
    ) -> None:
        self.model, self.rows, self.max_tokens = model, tuple(rows), max_tokens
        self.table = table.with_tensors({n: v.detach() for n, v in table.tensors.items()})
        groups = [
            (its, model.collate([rows[i] for i in its])) for its in micro_batches([r.cost for r in rows], max_tokens)
        ]
        masks = {i: mask for its, batch in groups for i, mask in zip(its, text_mask(batch), strict=True)}
        counts = torch.tensor([int(masks[i].sum()) for i in range(len(rows))])
        first = (counts.cumsum(0) - counts).tolist()
        self._groups = tuple(self._group(its, batch, first) for its, batch in groups)
        self.text = Space({TEXT: (int(counts.sum()), model.backbone.embedding_size)})
        shapes = {n: tuple(v.shape[1:]) for n, v in self.table.tensors.items() if v.numel()}
        self.prompt = Space({n: shapes[n] for n in prompt_names(self.table)})
        self.trained = Space(shapes)

    @staticmethod
    def _group(places: Sequence[int], batch: Batch, first: Sequence[int]) -> Group:
        mask = text_mask(batch)
        begun = torch.tensor([first[i] for i in places], device=mask.device)
        number = begun[:, None] + torch.arange(mask.shape[1], device=mask.device)
        return Group(batch, tuple(places), number.masked_fill(~mask, -1))

    def losses(self, change: Change) -> Float[Tensor, "G X"]:
        """The loss of each example at each point, in nats where it is a cross-entropy.

        Args:
            change: may name the text, parts of the prompt, or both. All points are computed in one pass over a group of
                examples, so their number decides about memory.
        """
        points = len(next(iter(change.values())))
        found = [self._of_group(group, change, points) for group in self._groups]
        order = torch.tensor([i for group in self._groups for i in group.places], device=found[0].device)
        return torch.cat(found, dim=1)[:, order.argsort()]

    def mean(self, change: Change) -> Float[Tensor, "G"]:
        """The mean loss over the examples at each point."""
        return self.losses(change).mean(1)

    def at(self, space: Space, values: Float[Tensor, "G M"]) -> Float[Tensor, "G"]:
        """The mean loss at points of a space. The run itself is the point 0."""
        return self.mean(space.split(values))

    @torch.no_grad()
    def original(self, space: Space) -> Float[Tensor, "M"]:
        """What changes are added to, as a vector: the texts' embeddings, the prompt."""
        values: dict[str, Tensor] = {n: v for n, v in self.table.tensors.items() if n in space.shapes}
        if TEXT in space.shapes:
            values[TEXT] = self._embedded()[None]
        return space.join(values)[0]

    @property
    def tokens_of_text(self) -> tuple[int, ...]:
        """How many eligible tokens each example has."""
        counts = {i: int((its >= 0).sum()) for g in self._groups for i, its in zip(g.places, g.tokens, strict=True)}
        return tuple(counts[i] for i in range(len(self.rows)))

    @property
    def tokens_of_pass(self) -> int:
        """Tokens that the largest pass over a single point takes, padding included."""
        return max(g.batch.ids.numel() + _numel(g.batch.decoder_ids) for g in self._groups)

    @property
    def passes(self) -> tuple[tuple[int, int, int], ...]:
        """Of every pass over a single point its rows, their length (of the longer side of an encoder-decoder), and how
        many places of each are read; the largest first."""
        batches = sorted((g.batch for g in self._groups), key=lambda b: -b.ids.numel() - _numel(b.decoder_ids))
        lengths = [max(b.ids.shape[1], 0 if b.decoder_ids is None else b.decoder_ids.shape[1]) for b in batches]
        return tuple((len(b), length, b.answer_at.shape[1]) for b, length in zip(batches, lengths, strict=True))

    def _embedded(self) -> Float[Tensor, "N E"]:
        found = self.model.backbone.embedding_rows.new_zeros(self.text.shapes[TEXT], dtype=torch.float32)
        for group in self._groups:
            there = group.tokens >= 0
            found[group.tokens[there]] = text_of(self.model.embed(group.batch), group.batch)[there].float()
        return found

    def _of_group(self, group: Group, change: Change, points: int) -> Float[Tensor, "G X"]:
        """Losses of a group's examples: points and examples are rows of one batch."""
        batch, table = repeated(group.batch, points), self.table
        prompt = {n: v for n, v in change.items() if n != TEXT}
        if prompt:
            own = table.rows(torch.zeros(points, dtype=torch.long, device=table.inputs.device))
            table = own.with_tensors({n: v + prompt[n] if n in prompt else v for n, v in own.tensors.items()})
            point = torch.arange(points, device=batch.ids.device).repeat_interleave(len(group.batch))
            batch = replace(batch, prompt_of=point)
        delta = {}
        if TEXT in change:
            values = torch.cat([change[TEXT], change[TEXT].new_zeros(points, 1, change[TEXT].shape[2])], dim=1)
            delta[TEXT] = values[:, group.tokens].flatten(0, 1)  # -1 is the row of zeros
        scores = self.model.scores(batch, table, delta)
        return self.model.readout.loss(scores, batch.labels).view(points, -1)


def repeated(batch: Batch, times: int) -> Batch:
    """The same rows several times one after the other, each copy with examples of its own."""
    shifted = torch.arange(times, device=batch.example_of.device)[:, None] * len(batch.labels)
    tensors = {k: v.repeat(times, *[1] * (v.ndim - 1)) for k, v in vars(batch).items() if v is not None}
    return replace(batch, **{**tensors, "example_of": (batch.example_of + shifted).flatten()})


def opened(
    run: str | Path, *, task: str | None = None, backbone: Backbone | None = None, device: str = "auto"
) -> Predictor:
    """A run folder or bundle with its backbone in float32 and eager attention.

    Args:
        task: which one, if the run is on several.
        backbone: that was opened so for another run.

    Raises:
        BundleError, BackboneError: see `trimtab.load`.
    """
    return load(run, task=task, backbone=backbone, device=device, dtype="float32", attention="eager")


def loss_at(predictor: Predictor, examples: Sequence[Example], max_tokens: int = MAX_TOKENS) -> LossAt:
    """The loss of a run that was `opened`, on labelled examples.

    Raises:
        DataError, TemplateError: an example does not suit the run's task.
    """
    predictor.check_labels(examples)
    encoder = predictor.model.backbone.encoder
    rows = [row for e in examples for row in predictor.rendering.rows(e, encoder)]
    assert predictor.table is not None, "a bundle has a prompt"
    return LossAt(predictor.model, predictor.table, rows, max_tokens)


def _numel(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel()
