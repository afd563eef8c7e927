"""Save and load: a prompt that was written to a bundle says what it said before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import torch

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.loading import from_bundle
from trimtab.predictor import MAX_TOKENS
from trimtab.registry import checks
from trimtab.sizes import of_file
from trimtab.storage import Bundle, read_bundle, write_bundle
from trimtab.training.packs import outcome
from trimtab.training.preparing import Prepared
from trimtab.training.records import make_bundle

_EXAMPLES = 4
"""Of each task, that are scored before and after."""

_DEV_ROWS = 16
"""From which options are chosen that a readout chooses on dev."""


@final
@checks.register("save_load")
class SaveLoad(Check):
    """Are the scores of a saved and loaded prompt those of before, bit for bit?"""

    topic = "model"

    def examine(self, case: Case) -> Iterator[Finding]:
        with TemporaryDirectory() as scratch:
            trained = outcome([_few_rows(case.prepared)], case.loop, case.stacked)[0]
            bundle = make_bundle(trained)
            write_bundle(Path(scratch), bundle)
            loaded = read_bundle(Path(scratch))
            apart = [_apart(case, part, k, _of(loaded, part.task)) for k, part in enumerate(case.each)]
        size = sum(value.nbytes for value in (*bundle.tensors.values(), *bundle.tuned.values()))
        numbers = {"apart": max(apart), "bytes": size}
        if max(apart) > 0:
            yield Finding(
                "problem",
                f"scores of a prompt that was saved and loaded differ by {max(apart):.2g}",
                "What was trained would not be what is served: report it with the recipe.",
                numbers,
            )
        else:
            yield Finding(
                "ok", f"scores are equal in every bit after saving {of_file(size)} and loading it", numbers=numbers
            )


def _of(bundle: Bundle, task: str) -> Bundle:
    return bundle.of_task(task) if bundle.tasks else bundle


def _apart(case: Case, part: Case, task: int, bundle: Bundle) -> float:
    """The largest difference of scores, infinite where they have other shapes or are not numbers."""
    model, table = case.model.parts(case.table)[task]
    examples = list(part.examples("dev"))[:_EXAMPLES]
    rows = [row for e in examples for row in part.rendering.rows(e, part.encoder)]
    predictor = from_bundle(bundle, case.backbone)
    loaded = [row for e in examples for row in predictor.rendering.rows(e, part.encoder)]
    before = model.score_rows(rows, table, MAX_TOKENS)
    after = predictor.model.score_rows(loaded, predictor.table, MAX_TOKENS)
    if before.shape != after.shape:
        return float("inf")
    same = (before == after) | (before.isnan() & after.isnan())
    apart = torch.where(same, 0.0, (before.float() - after.float()).abs())
    return float(apart.nan_to_num(nan=torch.inf).max())


def _few_rows(p: Prepared) -> Prepared:
    """The run with few dev rows."""
    rows = {split: its[:_DEV_ROWS] if split == "dev" else its for split, its in p.rows.items()}
    return replace(p, rows=rows, parts=tuple(map(_few_rows, p.parts)))
