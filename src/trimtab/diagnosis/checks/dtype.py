"""Dtype: whether the device computes in it, and whether scores stay finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch

from trimtab.backbones.loading import resolve_dtype
from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks


@final
@checks.register("dtype")
class Dtype(Check):
    """Does the device compute in the backbone's dtype, with finite results?"""

    topic = "model"

    def examine(self, case: Case) -> Iterator[Finding]:
        backbone = case.backbone
        name, device = str(backbone.dtype).removeprefix("torch."), backbone.device
        hidden = case.hidden(case.sample, case.table)
        broken = sum(not bool(h.isfinite().all()) for h in hidden)
        fast = resolve_dtype("auto", device)
        numbers = {"dtype": name, "device": str(device), "broken": broken}
        if broken:
            what = f"{broken} of {len(hidden)} rows have states that are not finite in {name}"
            yield Finding("problem", what, "Use backbone.dtype=float32.", numbers)
        elif backbone.dtype == torch.bfloat16 and fast == torch.float32:
            what = f"this {device.type} does not compute in bfloat16 and imitates it, which is slow"
            yield Finding("warning", what, "Use backbone.dtype=float32, or auto.", numbers)
        elif backbone.dtype == torch.float32 and fast == torch.bfloat16 and not case.config.training.tunes_backbone:
            what = f"float32 on {device.type}, which computes in bfloat16, too"
            yield Finding("ok", f"{what} (faster: backbone.dtype=auto)", numbers=numbers)
        else:
            yield Finding("ok", f"{name} on {device.type}, states are finite", numbers=numbers)
