"""Dropout: whether the backbone draws random numbers where nobody asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from torch import nn

from trimtab.diagnosis import Check, Finding, Severity
from trimtab.diagnosis.case import Case
from trimtab.registry import checks


@final
@checks.register("dropout")
class Dropout(Check):
    """Is dropout on in a frozen backbone, or off in one that is trained?"""

    topic = "model"

    def examine(self, case: Case) -> Iterator[Finding]:
        network, config = case.backbone.model, case.config
        layers = [m for m in network.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        numbers = {"layers": len(layers), "asked": config.backbone.dropout}
        if any(m.training for m in network.modules()):
            what = "the backbone is in training mode, so its scores are random"
            yield Finding("problem", what, "Load it anew, and let no code of your own call train().", numbers)
        elif config.backbone.dropout and not config.training.tunes_backbone:
            yield Finding(
                "warning",
                f"the frozen backbone's dropout is on in training steps ({len(layers)} layers)",
                "Gradients get noisy and packs hold one run; papers leave it off: backbone.dropout=false.",
                numbers,
            )
        elif config.training.tunes_backbone and not config.backbone.dropout:
            what = f"the backbone is trained without its dropout ({len(layers)} layers)"
            severity: Severity = "note" if layers else "ok"
            yield Finding(severity, what, "Papers that train it leave it on: backbone.dropout=true." if layers else "",
                          numbers)  # fmt: skip
        else:
            state = "on, as asked" if config.backbone.dropout else "off"
            yield Finding("ok", f"the backbone's dropout is {state}", numbers=numbers)
