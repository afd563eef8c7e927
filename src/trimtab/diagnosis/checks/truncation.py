"""Truncation: how much text is cut off, and that slots and answers never are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.registry import checks
from trimtab.tasks import SPLITS
from trimtab.types import Row

_MANY = 0.05
"""Share of the rows of a split that is worth a warning."""


@final
@checks.register("truncation")
class Truncation(Check):
    """How many rows are cut, what is cut first, and are all slots and answers there?"""

    topic = "text"
    of_each_task = True

    def examine(self, case: Case) -> Iterator[Finding]:
        rendering = case.rendering
        lost = sum(_is_torn(row, rendering.template.length) for s in SPLITS for row in case.rows(s))
        if lost:
            what = f"{lost} rows have lost slots of the prompt or places where the answer is read"
            yield Finding("problem", what, "This is a defect: please report it with the recipe.", {"torn": lost})
        cut = {split: _cut(case.rows(split)) for split in SPLITS}
        unread = sum(max(0, len(r.origin.tags) - len(r.encoded.answer_at)) for s in cut for r in case.rows(s))
        numbers = {**{s: {"rows": n, "share": share, "tokens": tokens} for s, (n, share, tokens) in cut.items()},
                   "max_length": rendering.max_length, "unread_words": unread}  # fmt: skip
        worst = max(share for _, share, _ in cut.values())
        if not worst:
            yield Finding("ok", f"no row is cut to the {rendering.max_length} positions there are", numbers=numbers)
            return
        order = rendering.template.truncate
        first = f"{{{order[0]}}} first" if order else "the longest field first"
        its = ", ".join(f"{share:.1%} of {s}" for s, (n, share, _) in cut.items() if n)
        tokens = max(tokens for _, _, tokens in cut.values())
        words = f", {unread} words with tags are not read" if unread else ""
        room = case.backbone.max_positions
        longer = f"Raise task.max_length (the backbone has {room}). " if rendering.max_length < room else ""
        yield Finding(
            "warning" if worst >= _MANY else "note",
            f"cut to {rendering.max_length} positions, {first}: {its}, by {tokens:.0f} tokens on average{words}; slots "
            "and answers are kept",
            f"{longer}Say what may be cut first (task.truncate=[FIELD]), or shorten the prompt (prompt.length).",
            numbers,
        )


def _is_torn(row: Row, length: int) -> bool:
    """Whether something of a row is missing that must never be."""
    for its in row.variants:
        slots = [max(pair) for pair in zip(its.slots, its.decoder_slots or its.slots, strict=True)]
        end = len(its.decoder) or len(its)
        if len(slots) != length or min(slots, default=0) < 0 or len(set(slots)) < len(slots) - bool(its.decoder_slots):
            return True
        if any(not 0 <= place < end for place in its.answer_at) or not (its.answer_at or row.origin.words):
            return True
    return False


def _cut(rows: Sequence[Row]) -> tuple[int, float, float]:
    """How many rows are cut, what share that is, and by how many tokens on average."""
    dropped = [most for row in rows if (most := max(v.dropped for v in row.variants))]
    return len(dropped), len(dropped) / len(rows), sum(dropped) / max(1, len(dropped))
