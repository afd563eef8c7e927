"""Lines of a study side by side: each with the baseline, all pairs, and methods over several tasks. Plain data.

Lines of different tasks are never compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import fmean
from typing import Any, TypeVar

from trimtab.errors import DataError
from trimtab.metric_names import METRIC_NAMES
from trimtab.studies.analysis.benchmarks import benchmark_average
from trimtab.studies.analysis.lines import TASK_AXES, Line, fixed, labels_of, part, same
from trimtab.studies.definition import StudyConfig
from trimtab.studies.statistics.bootstrap import Interval, bootstrap_interval
from trimtab.studies.statistics.comparison import Difference, difference, paired_difference, probability_of_improvement
from trimtab.studies.statistics.multiplicity import holm
from trimtab.studies.statistics.spread import SpreadRatio, variance_ratio
from trimtab.studies.statistics.verdicts import verdict, verdict_on_spread

T = TypeVar("T")

MANY_PAIRS = 45
RESAMPLES, RESAMPLES_MANY = 10_000, 2_000
"""Bootstrap draws for each comparison; fewer where there are more than `MANY_PAIRS`."""


def baselines_of(study: StudyConfig, lines: Sequence[Line], line: Line) -> list[Line]:
    """What a line is compared with: of its task, the lines with the values that the study's `baseline` names, and in
    the axes that it does not name the line's own; where it names none, the first of the task.
    """
    among = [other for other in lines if other.task == line.task]
    axes = [a for a in study.compared if a not in TASK_AXES]
    found = list[Line]()
    for named in study.baselines or [{}]:
        here = {k: v for k, v in named.items() if k not in TASK_AXES}
        wanted = part({**line.cell, **here}, axes)
        found.append(next((other for other in among if here and same(part(other.cell, axes), wanted)), among[0]))
    return list({base.label: base for base in found}.values())


def compare(study: StudyConfig, lines: Sequence[Line]) -> dict[str, Any]:
    """All comparisons: `baseline` (every other line less its baselines) and `pairs` (all of a task), each a family of
    its own for Holm's correction."""
    bases = [baselines_of(study, lines, line) for line in lines]
    of_baseline: dict[frozenset[str], tuple[Line, Line]] = {}  # two baselines are compared one way only
    for line, its in zip(lines, bases, strict=True):
        for base in (base for base in its if base is not line):
            of_baseline.setdefault(frozenset((line.label, base.label)), (line, base))
    pairs = [(b, a) for a, b in combinations(lines, 2) if a.task == b.task]
    resamples = RESAMPLES if len(pairs) <= MANY_PAIRS else RESAMPLES_MANY
    return {
        "level": 0.95,
        "resamples": resamples,
        "correction": "Holm",
        "matters": study.matters,
        "baselines": list(dict.fromkeys(base.label for its in bases for base in its)),
        "baseline": _family(list(of_baseline.values()), study.matters, resamples),
        "pairs": _family(pairs, study.matters, resamples),
    }


def _family(pairs: Sequence[tuple[Line, Line]], matters: float, resamples: int) -> list[dict[str, Any]]:
    """Comparisons whose p values are corrected together."""
    found = [_pair(a, b, resamples) for a, b in pairs]
    means = _corrected([d.p if d else None for d, _, _ in found])
    spreads = _corrected([s.p if s else None for _, s, _ in found])
    several, out = sum(d is not None for d, _, _ in found) > 1, []
    for (a, b), (d, s, better), p, p_spread in zip(pairs, found, means, spreads, strict=True):
        told = spread_told = None
        if d:
            told = verdict(d, a=a.label, b=b.label, adjusted_p=p if several else None, matters=matters)
        if s:
            spread_told = verdict_on_spread(s, a=a.label, b=b.label, adjusted_p=p_spread if several else None)
        out.append(
            {
                "a": a.label,
                "b": b.label,
                "task": a.task,
                "metric": a.metric,
                "difference": asdict(d) if d else None,
                "p": d.p if d else None,
                "p_adjusted": p,
                "improvement": asdict(better) if better else None,
                "spread": asdict(s) if s else None,
                "spread_p_adjusted": p_spread,
                "verdict": asdict(told) if told else _untold(a, b),
                "spread_verdict": asdict(spread_told) if spread_told else None,
            }
        )
    return out


def _untold(a: Line, b: Line) -> dict[str, Any]:
    sentence = (
        f"Not enough seeds to tell whether {a.label} or {b.label} is better: {len(a.reported)} and {len(b.reported)} "
        "runs, too few to compare."
    )
    return {"outcome": "not_enough_seeds", "sentence": sentence, "seeds_needed": None}


def _pair(a: Line, b: Line, resamples: int) -> tuple[Difference | None, SpreadRatio | None, Interval | None]:
    if not a.chosen or not b.chosen:
        return None, None, None
    one, other, scores = a.chosen.by_seed(), b.chosen.by_seed(), (a.chosen.tests(), b.chosen.tests())
    alone = min(len(one), len(other)) == 1 and bool(one.keys() & other.keys())
    compute = paired_difference if alone else difference
    return (
        attempt(lambda: compute(one, other, resamples=resamples)),
        attempt(lambda: variance_ratio(*scores, resamples=resamples)),
        attempt(lambda: probability_of_improvement(*scores, resamples=resamples)),
    )


def attempt(compute: Callable[[], T]) -> T | None:
    """A statistic, or None where there are too few runs for it."""
    try:
        return compute()
    except DataError:
        return None


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]


def aggregate(study: StudyConfig, lines: Sequence[Line]) -> dict[str, Any] | None:
    """Methods over all tasks; None where the study has a single one. A method that lacks a task has no aggregate."""
    tasks = list(dict.fromkeys(line.task for line in lines))
    if len(tasks) < 2:
        return None
    axes = [a for a in study.compared if a not in TASK_AXES]
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(fixed(part(line.cell, axes)), []).append(line)
    labels = labels_of([part(its[0].cell, axes) for its in groups.values()], axes)
    scores = [{line.task: line.chosen.tests() for line in its if line.chosen} for its in groups.values()]
    bases = [baselines_of(study, lines, its[0])[0] for its in groups.values()]
    at = [next(i for i, its in enumerate(groups.values()) if base in its) for base in bases]
    methods = [
        {"label": label, "lines": [line.label for line in of], "baseline": None if i == k else labels[k],
         **_over_tasks(its, None if i == k else scores[k], len(tasks)), "others": other_means(of),
         "benchmark": benchmark_average(of)}
        for i, (k, label, its, of) in enumerate(zip(at, labels, scores, groups.values(), strict=True))
    ]  # fmt: skip
    metrics = sorted({line.metric for line in lines if line.metric})
    return {"tasks": tasks, "metrics": metrics, "methods": methods}


def other_means(lines: Sequence[Line]) -> dict[str, dict[str, float | int]]:
    """Other metrics than the one that stands for the runs: the mean over seeds, then over the tasks that have it, and
    how many these are. A task has it if every run that is reported does."""
    found: dict[str, list[float]] = {}
    for line in lines:
        tests = [(r.run.record.get("metrics") or {}).get("test") or {} for r in line.reported]
        for name in METRIC_NAMES:
            values = [test[name] for test in tests if isinstance(test.get(name), int | float)]
            if name != line.metric and values and len(values) == len(tests):
                found.setdefault(name, []).append(fmean(values))
    return {name: {"mean": fmean(found[name]), "tasks": len(found[name])} for name in METRIC_NAMES if name in found}


def _over_tasks(
    scores: Mapping[str, list[float]], base: Mapping[str, list[float]] | None, tasks: int
) -> dict[str, Any]:
    means = {task: fmean(its) for task, its in scores.items()}
    interval = better = None
    if len(scores) == tasks:
        interval = attempt(lambda: bootstrap_interval(scores, "iqm", widen=True))
        better = None if base is None else attempt(lambda: probability_of_improvement(scores, base))
    return {
        "tasks": means,
        "runs": sum(len(its) for its in scores.values()),
        "mean": fmean(means.values()) if len(means) == tasks else None,
        "iqm": asdict(interval) if interval else None,
        "improvement": asdict(better) if better else None,
    }
