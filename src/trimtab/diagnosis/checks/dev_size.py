"""Dev size: how exactly dev can tell checkpoints apart, and test runs.

    [lo, hi] = Wilson's 95 % interval of a share of 0.8 on n rows

where n counts groups (questions, passages) where rows are scored in such.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from scipy.stats import binomtest

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks

_SHARE = 0.8
_WIDE, _VERY_WIDE = 0.1, 0.3
"""Widths of the interval from which on a note and a warning are due: below 245, and below 26 rows."""


@final
@checks.register("dev_size")
class DevSize(Check):
    """Are dev and test large enough to select on and to report?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        training = case.config.training
        for split in ("dev", "test"):
            rows = case.examples(split)
            n = len({e.group or (e.id,) for e in rows})
            low, high = binomtest(round(_SHARE * n), n).proportion_ci(method="wilson")
            noun = "rows" if n == len(rows) else "groups of rows"
            score = round(_SHARE * n) / n
            seen = f"{split}: a score of {score:.2f} on {n} {noun} may be {low:.2f} to {high:.2f} (95 %)"
            numbers = {"split": split, "n": n, "low": float(low), "high": float(high)}
            if high - low < _WIDE:
                yield Finding("ok", seen, numbers=numbers)
                continue
            if split == "test":
                advice = "Give more test rows, or report the spread over seeds: trimtab study."
            elif training.select == "loss":
                advice = "Give more dev rows, or report test alone."
            else:
                advice = (
                    f"The best of {training.evaluations} evaluations flatters: give more dev rows, or select by "
                    "training.select=loss."
                )
            yield Finding("warning" if high - low >= _VERY_WIDE else "note", seen, advice, numbers)
