"""Prompt length: how much of the context the prompt takes."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks

_MUCH, _TOO_MUCH = 0.25, 0.5
"""Shares of the positions from which on a note and a warning are due."""


@final
@checks.register("prompt_length")
class PromptLength(Check):
    """Does the prompt leave room for the text?"""

    topic = "text"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        slots, shift, room = case.rendering.template.length, case.stacked.text_shift, case.backbone.max_positions
        if not slots + shift:
            return
        there = case.rendering.max_length + shift
        texts = [len(v) - sum(place >= 0 for place in v.slots) for row in case.rows("train") for v in row.variants]
        share = (slots + shift) / there
        numbers = {"slots": slots, "shift": shift, "positions": there, "median_text": median(texts),
                   "longest_text": max(texts)}  # fmt: skip
        what = f"{slots} virtual tokens" if slots else f"a prompt that moves the text {shift} positions on"
        seen = f"{what} of {there} positions ({share:.0%}); texts have {median(texts):.0f} tokens, at most {max(texts)}"
        if share < _MUCH:
            yield Finding("ok", seen, numbers=numbers)
            return
        longer = "a larger task.max_length" if there < room else "a backbone with more positions"
        yield Finding(
            "warning" if share >= _TOO_MUCH else "note", seen, f"Take a shorter prompt.length, or {longer}.", numbers
        )
