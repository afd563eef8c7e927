"""A study folder -> study.json: everything the report says, as plain data. Reads files only; no torch.

study plan schema metric rule verdict complete counts     what was done, and what it comes to
lines                                                     a headline row for every combination of compared axes
of_tasks                                                  the tasks of lines whose runs have several
comparisons aggregate                                     lines with each other; methods over tasks
rates lengths components confusion curves stability       present where the study has them, else empty
surfaces                                                  empty here; the report puts landscapes there
environment fingerprints cost problems runs               where the numbers come from
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trimtab.documents import read_yaml
from trimtab.studies.analysis.curves import components, confusion, learning_curves, lengths, mean_of, rates
from trimtab.studies.analysis.findings import findings
from trimtab.studies.analysis.lines import RULE, RULE_REST, RULE_SEARCH, Line, Scored, build_lines, part
from trimtab.studies.analysis.pairs import aggregate, attempt, compare
from trimtab.studies.analysis.several import of_tasks
from trimtab.studies.analysis.sharpness import numbers, read, stability
from trimtab.studies.definition import STREAMS, StudyConfig, check_study
from trimtab.studies.folder import StudyFolder, StudyRun
from trimtab.studies.statistics.bootstrap import bootstrap_interval
from trimtab.studies.statistics.stability import collapse_rate, summary

ANALYSIS_SCHEMA = 1
LEVEL = 0.95


def analyse(folder: StudyFolder, runs: Sequence[StudyRun] | None = None) -> dict[str, Any]:
    """The content of study.json.

    Args:
        runs: of the folder, where they have been read; that hashes every file of every run.

    Raises:
        TrimtabError: not a study folder, or of another schema version.
        BundleError: a file of a run is not as it was when the run ended.
    """
    plan, runs = folder.plan, folder.read() if runs is None else runs
    study = check_study(read_yaml(folder.path / "study.yaml"))
    lines = build_lines(study, runs)
    parent, name = folder.path.resolve().parent.name, folder.path.resolve().name
    entries = [*folder.ledger().values(), *plan["runs"]]
    packs = {entry["key"]: entry["pack_key"] for entry in entries if entry.get("pack_key")}
    fits = folder.fits()
    metrics = list(dict.fromkeys(line.metric for line in lines if line.metric))
    facts: dict[str, Any] = {
        "schema": ANALYSIS_SCHEMA,
        "study": name,
        "folder": f"{parent}/{name}" if parent else name,
        "plan": plan["digest"],
        "metric": metrics[0] if len(metrics) == 1 else None,
        "metrics": metrics,
        "compared": list(study.compared),
        "tuned": list(study.tuned),
        "axes": study.grid,
        "searched": study.search is not None,
        "seeds": study.seeds,
        "factors": list(study.factors),
        "matters": study.matters,
        "level": LEVEL,
        "rule": [RULE_SEARCH if study.search else RULE, *RULE_REST],
        "counts": _counts(runs, lines, plan.get("expected") or {}),
        "lines": [_headline(line, packs, fits) for line in lines],
        "of_tasks": of_tasks(lines),
        "comparisons": compare(study, lines),
        "aggregate": aggregate(study, lines),
        "rates": [] if study.search else rates(study, lines),
        "lengths": lengths(study, lines),
        "components": components(study, lines),
        "confusion": confusion(lines),
        "stability": stability(lines),
        "surfaces": [],
        "curves": learning_curves(lines),
        "environment": _union(r.record.get("environment") or {} for r in runs),
        "fingerprints": _union(r.record.get("fingerprints") or {} for r in runs),
        "rows": _union(r.record.get("rows") or {} for r in runs),
        "tasks": sorted({str(r.record["task"]) for r in runs if r.record.get("task")}),
        "backbones": sorted({str(r.record["backbone"]) for r in runs if r.record.get("backbone")}),
        "cost": _cost(runs),
        "problems": _problems(lines),
        "runs": _rows(study, lines),
    }
    facts["complete"] = not facts["counts"]["missing"]
    return {"verdict": findings(facts), **facts}


def _counts(runs: Sequence[StudyRun], lines: Sequence[Line], expected: Mapping[str, int]) -> dict[str, int]:
    statuses = Counter(r.status for r in runs)
    ended = len(runs) - statuses["missing"]
    return {
        "planned": max(sum(expected.values()), len(runs)),
        "ended": ended,
        **{s: statuses[s] for s in ("done", "diverged", "failed")},
        "missing": max(sum(expected.values()), len(runs)) - ended,
        "trials": sum(r.stage == "trial" and r.status != "missing" for r in runs),
        "imputed": sum(r.imputed for line in lines for s in line.settings for r in s.runs),
    }


def _headline(line: Line, packs: dict[str, Any], fits: dict[str, Any]) -> dict[str, Any]:
    """A row of the headline table."""
    its = line.reported
    tests = [r.test for r in its]
    baselines = [r.run.record.get("baselines") or {} for r in its]
    statuses = Counter(r.run.status for r in its)
    row: dict[str, Any] = {
        "label": line.label,
        "cell": dict(line.cell),
        "task": line.task,
        "metric": line.metric,
        "setting": line.chosen.label if line.chosen else "",
        "setting_cell": dict(line.chosen.cell) if line.chosen else {},
        "settings": len(line.settings),
        "n": len(its),
        "missing": line.chosen.missing if line.chosen else 0,
        "dev_mean": line.chosen.dev_mean if line.chosen else None,
        **dict.fromkeys(("mean", "sd", "median", "iqm", "min", "max", "iqm_interval", "mean_interval")),
        "collapse": None,
        "majority": mean_of([r.majority for r in its]),
        "no_prompt": mean_of([b.get("no_prompt") for b in baselines]),
        "scores": [_score(r) for r in its],
        "statuses": {**statuses, **({"missing": line.chosen.missing} if line.chosen and line.chosen.missing else {})},
        "trials": len(line.trials),
        "cost": _line_cost(line, packs, fits),
    }
    if tests:
        row |= {k: v for k, v in asdict(summary(tests)).items() if k != "n"}
        above = [r.test - (r.majority or 0.0) if not r.imputed else 0.0 for r in its]
        row["collapse"] = asdict(collapse_rate(above, 0.0, level=LEVEL))
        for statistic in ("iqm", "mean"):
            found = attempt(lambda s=statistic: bootstrap_interval(tests, s, level=LEVEL, widen=True))  # type: ignore[misc]
            row[f"{statistic}_interval"] = asdict(found) if found else None
    return row


def _score(r: Scored) -> dict[str, Any]:
    return {
        "seed": r.seed,
        "run": r.run.name,
        "status": r.run.status,
        "test": r.test,
        "dev": r.dev,
        "collapsed": r.collapsed,
        "imputed": r.imputed,
    }


def _line_cost(line: Line, packs: dict[str, Any], fits: dict[str, Any]) -> dict[str, Any]:
    records = [r.run.record for r in line.reported]
    everything = [r.record.get("seconds") for r in line.all_runs]
    parameters: Mapping[str, Any] = next((r["parameters"] for r in records if r.get("parameters")), {})
    known = [fits[k] for k in dict.fromkeys(packs.get(r.run.key) for r in line.reported) if k in fits]
    memory = max((f for f in known if f.get("bytes")), key=lambda f: f["bytes"], default=None)
    return {
        "runs": len(everything),
        "seconds": sum(s for s in everything if s is not None),
        "seconds_per_run": mean_of([r.get("seconds") for r in records]),
        "seconds_per_step": mean_of([r.get("seconds_per_step") for r in records]),
        "steps": mean_of([r.get("steps") for r in records]),
        "trained": parameters.get("trained"),
        "kept": parameters.get("kept"),
        "frozen": not parameters.get("backbone") if parameters else None,
        "memory": {"bytes": memory["bytes"], "size": memory.get("size")} if memory else None,
    }


def _cost(runs: Sequence[StudyRun]) -> dict[str, Any]:
    seconds = [r.record["seconds"] for r in runs if r.record.get("seconds") is not None]
    started = sorted(str(r.record["started"]) for r in runs if r.record.get("started"))
    return {
        "seconds": sum(seconds),
        "timed_runs": len(seconds),
        "packs": len({r.pack for r in runs if r.pack is not None}),
        "first_started": started[0] if started else None,
        "last_started": started[-1] if started else None,
    }


def _union(of: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Key -> the different values that runs have, in the order of runs."""
    found: dict[str, list[Any]] = {}
    for facts in of:
        for key, value in facts.items():
            if value not in (values := found.setdefault(key, [])):
                values.append(value)
    return found


def _problems(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Runs that did not go well, with their errors."""
    found = []
    for line in lines:
        scored = [(s.label, r) for s in line.settings for r in s.runs]
        for setting, r in scored:
            if r.run.status in ("failed", "diverged"):
                found.append({**_problem(line, setting, r.run, r.seed), "imputed": r.imputed, "test": r.test})
        found += [
            {**_problem(line, "trial", t, ""), "imputed": False, "test": None}
            for t in line.trials
            if t.status in ("failed", "diverged")
        ]
    return found


def _problem(line: Line, setting: str, run: StudyRun, seed: str) -> dict[str, Any]:
    error = run.error or {}
    message = error.get("message") or ("the loss was not finite" if run.status == "diverged" else "no message")
    return {
        "line": line.label,
        "setting": setting,
        "seed": seed,
        "status": run.status,
        "type": error.get("type"),
        "message": message,
        "run": run.name,
        "key": run.key,
    }


def _rows(study: StudyConfig, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One flat row per run that has ended; the content of runs.csv."""
    rows = []
    for line in lines:
        for setting in line.settings:
            rows += [_row(study, line, r.run, r, setting is line.chosen) for r in setting.runs]
        rows += [_row(study, line, t, None, False) for t in line.trials if t.status != "missing"]
    return rows


def _row(study: StudyConfig, line: Line, run: StudyRun, scored: Scored | None, reported: bool) -> dict[str, Any]:
    record = run.record
    metrics = record.get("metrics") or {}
    environment = record.get("environment") or {}
    scores = {
        f"{split}.{key}": value
        for split in ("dev", "test")
        for key, value in (metrics.get(split) or {}).items()
        if isinstance(value, int | float)
    }
    return {
        "key": run.key,
        "run": run.name,
        "stage": run.stage,
        "status": run.status,
        "line": line.label,
        "reported": reported,
        **part(run.cell, (*study.compared, *study.tuned)),
        **{f"seed.{s}": run.seeds.get(s) for s in STREAMS},
        "metric": line.metric,
        "dev": scored.dev if scored else scores.get(f"dev.{line.metric}"),
        "test": scored.test if scored else scores.get(f"test.{line.metric}"),
        "imputed": scored.imputed if scored else False,
        "collapsed": scored.collapsed if scored else None,
        "majority": scored.majority if scored else None,
        "no_prompt": (record.get("baselines") or {}).get("no_prompt"),
        "best_step": record.get("best_step"),
        "steps": record.get("steps"),
        "seconds": record.get("seconds"),
        "seconds_per_step": record.get("seconds_per_step"),
        "parameters.trained": (record.get("parameters") or {}).get("trained"),
        "parameters.kept": (record.get("parameters") or {}).get("kept"),
        "parameters.backbone": (record.get("parameters") or {}).get("backbone"),
        "pack": run.pack,
        "device": environment.get("device"),
        "dtype": environment.get("dtype"),
        "started": record.get("started"),
        **scores,
        **{f"sharpness.{name}": value for name, value in numbers(read(run) or {}).items()},
        "error.type": (run.error or {}).get("type"),
        "error.message": (run.error or {}).get("message"),
    }
