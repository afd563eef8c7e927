"""Majority: what a constant answer scores in the metric that stands for the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.training.records import constant_score
from trimtab.training.settling import headline

_HIGH = 0.9
"""Where a constant answer scores this, little is left for a prompt."""


@final
@checks.register("majority")
class Majority(Check):
    """What does always giving the same answer score?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        p = case.prepared
        found = {split: constant_score(p, split) for split in ("dev", "test")}
        scores = {split: value for split, value in found.items() if value is not None}
        if not scores:
            return
        metric = headline(p.config, p.task)
        its = ", ".join(f"{value:.3f} on {split}" for split, value in scores.items())
        seen, numbers = f"the best constant answer scores {its} ({metric})", {"metric": metric, **scores}
        if max(scores.values()) < _HIGH:
            yield Finding("ok", seen, numbers=numbers)
        else:
            advice = "Select and report what counts classes equally: training.select=macro_f1."
            if metric not in ("accuracy", "macro_f1"):
                advice = "Compare with this number, and look for rows with other answers."
            yield Finding("warning", seen, advice, numbers)
