"""Unused columns: texts of the data that the template does not read."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks

_WORDS = 3
"""Words on average from which on a column is text, and no number, name or id."""

_LOOKED_AT = 100


@final
@checks.register("unused_columns")
class UnusedColumns(Check):
    """Is there text in the data that the model is not shown?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        rows = case.examples("train")[:_LOOKED_AT]
        unused = [f for f in rows[0].fields if f not in case.rendering.wanted(case.encoder)]
        texts = [f for f in unused if fmean(len(e.fields.get(f, "").split()) for e in rows) >= _WORDS]
        numbers = {"unused": unused, "texts": texts}
        if texts:
            advice = f"Write {' '.join(f'{{{f}}}' for f in texts)} into task.template, if that helps to answer."
            yield Finding("note", f"not read, though there is text in it: {', '.join(texts)}", advice, numbers)
            return
        others = f"; without text and not read: {', '.join(unused)}" if unused else ""
        yield Finding("ok", f"every column of text is read{others}", numbers=numbers)
