"""Prompted: the prompt reaches what is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case, distance
from trimtab.prompt_table import PromptTable
from trimtab.registry import checks
from trimtab.types import Row

LEAST = 1e-5
"""What states must move by when the prompt changes, relative to their size; float32 rounds at a hundredth of it."""


@final
@checks.register("prompted")
class Prompted(Check):
    """Does another prompt give other states, and is a prompted row different from a bare one?"""

    topic = "model"

    def examine(self, case: Case) -> Iterator[Finding]:
        table = opened(case.table)
        names = [n for n, v in table.tensors.items() if v.numel() and not n.startswith(("head.", "router"))]
        if not names:
            return
        rows = case.sample
        kept = case.hidden(rows, table)
        moved = {n: _largest(case.hidden(rows, _changed(table, n, case.backbone.embedding_rms)), kept) for n in names}
        bare = self._from_bare(case)
        numbers = {"moved": moved, "from_bare": bare}
        deaf = [n for n, d in moved.items() if d < LEAST]
        if deaf:
            yield Finding(
                "problem",
                f"changing {' and '.join(deaf)} changes nothing that is read",
                "The prompt does not reach the answer: see `trimtab show RECIPE`, and put {prompt} before {answer}.",
                numbers,
            )
        elif bare is not None and bare < LEAST and case.table is table:
            what = "states are those of the bare model, though the prompt is there"
            yield Finding("problem", what, "See `trimtab show RECIPE`.", numbers)
        else:
            closed = "" if case.table is table else "; its gates are closed, so it begins as the bare model"
            apart = "" if bare is None else f", and begins {bare:.2g} away from the bare model"
            least = min(moved.values())
            seen = f"another prompt moves the states that are read by {least:.2g} of their size{apart}{closed}"
            yield Finding("ok", seen, numbers=numbers)

    def _from_bare(self, case: Case) -> float | None:
        """How far the prompted states are from those of the same rows without slots; None where they have others."""
        pairs = [(row, _bare(case, row)) for row in case.sample]
        known = [(row, bare) for row, bare in pairs if bare is not None]
        if not known:
            return None
        prompted = case.hidden([row for row, _ in known], case.table)
        return _largest(prompted, case.hidden([bare for _, bare in known], None))


def opened(table: PromptTable) -> PromptTable:
    """The table with its gates half open, that one can see through them; itself where it has none."""
    gates = {n: v + 0.5 for n, v in table.tensors.items() if n.startswith("gate.")}
    return table.with_tensors({**table.tensors, **gates}) if gates else table


def _changed(table: PromptTable, name: str, unit: float) -> PromptTable:
    """The table with other values in one of its parts."""
    value = table.tensors[name]
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value.device)
    size = unit if name in ("inputs", "text_offset") else float(value.float().square().mean().sqrt())
    return table.with_tensors({**table.tensors, name: value + size * noise})


def _bare(case: Case, row: Row) -> Row | None:
    """A row without slots; None where other places of it are read then."""
    part = case.each[row.readout].rendering
    rendering = replace(part, template=part.template.without_prompt())
    rows = rendering.rows(row.origin, case.encoder, -1)
    bare = replace(rows[row.part], label=row.label, readout=row.readout) if row.part < len(rows) else None
    same = bare is not None and all(
        len(a.answer_at) == len(b.answer_at) for a, b in zip(row.variants, bare.variants, strict=True)
    )
    return bare if same else None


def _largest(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(distance(a, b) for a, b in zip(found, expected, strict=True))
