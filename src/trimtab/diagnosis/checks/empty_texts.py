"""Empty texts: rows of which the model reads less than the template has room for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.tasks import SPLITS

_MANY = 0.05
"""Share of the rows that is worth a warning."""


@final
@checks.register("empty_texts")
class EmptyTexts(Check):
    """Are fields that the template reads empty?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        rows = [e for split in SPLITS for e in case.examples(split)]
        fields = [f for f in case.rendering.template.fields if f in case.rendering.wanted(case.encoder)]
        empty = {f: sum(not e.fields.get(f, "").strip() for e in rows) for f in fields}
        numbers = {"empty": empty, "rows": len(rows)}
        worst = max(empty.values(), default=0)
        if not worst:
            yield Finding("ok", f"no field is empty in {len(rows)} rows", numbers=numbers)
            return
        its = ", ".join(f"{{{f}}} in {n}" for f, n in empty.items() if n)
        yield Finding(
            "warning" if worst >= _MANY * len(rows) else "note",
            f"empty: {its} of {len(rows)} rows",
            "Fill them, remove these rows, or leave the field out of task.template.",
            numbers,
        )
