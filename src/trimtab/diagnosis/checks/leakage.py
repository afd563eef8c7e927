"""Leakage: rows of dev or test that are learned from, or reported rows that have selected the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.tasks import SPLITS

_MANY, _TOO_MANY = 0.01, 0.1
"""Shares of a split from which on its score flatters, and from which on it says nothing."""


@final
@checks.register("leakage")
class Leakage(Check):
    """Do rows of dev or test stand in train, too, or rows of test in dev?"""

    topic = "data"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        texts = {split: [case.read(e) for e in case.examples(split)] for split in SPLITS}
        train, dev = set(texts["train"]), set(texts["dev"])
        numbers = {
            "dev_in_train": sum(text in train for text in texts["dev"]),
            "test_in_train": sum(text in train for text in texts["test"]),
            "test_in_dev": sum(text in dev for text in texts["test"]),
        }
        share = max(numbers[pair] / len(texts[pair.partition("_")[0]]) for pair in numbers)
        if not share:
            yield Finding("ok", "no text of dev or test stands in train, none of test in dev", numbers=numbers)
            return
        its = ", ".join(f"{n} of {pair.replace('_', ' ')}" for pair, n in numbers.items() if n)
        rows = ", ".join(f"{len(texts[s])} of {s}" for s in ("dev", "test"))
        yield Finding(
            "problem" if share >= _TOO_MANY else "warning" if share >= _MANY else "note",
            f"rows with the same text: {its} (there are {rows})",
            "Remove repeated rows before the table is split, or give files of your own: task.dev=..., task.test=...",
            numbers,
        )
