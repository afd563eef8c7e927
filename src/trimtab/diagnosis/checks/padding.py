"""Padding: a row says the same alone, in a batch of mixed lengths, and on either padding side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from trimtab.batching import collate
from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case, distance
from trimtab.registry import checks
from trimtab.types import Row

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""How far states may be apart, relative to their size, by dtype: what rounding does, and far below what a pad that is
attended to does."""

_LOSS_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""In nats."""


@final
@checks.register("padding")
class Padding(Check):
    """Do pads and batch mates change nothing, on every side where the family may be padded?"""

    topic = "model"

    def examine(self, case: Case) -> Iterator[Finding]:
        rows, backbone = case.sample, case.backbone
        alone = [case.hidden([row], case.table)[0] for row in rows]
        sides = backbone.family.padding_sides
        apart = {
            side: max(distance(a, b) for a, b in zip(case.hidden(rows, case.table, side), alone, strict=True))
            for side in sides
        }
        losses = [abs(a - b) for a, b in zip(self._losses(case), self._losses_alone(case), strict=True)]
        numbers = {"states": apart, "loss": max(losses), "lengths": [row.cost for row in rows]}
        most, allowed = max(apart, key=lambda side: apart[side]), TOLERANCE.get(backbone.dtype, 0.05)
        its = ", ".join(f"{value:.2g} padded on the {side}" for side, value in apart.items())
        seen = f"in a batch of mixed lengths states move by {its} (of their size), losses by {max(losses):.2g} nats"
        if not apart[most] <= allowed or not max(losses) <= _LOSS_TOLERANCE.get(backbone.dtype, 0.1):
            yield Finding(
                "problem",
                seen,
                "A row's answer depends on its batch mates: report it with the backbone, or take "
                "backbone.attention=eager and another backbone in the meantime.",
                numbers,
            )
        else:
            yield Finding("ok", seen, numbers=numbers)

    @torch.no_grad()
    def _losses(self, case: Case) -> list[float]:
        return self._of(case, case.sample).tolist()

    @torch.no_grad()
    def _losses_alone(self, case: Case) -> list[float]:
        return [float(self._of(case, [row])[0]) for row in case.sample]

    @staticmethod
    def _of(case: Case, rows: Sequence[Row]) -> Tensor:
        model, backbone = case.model, case.backbone
        batch = collate(rows, backbone.pad_id, backbone.family.padding_side).to(backbone.device)
        return model.readout.loss(model.scores(batch, case.table), batch.labels).float().cpu()
