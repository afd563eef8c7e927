"""Tables of lines and methods against each other, as `trimtab.reports.tables` has them of lines alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.reports.numbers import DASH, between, bounds_if_any, p_value, score, share, signed
from trimtab.reports.table import Cell, Column, Table, table

Facts = Mapping[str, Any]

OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "no_difference": "no visible difference",
    "not_enough_seeds": "not enough seeds",
}
STEADIER = {**OUTCOMES, "better": "steadier", "worse": "less steady"}


def comparisons(facts: Facts, family: str) -> Table:
    """Differences, steadiness and verdicts of one family of comparisons, `baseline` or `pairs`."""
    columns = [
        Column("Compared", numeric=False),
        Column("Difference", about="of mean test scores, with a 95 % interval; paired where seeds are shared"),
        Column("p", about="t test, corrected by Holm's method"),
        Column("Wins", about="chance that a run of the first scores above a run of the second"),
        Column("Verdict", numeric=False),
        Column("Ratio of sds", about="below 1 the first is steadier; with a 95 % interval"),
        Column("p of spread", about="Brown and Forsythe's test, corrected by Holm's method"),
        Column("Steadiness", numeric=False),
    ]
    bases, rows = facts["comparisons"]["baselines"], []
    alone = family == "baseline" and len(bases) == 1
    for c in facts["comparisons"][family]:
        d, s = c["difference"], c["spread"]
        seeds = (
            (f"{d['n_a']} shared seeds" if d["paired"] else f"{d['n_a']} and {d['n_b']} runs") if d else "too few runs"
        )
        ratio = DASH if not s or s["sd_ratio"] is None else f"{s['sd_ratio']:.2f}"
        spread = c["spread_verdict"]
        rows.append(
            [
                Cell(c["a"], c["a"], seeds if alone else f"against {c['b']}, {seeds}"),
                Cell(signed(d["mean"]), d["mean"], bounds_if_any(d["low"], d["high"], sign=True)) if d else DASH,
                Cell(p_value(c["p_adjusted"]), c["p_adjusted"]),
                Cell(share(c["improvement"]["estimate"]), c["improvement"]["estimate"]) if c["improvement"] else DASH,
                Cell(OUTCOMES[c["verdict"]["outcome"]], c["verdict"]["outcome"]),
                Cell(ratio, s["sd_ratio"] if s else None, _ratio_bounds(s) if s else ""),
                Cell(p_value(c["spread_p_adjusted"]), c["spread_p_adjusted"]),
                Cell(STEADIER[spread["outcome"]] if spread else DASH, spread["outcome"] if spread else None),
            ]
        )
    name = f"Every line against {bases[0]}" if alone else "Every line against its baseline"
    return table(name if family == "baseline" else "All pairs", columns, rows)


def _ratio_bounds(s: Facts) -> str:
    if s["low"] is None and s["high"] is None:
        return ""
    return f"[{s['low'] or 0.0:.2f}, {'∞' if s['high'] is None else format(s['high'], '.2f')}]"


def aggregate(facts: Facts) -> Table:
    """Methods over all tasks."""
    its = facts["aggregate"]
    benchmarks = list(dict.fromkeys(m["benchmark"]["name"] for m in its["methods"] if m.get("benchmark")))
    about = "as its papers take it: the metrics of a task first, then tasks; with a 95 % interval over seeds"
    columns = [
        Column("Method", numeric=False),
        *(Column(task) for task in its["tasks"]),
        *(Column(metric_name(name), about=about) for name in benchmarks),
        Column("Mean of tasks"),
        Column("IQM of all runs", about="with a 95 % interval"),
        Column("Wins", about="chance that a run scores above one of the baseline, averaged over tasks; 95 % interval"),
    ]
    rows = [
        [
            Cell(m["label"], m["label"], "baseline" if m["baseline"] is None else ""),
            *(Cell(score(m["tasks"].get(task)), m["tasks"].get(task)) for task in its["tasks"]),
            *(_average(m.get("benchmark"), name) for name in benchmarks),
            Cell(score(m["mean"]), m["mean"]),
            Cell(score(m["iqm"]["estimate"]), m["iqm"]["estimate"], between(m["iqm"])) if m["iqm"] else DASH,
            Cell(share(m["improvement"]["estimate"]), m["improvement"]["estimate"], _shares(m["improvement"]))
            if m["improvement"]
            else DASH,
        ]
        for m in its["methods"]
    ]
    for name, key in (("No prompt", "no_prompt"), ("Majority", "majority")):
        if constant := _constant(facts, key):
            mean = fmean(constant.values())
            cells = [Cell(score(constant[task]), constant[task]) for task in its["tasks"]]
            rows.append([Cell(name, name), *cells, *[DASH] * len(benchmarks), Cell(score(mean), mean), DASH, DASH])
    return table("Methods over all tasks", columns, rows)


def _constant(facts: Facts, key: str) -> dict[str, float] | None:
    """Task -> what its lines have without training; None where they differ, or a task has none."""
    found: dict[str, set[float]] = {task: set() for task in facts["aggregate"]["tasks"]}
    for line in facts["lines"]:
        if line[key] is not None:
            found[line["task"]].add(line[key])
    return {task: its.pop() for task, its in found.items()} if all(len(its) == 1 for its in found.values()) else None


def _average(found: Facts | None, name: str) -> Cell:
    if not found or found["name"] != name:
        return Cell(DASH)
    return Cell(score(found["mean"]), found["mean"], between(found["interval"]))


def _shares(found: Facts) -> str:
    return f"[{share(found['low'])}, {share(found['high'])}]"


def other_scores(facts: Facts) -> Table | None:
    """Other metrics of methods, as means over tasks; None where the runs have no others."""
    methods = facts["aggregate"]["methods"]
    names = list(dict.fromkeys(name for m in methods for name in m["others"]))
    if not names:
        return None
    tasks = len(facts["aggregate"]["tasks"])
    rows = [
        [Cell(m["label"], m["label"]), *(_other(m["others"].get(name), tasks) for name in names)] for m in methods
    ]  # fmt: skip
    columns = [Column("Method", numeric=False), *(Column(metric_name(name)) for name in names)]
    return table("Other scores, means over tasks", columns, rows)


def _other(found: Facts | None, tasks: int) -> Cell | str:
    if found is None:
        return DASH
    return Cell(
        score(found["mean"]), found["mean"], f"{found['tasks']} of {tasks} tasks" if found["tasks"] < tasks else ""
    )
