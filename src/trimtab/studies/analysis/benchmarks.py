"""Which lines of a study are a benchmark's tasks, and their average over it. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trimtab.studies.analysis.lines import Line, Scored
from trimtab.studies.statistics.averages import FEWGLUE, SUPERGLUE, average

BENCHMARKS: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "superglue": ("superglue_average", SUPERGLUE),
    "fewglue": ("fewglue_average", FEWGLUE),
    "fewglue_32dev": ("fewglue_average", FEWGLUE),
}
"""Folder of presets -> what its average is called, and the metrics of its tasks."""


def benchmark_average(lines: Sequence[Line]) -> dict[str, Any] | None:
    """The average of a method over a benchmark: `name`, `mean`, `tasks`, `interval`. None where its lines are not the
    tasks of one benchmark, each once, or where one has no runs yet.

    Presets that read a task in another way, such as `superglue/cb_text`, count as the task. A run that has failed
    counts with the constant answer, as everywhere. Of FewGLUE, ReCoRD is left out.
    """
    placed = [line.task.partition("/") for line in lines]
    folders, tasks = {folder for folder, _, _ in placed}, [task.partition("_")[0] for _, _, task in placed]
    if len(folders) != 1 or not folders <= BENCHMARKS.keys() or len(set(tasks)) < len(tasks):
        return None
    name, metrics = BENCHMARKS[folders.pop()]
    runs = {task: [_metrics(r, metrics[task]) for r in line.reported] for task, line in zip(tasks, lines, strict=True)
            if task in metrics}  # fmt: skip
    if runs.keys() != metrics.keys() or not all(runs.values()):
        return None
    found = average(metrics, runs)
    return {"name": name, "mean": found.mean, "tasks": dict(found.tasks),
            "interval": asdict(found.interval) if found.interval else None}  # fmt: skip


def _metrics(scored: Scored, names: Sequence[str]) -> dict[str, float]:
    """The metrics of a run on test; its score stands for those that it does not have."""
    test = (scored.run.record.get("metrics") or {}).get("test") or {}
    return {name: float(test.get(name, scored.test)) for name in names}
