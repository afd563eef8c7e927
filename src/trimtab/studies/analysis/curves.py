"""What a study shows along something: learning rates, prompt lengths, training steps; and which classes are confused.

Plain data, read from run folders.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from trimtab.errors import DataError
from trimtab.files import read_jsonl
from trimtab.studies.analysis.lines import Line, Scored, Setting, choose, fixed, labels_of, part
from trimtab.studies.analysis.pairs import attempt
from trimtab.studies.definition import StudyConfig
from trimtab.studies.folder import StudyRun
from trimtab.studies.statistics.stability import rate_sensitivity, summary
from trimtab.studies.statistics.variance import variance_components

RATE = re.compile(r"training\.learning_rates?(\..+)?")
LENGTH = "prompt.length"
NO_ANSWER = "(no class)"


def along(study: StudyConfig, lines: Sequence[Line], axis: str) -> list[dict[str, Any]]:
    """For every combination of the other compared axes, the runs at each value of an axis that has numbers.

    Where other axes are tuned too, each value is shown with the setting of those that is best on dev.
    """
    axes = [a for a in study.compared if a != axis]
    groups: dict[str, dict[float, list[Setting]]] = {}
    cells: dict[str, dict[str, Any]] = {}
    for line in lines:
        name = fixed(part(line.cell, axes))
        cells.setdefault(name, part(line.cell, axes))
        for setting in line.settings:
            value = {**line.cell, **setting.cell}.get(axis)
            if (number := _as_number(value)) is not None:
                groups.setdefault(name, {}).setdefault(number, []).append(setting)
    labels = labels_of([cells[name] for name in groups], axes)
    found = []
    for label, by_value in zip(labels, groups.values(), strict=True):
        chosen = {v: s for v, s in ((v, choose(by_value[v])) for v in sorted(by_value)) if s is not None}
        if len(chosen) > 1:
            found.append({"label": label, "points": [_point(v, s) for v, s in chosen.items()], "settings": chosen})
    return found


def _as_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _point(value: float, setting: Setting) -> dict[str, Any]:
    scores = setting.tests()
    facts = asdict(summary(scores))
    return {
        "value": value,
        "setting": setting.label,
        "n": len(scores),
        "missing": setting.missing,
        "dev_mean": setting.dev_mean,
        "mean": facts["mean"],
        "sd": facts["sd"],
        "worst": facts["min"],
        "best": facts["max"],
        "collapsed": sum(r.collapsed for r in setting.runs),
        "scores": scores,
        "dev_scores": [r.dev for r in setting.runs],
        "seeds": [r.seed for r in setting.runs],
        "parameters": next((r.run.record.get("parameters") for r in setting.runs if not r.imputed), None),
    }


def rates(study: StudyConfig, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Sensitivity to every learning rate that is an axis: all runs of the grid, on test and on dev."""
    found = []
    for axis in (a for a in study.grid if RATE.fullmatch(a)):
        curves = along(study, lines, axis)
        for curve in curves:
            chosen: dict[float, Setting] = curve.pop("settings")
            if min(chosen) <= 0:
                continue
            for split in ("test", "dev"):
                curve[split] = _sensitivity(chosen, split, study.matters)
            best = choose(list(chosen.values()))
            curve["chosen"] = next(value for value, setting in chosen.items() if setting is best)
        curves = [c for c in curves if "test" in c]
        if curves:
            found.append({"axis": axis, "searched": study.search is not None, "curves": curves})
    return found


def _sensitivity(chosen: Mapping[float, Setting], split: str, tolerance: float) -> dict[str, Any] | None:
    seeds = [[r.seed for r in s.runs] for s in chosen.values()]
    by_rate = {v: [getattr(r, split) for r in s.runs] for v, s in chosen.items()}
    shared = all(its == seeds[0] for its in seeds)
    found = attempt(lambda: rate_sensitivity(by_rate, tolerance=tolerance, shared_seeds=shared, resamples=2_000))
    return asdict(found) if found else None


def lengths(study: StudyConfig, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Mean and spread at each prompt length, where that is an axis."""
    curves = along(study, lines, LENGTH) if LENGTH in study.grid else []
    return [{k: v for k, v in curve.items() if k != "settings"} for curve in curves]


def components(study: StudyConfig, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Where the variance of test scores comes from, for every line, where seed factors are crossed."""
    factors = [f for f in study.factors if len({s[f] for s in _seed_sets(lines)}) > 1]
    if not factors:
        return []
    found = []
    for line in lines:
        table = [({f: r.run.seeds[f] for f in factors}, r.test) for r in line.reported]
        try:
            its = asdict(variance_components(table, factors)) if table else None
            reason = "" if table else "no run has ended"
        except DataError as error:  # not balanced, one level: said on the page
            its, reason = None, str(error)
        found.append({"label": line.label, "factors": factors, "found": its, "reason": reason})
    return found


def _seed_sets(lines: Sequence[Line]) -> list[Mapping[str, int]]:
    return [r.run.seeds for line in lines for r in line.reported]


def learning_curves(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Every evaluation of every run of the chosen settings."""
    return [
        {
            "label": line.label,
            "metric": line.metric,
            "seeds": [c for r in line.reported if (c := _curve(r, line.metric))],
        }
        for line in lines
    ]


def _curve(run: Scored, metric: str) -> dict[str, Any] | None:
    events = run.run.events()
    if not events:
        return None
    dev = [e.get("dev") or {} for e in events]
    return {
        "seed": run.seed,
        "run": run.run.name,
        "steps": [e["step"] for e in events],
        "dev": [_rounded(d.get(metric)) for d in dev],
        "dev_loss": [_rounded(d.get("loss")) for d in dev],
        "train_loss": [_rounded(e.get("train_loss")) for e in events],
        "best_step": run.run.record.get("best_step"),
    }


def _rounded(value: Any) -> float | None:
    return round(float(value), 5) if isinstance(value, int | float) and math.isfinite(value) else None


def confusion(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Gold against predicted classes of the test split, summed over the runs of the chosen setting."""
    found = []
    for line in lines:
        counts: Counter[tuple[str, str]] = Counter()
        classes: dict[str, None] = {}
        runs = 0
        for r in line.reported:
            stated = ((r.run.record.get("metrics") or {}).get("test") or {}).get("confusion")
            if not stated:
                continue
            classes |= dict.fromkeys(stated["classes"])
            runs += 1
            counts += _answers(r.run, stated)
        if not counts:
            continue
        answers = [*classes, *([NO_ANSWER] if any(a == NO_ANSWER for _, a in counts) else [])]
        table = [[counts[gold, answer] for answer in answers] for gold in classes]
        found.append({"label": line.label, "classes": list(classes), "answers": answers, "counts": table, "runs": runs})
    return found


def _answers(run: StudyRun, stated: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """How often each class got each answer: from the predictions, or where they lie elsewhere from the record, which
    does not count answers that are no class."""
    classes = stated["classes"]
    if run.folder is None:
        pairs = ((gold, answer, n) for gold, row in zip(classes, stated["counts"], strict=True)
                 for answer, n in zip(classes, row, strict=True))  # fmt: skip
        return Counter({(gold, answer): n for gold, answer, n in pairs if n})
    found = read_jsonl(run.folder / "predictions.test.jsonl")
    return Counter((str(p.get("gold")), str(p["label"] if p.get("label") in classes else NO_ANSWER)) for p in found)


def mean_of(values: Sequence[float | int | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    there = [v for v in values if v is not None]
    return fmean(there) if there else None
