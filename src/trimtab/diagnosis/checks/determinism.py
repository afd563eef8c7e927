"""Determinism: the same seeds give the same run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import FIRST_STEPS, Case
from trimtab.registry import checks


@final
@checks.register("determinism")
class Determinism(Check):
    """Are the first steps the same, bit for bit, when they are taken twice?"""

    topic = "training"

    def examine(self, case: Case) -> Iterator[Finding]:
        if not case.is_trained:
            return
        first, again = case.first, case.again()
        numbers = {"losses": list(first.losses), "again": list(again.losses)}
        if (first.digest, first.losses) == (again.digest, again.losses):
            yield Finding("ok", f"{FIRST_STEPS} steps taken twice are equal in every bit", numbers=numbers)
            return
        is_gpu = case.backbone.device.type == "cuda"
        yield Finding(
            "warning" if is_gpu else "problem",
            f"{FIRST_STEPS} steps taken twice from the same seeds differ: losses {_shown(first.losses)} and "
            f"{_shown(again.losses)}",
            "On a GPU, kernels may add in any order: report the spread over seeds."
            if is_gpu
            else "Look for random numbers that are not drawn from the seeds, in code of your own or of the model.",
            numbers,
        )


def _shown(losses: tuple[float, ...]) -> str:
    return ", ".join(f"{loss:.6g}" for loss in losses)
