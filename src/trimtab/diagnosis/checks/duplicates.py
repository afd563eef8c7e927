"""Duplicates: training rows with the same text, with the same answer or with another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, final

from trimtab.diagnosis import Check, Finding, Severity
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.types import Example

_MANY_CONTRADICT, _MANY_REPEAT = 0.01, 0.05
"""Shares of the training rows that are worth a warning, and a note."""


@final
@checks.register("duplicates")
class Duplicates(Check):
    """Do training rows repeat, or contradict each other?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        rows = case.examples("train")
        answers: dict[tuple[str, ...], list[Any]] = defaultdict(list)
        for example in rows:
            answers[case.read(example)].append(_answer(example))
        repeated = sum(len(its) - 1 for its in answers.values())
        torn = sum(len(its) for its in answers.values() if len(set(its)) > 1)
        numbers = {"repeated": repeated, "contradicting": torn, "rows": len(rows)}
        severity: Severity
        if torn:
            is_wrong = case.rendering.answer not in ("word", "text")  # of these there may be several right ones
            severity = "warning" if is_wrong and torn >= _MANY_CONTRADICT * len(rows) else "note"
            seen = f"{torn} of {len(rows)} training rows have a text that stands there with another answer, too"
            yield Finding(severity, seen, "Look at these rows, and remove or correct them.", numbers)
        elif repeated:
            severity = "note" if repeated >= _MANY_REPEAT * len(rows) else "ok"
            advice = "Remove them, or mean them to count twice." if severity == "note" else ""
            yield Finding(severity, f"{repeated} of {len(rows)} training rows repeat another", advice, numbers)
        else:
            yield Finding("ok", f"{len(rows)} training rows, all different", numbers=numbers)


def _answer(example: Example) -> Any:
    return example.label, example.tags, example.answers
