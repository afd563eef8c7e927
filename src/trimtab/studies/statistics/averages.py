"""The average of a benchmark, as its papers take it: metrics of a task first, then tasks. Pure functions.

    average = 1/n sum over tasks t of  1/|M_t| sum over metrics m of t  of  mean over seeds of score(t, m)

SuperGLUE (Wang et al. 2019, section 4.1) has eight tasks; CB, MultiRC and ReCoRD have two metrics each. P-tuning (Liu
et al. 2021) and FewNLU (Zheng et al. 2022) average FewGLUE over seven, ReCoRD left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from trimtab.errors import DataError, suggest
from trimtab.studies.statistics.bootstrap import (
    Interval,
    by_task,
    generator,
    percentiles,
    resampled,
    widened_tail,
)

SUPERGLUE: Mapping[str, tuple[str, ...]] = {
    "boolq": ("accuracy",),
    "cb": ("accuracy", "macro_f1"),
    "copa": ("accuracy",),
    "multirc": ("f1a", "question_em"),
    "record": ("answer_f1", "answer_em"),
    "rte": ("accuracy",),
    "wic": ("accuracy",),
    "wsc": ("accuracy",),
}
"""The metrics of each task."""

FEWGLUE: Mapping[str, tuple[str, ...]] = {task: its for task, its in SUPERGLUE.items() if task != "record"}

Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""The metrics of each run, by task."""


@dataclass(frozen=True)
class Average:
    """The average over tasks.

    Attributes:
        mean: over all tasks.
        tasks: the score of each task, its metrics averaged.
        interval: of `mean`, where every task has two seeds or more.
    """

    mean: float
    tasks: Mapping[str, float]
    interval: Interval | None


def superglue_average(runs: Runs, **options: Any) -> Average:
    """SuperGLUE's average over its eight tasks, with an interval over seeds; see `average`.

    >>> one = {"boolq": 0.7, "copa": 0.6, "rte": 0.6, "wic": 0.6, "wsc": 0.6}
    >>> runs = {task: [{"accuracy": value}] for task, value in one.items()}
    >>> runs |= {"cb": [{"accuracy": 0.9, "macro_f1": 0.7}], "multirc": [{"f1a": 0.6, "question_em": 0.2}]}
    >>> runs |= {"record": [{"answer_f1": 0.5, "answer_em": 0.3}]}
    >>> round(superglue_average(runs).mean, 4)
    0.5875
    """
    return average(SUPERGLUE, runs, **options)


def fewglue_average(runs: Runs, **options: Any) -> Average:
    """FewGLUE's average over seven tasks, as P-tuning and FewNLU take it; see `average`."""
    return average(FEWGLUE, runs, **options)


def average(
    metrics: Mapping[str, Sequence[str]], runs: Runs, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Average:
    """The average over tasks, of each over its metrics first; tasks weigh equally however many runs they have.

    The interval is a bootstrap that draws seeds anew within each task, widened for small numbers of seeds as in
    `bootstrap_interval`.

    Args:
        metrics: the metrics of each task.
        runs: the metrics of each run, by task.

    Raises:
        DataError: a task without runs, one that is none of the benchmark's, or a run without a metric.
        ConfigError: `level` or `resamples` out of range.
    """
    scores = {task: [_score(run, names, task) for run in _its(runs, task)] for task, names in metrics.items()}
    for task in runs:
        if task not in metrics:
            raise DataError(f"{task!r} is no task of the benchmark.", where=task, fix=suggest(task, metrics))
    means = {task: fmean(its) for task, its in scores.items()}
    return Average(fmean(means.values()), means, _interval(scores, level, resamples, seed))


def _interval(scores: Mapping[str, Sequence[float]], level: float, resamples: int, seed: int) -> Interval | None:
    rng = generator(seed, level, resamples)
    if min(map(len, scores.values())) < 2:
        return None
    tasks = list(by_task(scores, least=2).values())
    draws = np.mean([resampled(its, resamples, rng).mean(axis=1) for its in tasks], axis=0)
    tail = widened_tail(level, sum(map(len, tasks)), len(tasks))
    return Interval(fmean(fmean(its) for its in scores.values()), *percentiles(draws, tail), level)


def _its(runs: Runs, task: str) -> Sequence[Mapping[str, float]]:
    if not runs.get(task):
        raise DataError(f"there are no runs of {task!r}.", where=task, fix="The average is over all tasks.")
    return runs[task]


def _score(run: Mapping[str, float], names: Sequence[str], task: str) -> float:
    for name in names:
        if name not in run:
            raise DataError(f"a run of {task!r} has no {name!r}.", where=task, fix=suggest(name, run) or None)
    return fmean(run[name] for name in names)
