"""Frozen: the shared backbone stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import FIRST_STEPS, Case
from trimtab.registry import checks


@final
@checks.register("frozen")
class Frozen(Check):
    """Do the first steps leave the backbone as it is?"""

    topic = "training"

    def examine(self, case: Case) -> Iterator[Finding]:
        open_ones = [n for n, p in case.backbone.model.named_parameters() if p.requires_grad]
        touched = list(case.first.touched) if case.is_trained else []
        numbers = {"changed": touched, "require_gradients": open_ones}
        if open_ones or touched:
            what = f"{len(touched)} weights changed" if touched else f"{len(open_ones)} weights require gradients"
            which = (touched or open_ones)[0]
            advice = "Load the backbone anew, and let no code of your own train it."
            yield Finding("problem", f"of the shared backbone {what}, such as {which}", advice, numbers)
            return
        count = f"{case.backbone.parameter_count:,} weights"
        copied = "; the run trains a copy of its own" if case.config.training.tunes_backbone else ""
        yield Finding("ok", f"{count} are the same after {FIRST_STEPS} steps{copied}", numbers=numbers)
