"""What the members of a pack are worth on dev: rows are scored, or written for, and measured task by task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from trimtab.batching import labels_of
from trimtab.grading import PLAIN, Grader, Grading
from trimtab.model import PromptedModel, stacked
from trimtab.prompt_table import PromptTable
from trimtab.readouts import chosen
from trimtab.training.parallel import Processes
from trimtab.types import Row


@runtime_checkable
class Examined(Protocol):
    """What is asked of a member of the pack. Its rows name the task that they are of (`Row.readout`)."""

    dev: Sequence[Row]
    grader: Grading


@dataclass(frozen=True)
class Judge:
    """Scores dev splits.

    Attributes:
        processes: share the work.
        max_tokens: per pass.
    """

    model: PromptedModel
    processes: Processes
    max_tokens: int

    def metrics(
        self, members: Mapping[int, Examined], table: PromptTable, *, writes: bool = True
    ) -> dict[int, dict[str, float]]:
        """Of some members, by their numbers in the pack: loss and metrics, see `Grading`.

        Args:
            writes: whether answers are written where the readout writes; else there is the loss only.
        """
        found: dict[int, list[dict[str, float]]] = {r: [] for r in members}
        for k, (model, own_table) in enumerate(self.model.parts(table)):
            dev = {r: [replace(row, prompt=r, readout=0) for row in m.dev if row.readout == k]
                   for r, m in members.items()}  # fmt: skip
            rows = [row for its in dev.values() for row in its]
            scores, texts = self._seen(model, own_table, rows, writes and model.readout.writes)
            at = 0
            for r, member in members.items():
                mine = slice(at, at := at + len(dev[r]))
                grader = list(member.grader.parts.values())[k]
                written = None if texts is None else texts[mine]
                found[r].append(dev_metrics(model, scores[mine], rows[mine], written, grader))
        return {r: members[r].grader.combined(its) for r, its in found.items()}

    def rehearse(self, rows: Sequence[Row], table: PromptTable) -> None:
        """Score rows and keep nothing."""
        for k, (model, own_table) in enumerate(self.model.parts(table)):
            own = [replace(row, readout=0) for row in rows if row.readout == k]
            model.score_rows(own, own_table, self.max_tokens)

    def _seen(
        self, model: PromptedModel, table: PromptTable | None, rows: Sequence[Row], writes: bool
    ) -> tuple[Float[Tensor, "N *C"], Sequence[str] | None]:
        """Scores of rows and, if asked for, what the model writes for them."""
        costs = [row.cost for row in rows]

        def score(part: Sequence[Row]) -> Tensor:
            return model.score_rows(part, table, self.max_tokens)

        def write(part: Sequence[Row]) -> Sequence[str]:
            return model.write_rows(part, table, self.max_tokens)

        scores = stacked(self.processes.merged(rows, costs, score))
        return scores, self.processes.merged(rows, costs, write) if writes else None


def dev_metrics(
    model: PromptedModel,
    scores: Float[Tensor, "N *C"],
    rows: Sequence[Row],
    written: Sequence[str] | None = None,
    grader: Grader = PLAIN,
) -> dict[str, float]:
    """Mean loss of scored rows, and metrics: of the readout's answers, or of what was written (if anything was)."""
    readout = model.readout
    loss = float(readout.loss(scores, labels_of(rows, scores.shape[1])).mean())
    if readout.writes and written is None:
        return {"loss": loss}
    if not math.isfinite(loss):
        return {"loss": loss, **dict.fromkeys(grader.names(readout.metrics), 0.0)}
    if written is None:
        found = grader.measure(readout, scores, rows, **chosen(readout, scores, rows))
    else:
        found = grader.measure_texts(readout, rows, written)
    return {"loss": loss, **{name: found[name] for name in grader.names(readout.metrics)}}


def merit(dev: Mapping[str, float], select: str) -> tuple[float, float]:
    """What the checkpoint is picked by: larger is better, and ties go to the lower loss."""
    return (-dev["loss"] if select == "loss" else dev[select], -dev["loss"])
