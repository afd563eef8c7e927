"""Balance: how often each class is seen in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks

_UNEQUAL, _VERY_UNEQUAL = 3, 10
"""Rows of the most frequent class for one of the rarest, from which on a note and a warning are due."""

_NO_ENTITY = "O"


@final
@checks.register("balance")
class Balance(Check):
    """Are the classes about equally frequent in train?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        answer, rows = case.rendering.answer, case.examples("train")
        if answer == "tags":
            counts = Counter(tag.partition("-")[2] for e in rows for tag in e.tags if tag != _NO_ENTITY)
            noun = "words"
        elif answer in ("class", "choice", "infill") and case.rendering.verbalizer.classes:
            counts, noun = Counter(str(e.label) for e in rows), "rows"
        else:
            return
        if len(counts) < 2:
            return
        (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
        ratio, numbers = many / few, {"counts": dict(counts)}
        seen = f"{many} {noun} of {most!r}, {few} of {least!r}"
        if ratio < _UNEQUAL:
            yield Finding("ok", seen, numbers=numbers)
            return
        advice = "Select by a metric that counts classes equally: training.select=macro_f1."
        if answer == "tags":
            advice = f"Give more sentences with {least!r}, or read its score with care."
        elif answer != "class":
            advice = "Shuffle the choices of each row, so that their place says nothing."
        elif case.config.training.select == "macro_f1":
            advice = f"Give more rows of {least!r}, or an equal number of each: task.shots={few}."
        yield Finding("warning" if ratio >= _VERY_UNEQUAL else "note", f"{seen}: {ratio:.1f} to 1", advice, numbers)
