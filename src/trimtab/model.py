"""PromptedModel = backbone + prompt table + readout. Here, and in the training loop, the axes meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.batching import collate, micro_batches
from trimtab.errors import BackboneError
from trimtab.injection import choose, offset_text, place_decoder_prompt, place_prompt, prefix_attention, shift_positions
from trimtab.perturbations import TEXT, Delta, add_to_prompts, add_to_text
from trimtab.prompt_table import AttentionPrompts, PromptTable
from trimtab.readouts import Condenses, Look, LooksAhead, Reads, ScoresInPasses, Several, WritesInPasses
from trimtab.types import Batch, Row

NOTHING: Delta = {}
"""The perturbation that perturbs nothing."""


@final
@dataclass(frozen=True)
class PromptedBackbone:
    """A backbone whose batches have prompts in them; what is made of its hidden states is a readout's to say."""

    backbone: Backbone

    def embed(self, batch: Batch) -> Float[Tensor, "B T E"]:
        """Text embeddings; slots hold a filler until the prompt is placed. See `Backbone.embed`."""
        return self.backbone.embed(batch)

    def at_reads(
        self, batch: Batch, table: PromptTable | None, delta: Delta = NOTHING
    ) -> tuple[Float[Tensor, "B A H"], Batch, PromptTable | None]:
        """Hidden states at the reads; the batch and the table as perturbations and prompts have changed them."""
        if table is not None and delta.keys() - {TEXT}:
            table, batch = add_to_prompts(table, batch, delta)
        batch = self._shifted(batch, table)
        read, attention = self._read(batch, table, delta), self._attention(batch, table)
        hidden = self.backbone.family.hidden(self.backbone.model, batch, *read, attention)
        at = batch.answer_at[..., None].expand(-1, -1, hidden.shape[-1])
        return hidden.gather(1, at), batch, table

    def _read(
        self, batch: Batch, table: PromptTable | None, delta: Delta = NOTHING
    ) -> tuple[Float[Tensor, "B T E"] | None, Float[Tensor, "B U E"] | None]:
        """What the backbone and its decoder read: embeddings with the prompts in place; None where they read ids."""
        if table is None or (batch.is_bare and TEXT not in delta):
            return None, None
        embeds = self.embed(batch)
        if TEXT in delta:
            embeds = add_to_text(embeds, delta[TEXT], batch)
        route = choose(embeds, table, batch)
        embeds = place_prompt(offset_text(embeds, table, batch), table, batch, route)
        if batch.decoder_slots is None or batch.decoder_ids is None:
            return embeds, None
        decoder_embeds = self.backbone.family.embed(self.backbone.model.get_decoder(), batch.decoder_ids)
        return embeds, place_decoder_prompt(decoder_embeds, table, batch, route)

    def _attention(self, batch: Batch, table: PromptTable | None) -> AttentionPrompts | None:
        """What enters the attention layers; None where they are the model's own."""
        return None if table is None else prefix_attention(table, batch)

    def _shifted(self, batch: Batch, table: PromptTable | None) -> Batch:
        """Positions as the prompts of the rows ask for them."""
        if table is None or table.shifts is None:
            return batch
        self.backbone.check_shifts()
        return shift_positions(batch, table)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """A batch on the backbone's device, padded as the family needs."""
        backbone = self.backbone
        return collate(rows, backbone.pad_id, backbone.family.padding_side).to(backbone.device)

    @torch.no_grad()
    def generate_rows(
        self,
        rows: Sequence[Row],
        table: PromptTable | None,
        max_tokens: int,
        new_tokens: int,
        end_id: int | None = None,
    ) -> list[tuple[int, ...]]:
        """What the model writes in place of each row's answer, as token ids in the order of the rows.

        Greedy: the most likely token, again and again, up to and without `end_id` (by default `encoder.end_id`). Rows
        are computed in batches of similar length, padded as the family needs; prompts may be mixed. A batch of bare
        rows takes the model's own path from ids.

        Args:
            max_tokens: tokens per batch, padding and new ones included.
            new_tokens: how many tokens a row may get.

        Raises:
            BackboneError: a masked language model, or a row that has not as many positions left.
        """
        backbone = self.backbone
        end = backbone.encoder.end_id if end_id is None else end_id
        opened = [replace(row, encoded=row.encoded.opened(), others=()) for row in rows]
        written: list[tuple[int, ...]] = [()] * len(rows)
        alike: dict[int, list[int]] = {}  # decoders begin at column 0 and must end together
        for i, row in enumerate(opened):
            self.check_room(row, table, new_tokens)
            alike.setdefault(len(row.encoded.decoder), []).append(i)
        for begun, indices in alike.items():
            costs = [len(opened[i].encoded) + begun + new_tokens for i in indices]
            for places in micro_batches(costs, max_tokens, backbone.pass_cost * new_tokens):
                group = [indices[place] for place in places]
                batch = self.collate([opened[i] for i in group])
                tokens = self._generate(batch, table, new_tokens, end)
                for i, row_tokens in zip(group, tokens.tolist(), strict=True):
                    written[i] = _until(row_tokens, end)
        return written

    def _generate(
        self, batch: Batch, table: PromptTable | None, new_tokens: int, end_id: int | None
    ) -> Int[Tensor, "B N"]:
        backbone = self.backbone
        batch, embeds, decoder_embeds, attention = self.entered(batch, table)
        return backbone.family.generate(
            backbone.model, batch, embeds, new_tokens, end_id, backbone.pad_id, decoder_embeds, attention
        )

    def entered(
        self, batch: Batch, table: PromptTable | None
    ) -> tuple[Batch, Float[Tensor, "B T E"] | None, Float[Tensor, "B U E"] | None, AttentionPrompts | None]:
        """The batch with its prompts in place: shifted, what the backbone and its decoder read (None where they read
        ids), and what enters the attention layers."""
        batch = self._shifted(batch, table)
        return batch, *self._read(batch, table), self._attention(batch, table)

    def check_room(self, row: Row, table: PromptTable | None, new_tokens: int) -> None:
        """Refuse to write more than the backbone has positions for.

        Raises:
            BackboneError: it has not as many.
        """
        begun = len(row.encoded.decoder) or len(row.encoded)
        if table is not None and table.shifts is not None and row.prompt >= 0:
            begun += int(table.shifts[row.prompt])
        if begun + new_tokens > self.backbone.max_positions:
            raise BackboneError(
                f"{begun} tokens and {new_tokens} new ones need {begun + new_tokens} positions, the backbone has "
                f"{self.backbone.max_positions}.",
                where="backbone.model",
                fix="Ask for fewer new tokens, or lower task.max_length.",
            )


@dataclass(frozen=True)
class PromptedModel:
    """Scores batches whose rows say which prompt they use.

    Gradients flow to the prompt table, to perturbations, and to the backbone if its weights require them.
    """

    backbone: Backbone
    readout: Reads

    def scores(self, batch: Batch, table: PromptTable | None, delta: Delta = NOTHING) -> Float[Tensor, "X *C"]:
        """Scores of the readout, float32: [X,C] for classes.

        Args:
            batch: rows on the backbone's device.
            table: the prompts; None where every row is bare.
            delta: added to the text embeddings and to the prompt of each example, see `trimtab.perturbations`.

        A batch of bare rows takes the model's own path from ids, so it equals the bare model bit for bit.
        """
        hidden, batch, table = self.prompted.at_reads(batch, table, delta)
        return self.readout.scores(hidden, batch, table.heads if table is not None else {})

    def score_rows(self, rows: Sequence[Row], table: PromptTable | None, max_tokens: int) -> Float[Tensor, "N *C"]:
        """Scores of many rows in their order, on the CPU, computed in batches of similar length; padded with -inf where
        rows have different numbers of them. Of a readout with a method `condensed`, what that keeps of them.

        Args:
            max_tokens: tokens per batch, padding included.
        """
        if not rows:
            return torch.zeros(0, 0)
        if isinstance(self.readout, ScoresInPasses):
            return self.readout.score_in_passes(rows, self._look(self.readout, table, max_tokens))
        return stacked(self._each(rows, max_tokens, lambda group: self._kept(self.collate(group), table)))

    def _kept(self, batch: Batch, table: PromptTable | None) -> Float[Tensor, "X *C"]:
        """Scores of rows that are not learned from."""
        scores = self.scores(batch, table)
        return self.readout.condensed(scores, batch) if isinstance(self.readout, Condenses) else scores

    def _look(self, readout: LooksAhead, table: PromptTable | None, max_tokens: int) -> Look:
        """One pass over rows, as a readout sees it that needs several."""

        def seen(group: Sequence[Row]) -> Tensor:
            hidden, batch, _ = self.prompted.at_reads(self.collate(group), table)
            return readout.look(hidden, batch)

        return lambda rows: self._each(rows, max_tokens, seen)

    @torch.no_grad()
    def _each(self, rows: Sequence[Row], max_tokens: int, score: Callable[[Sequence[Row]], Tensor]) -> list[Tensor]:
        """What is found of each row, on the CPU in the order of the rows, computed in batches of similar length."""
        found: list[Tensor | None] = [None] * len(rows)
        for group in micro_batches([row.cost for row in rows], max_tokens, self.backbone.pass_cost):
            for i, its in zip(group, score([rows[i] for i in group]).cpu(), strict=True):
                found[i] = its
        return [its for its in found if its is not None]

    def write_rows(self, rows: Sequence[Row], table: PromptTable | None, max_tokens: int) -> list[str]:
        """What the model writes for many rows, in their order; for readouts that write.

        Args:
            max_tokens: tokens per batch, padding and what is written included.
        """
        if isinstance(self.readout, WritesInPasses):
            written = self.readout.write_in_passes(rows, self._look(self.readout, table, max_tokens))
        else:
            written = self.generate_rows(rows, table, max_tokens, self.readout.new_tokens, self.readout.end_id)
        return [self.backbone.encoder.decode(ids) for ids in written]

    def parts(self, table: PromptTable | None) -> list[tuple[PromptedModel, PromptTable | None]]:
        """A model for each readout that a row may name (`Row.readout`), and the table with its own heads."""
        readout = self.readout
        if not isinstance(readout, Several):
            return [(self, table)]
        tables = [table and replace(table, heads=readout.heads_of(table.heads, k)) for k in range(len(readout.parts))]
        return [(replace(self, readout=part), own) for part, own in zip(readout.parts, tables, strict=True)]

    @property
    def prompted(self) -> PromptedBackbone:
        """The backbone with prompts, without the readout."""
        return PromptedBackbone(self.backbone)

    def embed(self, batch: Batch) -> Float[Tensor, "B T E"]:
        """As `PromptedBackbone.embed`."""
        return self.prompted.embed(batch)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """As `PromptedBackbone.collate`."""
        return self.prompted.collate(rows)

    def generate_rows(
        self,
        rows: Sequence[Row],
        table: PromptTable | None,
        max_tokens: int,
        new_tokens: int,
        end_id: int | None = None,
    ) -> list[tuple[int, ...]]:
        """As `PromptedBackbone.generate_rows`."""
        return self.prompted.generate_rows(rows, table, max_tokens, new_tokens, end_id)


def stacked(scores: Sequence[Float[Tensor, "*_"]]) -> Float[Tensor, "N *C"]:
    """Scores of single rows as one tensor, padded with -inf to the largest."""
    largest = [max(sizes) for sizes in zip(*(s.shape for s in scores), strict=True)]
    if all(list(s.shape) == largest for s in scores):
        return torch.stack(list(scores))
    padded = scores[0].new_full((len(scores), *largest), -torch.inf)
    for row, its in zip(padded, scores, strict=True):
        row[tuple(slice(n) for n in its.shape)] = its
    return padded


def _until(tokens: list[int], end_id: int | None) -> tuple[int, ...]:
    """Tokens before the end; what follows it is padding."""
    return tuple(tokens[: tokens.index(end_id)]) if end_id in tokens else tuple(tokens)
