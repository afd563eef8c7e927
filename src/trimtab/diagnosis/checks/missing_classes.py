"""Missing classes: those that no training row teaches, or no scored row asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.tasks import SPLITS
from trimtab.types import Example


@final
@checks.register("missing_classes")
class MissingClasses(Check):
    """Does every class of the task have rows in every split?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        answer, known = case.rendering.answer, case.rendering.verbalizer.classes
        if answer not in ("class", "tags") or not known:
            return
        present = {s: _present(case.examples(s)) for s in SPLITS}
        classes = {*known}.union(*present.values())  # tags are those of train; dev and test may have others
        gone = {s: sorted(classes - its) for s, its in present.items()}
        numbers = {"missing": gone}
        if not any(gone.values()):
            yield Finding("ok", f"all {len(classes)} classes have rows in train, dev and test", numbers=numbers)
        elif gone["train"]:
            yield Finding(
                "warning",
                f"no row of train has {_named(gone['train'])}, so it can only be guessed",
                "Give rows of it (more task.shots, another split_seed), or leave it out of the task.",
                numbers,
            )
        else:
            its = " and ".join(f"{_named(gone[s])} is not in {s}" for s in ("dev", "test") if gone[s])
            advice = "Read macro-F1 with care: a class that is not there counts as 0. More rows would help."
            yield Finding("note", its, advice, numbers)


def _present(rows: Sequence[Example]) -> set[str]:
    return {e.label for e in rows if e.label} | {tag for e in rows for tag in e.tags}


def _named(classes: list[str]) -> str:
    return ", ".join(map(repr, classes))
