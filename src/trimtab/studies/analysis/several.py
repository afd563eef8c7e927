"""Runs on several tasks: what each task scores, where a line stands for their mean. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from trimtab.studies.analysis.lines import Line


def of_tasks(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """For every line whose runs are on several tasks its `label`, and by task the `metric` that stands for it and its
    `mean`, `sd` and `n` over seeds. A run without a result is left out here: its score stands in the headline."""
    found = []
    for line in lines:
        records = [r.run.record for r in line.reported if r.run.record.get("task_metrics") and not r.imputed]
        if records:
            tasks = {
                task: _summed(metric, [float(r["metrics"]["test"][f"{task}.{metric}"]) for r in records])
                for task, metric in records[0]["task_metrics"].items()
            }
            found.append({"label": line.label, "tasks": tasks})
    return found


def _summed(metric: str, scores: Sequence[float]) -> dict[str, Any]:
    sd = stdev(scores) if len(scores) > 1 else None
    return {"metric": metric, "mean": fmean(scores), "sd": sd, "n": len(scores)}
