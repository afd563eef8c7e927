"""Remarks: what reading the data has put right or could not use, as `trimtab run` notes it, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks


@final
@checks.register("remarks")
class Remarks(Check):
    """Was anything noted while the data was read?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        for note in (*case.prepared.task.notes, *case.prepared.notes):
            yield Finding("note", note, "Look at these rows, or know it when you read the results.")
