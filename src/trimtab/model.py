"""PromptedModel = frozen backbone + prompt table + readout. Here, and in the training loop, the axes meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.batching import collate, micro_batches
from trimtab.injection import place_prompt
from trimtab.readouts import Readout
from trimtab.types import Batch, PromptTable, Row


@dataclass(frozen=True)
class PromptedModel:
    """Scores batches whose rows say which prompt they use.

    Gradients flow to the prompt table and to added perturbations, never to the backbone.
    """

    backbone: Backbone
    readout: Readout

    def embed(self, batch: Batch) -> Float[Tensor, "B T E"]:
        """Text embeddings; slots hold a filler until the prompt is placed."""
        with torch.no_grad():
            return self.backbone.family.embed(self.backbone.model, batch.ids)

    def scores(
        self, batch: Batch, table: PromptTable | None, delta: Float[Tensor, "B T E"] | None = None
    ) -> Float[Tensor, "X C"]:
        """Class scores [X,C] in float32.

        Args:
            batch: rows on the backbone's device.
            table: the prompts; None where every row is bare.
            delta: added to the text embeddings before the prompt is placed.

        A batch of bare rows takes the model's own path from ids, so it equals the bare model bit for bit.
        """
        if table is None or (batch.is_bare and delta is None):
            hidden = self.backbone.family.hidden(self.backbone.model, batch, None)
        else:
            embeds = self.embed(batch)
            if delta is not None:
                embeds = embeds + delta.to(embeds.dtype)
            hidden = self.backbone.family.hidden(self.backbone.model, batch, place_prompt(embeds, table, batch))
        at = batch.answer_at[..., None].expand(-1, -1, hidden.shape[-1])
        return self.readout.scores(hidden.gather(1, at), batch)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """A batch on the backbone's device, padded as the family needs."""
        backbone = self.backbone
        return collate(rows, backbone.pad_id, backbone.family.padding_side).to(backbone.device)

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Row], table: PromptTable | None, max_tokens: int) -> Float[Tensor, "N C"]:
        """Scores of many rows in their order, on the CPU, computed in batches of similar length.

        Args:
            max_tokens: tokens per batch, padding included.
        """
        if not rows:
            return torch.zeros(0, 0)
        scores: list[Tensor | None] = [None] * len(rows)
        for group in micro_batches([r.cost for r in rows], max_tokens):
            for i, row in zip(group, self.scores(self.collate([rows[i] for i in group]), table).cpu(), strict=True):
                scores[i] = row
        return torch.stack([s for s in scores if s is not None])

    def write_rows(self, rows: Sequence[Row], table: PromptTable | None, max_tokens: int) -> list[str]:
        """What the model writes for many rows, in their order; for readouts that write.

        Args:
            max_tokens: tokens per batch, padding and what is written included.
        """
        written = self.generate_rows(rows, table, max_tokens, self.readout.new_tokens)
        return [self.backbone.encoder.decode(ids) for ids in written]
