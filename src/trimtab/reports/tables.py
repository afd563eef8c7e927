"""The tables of a report, once for HTML, Markdown and the terminal. Each takes the content of study.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.reports.numbers import (
    DASH,
    Real,
    bounds,
    count,
    duration,
    mean_sd,
    p_value,
    score,
    share,
    signed,
    size,
)

Facts = Mapping[str, Any]

OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "no_difference": "no visible difference",
    "not_enough_seeds": "not enough seeds",
}
STEADIER = {**OUTCOMES, "better": "steadier", "worse": "less steady"}


@dataclass(frozen=True)
class Column:
    """`numeric` aligns right; `about` explains the name."""

    name: str
    numeric: bool = True
    about: str = ""


@dataclass(frozen=True)
class Cell:
    """What is read, what is sorted by, and a second line in small print."""

    text: str
    key: Real | str | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, as many as columns; the first cell of a row names it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> Table:
    """A table; plain text is a cell that is sorted by itself."""
    cells = (tuple(Cell(c, c) if isinstance(c, str) else c for c in row) for row in rows)
    return Table(caption, tuple(columns), tuple(cells))


def ranked(facts: Facts) -> list[Mapping[str, Any]]:
    """Lines by mean test score, the best first, within their tasks; those without runs last."""
    tasks = list(dict.fromkeys(line["task"] for line in facts["lines"]))
    return sorted(
        facts["lines"], key=lambda x: (tasks.index(x["task"]), x["mean"] is None, -(x["mean"] or 0.0))
    )  # stable: of equal ones the first


def headline(facts: Facts) -> Table:
    """A row per line."""
    has_memory = any(line["cost"]["memory"] for line in facts["lines"])
    columns = [
        Column("Line", numeric=False),
        Column("Runs", about="of the chosen setting; those that did not go well are named"),
        Column("Test mean ± sd"),
        Column("IQM", about="interquartile mean, with a 95 % interval from a bootstrap over seeds"),
        Column("Median"),
        Column("Worst seed"),
        Column("Collapsed", about="runs at or under the majority baseline"),
        Column("Dev mean"),
        Column("No prompt", about="the same model, template and label words without a prompt"),
        Column("Majority", about="always the most frequent answer"),
        Column("Frozen", numeric=False, about="whether the backbone is frozen, or trained and kept with the prompt"),
        Column("Parameters kept"),
        Column("Time per run"),
        *([Column("Memory", about="of a pack, at the peak")] if has_memory else []),
    ]
    rows = []
    for line in ranked(facts):
        cost = line["cost"]
        memory = cost["memory"] or {}
        baseline = "baseline" if line["label"] in facts["comparisons"]["baselines"] and len(facts["lines"]) > 1 else ""
        rows.append(
            [
                Cell(line["label"], line["label"], "; ".join(x for x in (line["setting"], baseline) if x)),
                Cell(str(line["n"]), line["n"], statuses(line)),
                Cell(mean_sd(line["mean"], line["sd"]), line["mean"]),
                Cell(score(line["iqm"]), line["iqm"], _between(line["iqm_interval"])),
                Cell(score(line["median"]), line["median"]),
                Cell(score(line["min"]), line["min"]),
                Cell(
                    f"{line['collapse']['collapsed']} of {line['n']}" if line["collapse"] else DASH,
                    line["collapse"]["rate"] if line["collapse"] else None,
                    f"up to {share(line['collapse']['high'])}" if line["collapse"] else "",
                ),
                Cell(score(line["dev_mean"]), line["dev_mean"]),
                Cell(score(line["no_prompt"]), line["no_prompt"]),
                Cell(score(line["majority"]), line["majority"]),
                _frozen(cost),
                Cell(count(cost["kept"]), cost["kept"], f"{count(cost['trained'])} trained" if cost["trained"] else ""),
                Cell(duration(cost["seconds_per_run"]), cost["seconds_per_run"]),
                *([Cell(size(memory.get("bytes")), memory.get("bytes"))] if has_memory else []),
            ]
        )
    return table(f"Test {metric(facts)} of every line", columns, rows)


def of_tasks(facts: Facts) -> Table | None:
    """The tasks of lines whose runs are on several; None where there are none."""
    lines = facts["of_tasks"]
    metrics: dict[str, list[str]] = {}
    for line in lines:
        for task, its in line["tasks"].items():
            metrics.setdefault(task, []).append(its["metric"])
    columns = [Column("Line", numeric=False)]
    columns += [Column(task, about=", ".join(map(metric_name, dict.fromkeys(its)))) for task, its in metrics.items()]
    rows = [
        [Cell(line["label"], line["label"]), *(_of_task(line["tasks"].get(task)) for task in metrics)] for line in lines
    ]
    return table("Each task: test mean ± sd over seeds", columns, rows) if lines else None


def _of_task(found: Facts | None) -> Cell | str:
    return Cell(mean_sd(found["mean"], found["sd"]), found["mean"]) if found else DASH


def _frozen(cost: Facts) -> Cell | str:
    """Whether the backbone of a line is frozen; nothing is known without a run."""
    frozen = cost.get("frozen")
    return DASH if frozen is None else "yes" if frozen else "no"


def metric(facts: Facts) -> str:
    """What the scores are."""
    return metric_name(facts["metric"]) if facts["metric"] else "score"


def statuses(line: Facts) -> str:
    """What did not go well, in words; empty where all is done.

    >>> statuses({"statuses": {"done": 3, "failed": 1}})
    '1 failed'
    """
    return ", ".join(f"{n} {status}" for status, n in line["statuses"].items() if status != "done" and n)


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
                Cell(signed(d["mean"]), d["mean"], _if_any(d["low"], d["high"], sign=True)) if d else DASH,
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
            Cell(score(m["iqm"]["estimate"]), m["iqm"]["estimate"], _between(m["iqm"])) if m["iqm"] else DASH,
            Cell(share(m["improvement"]["estimate"]), m["improvement"]["estimate"], _shares(m["improvement"]))
            if m["improvement"]
            else DASH,
        ]
        for m in its["methods"]
    ]
    return table("Methods over all tasks", columns, rows)


def _average(found: Facts | None, name: str) -> Cell:
    if not found or found["name"] != name:
        return Cell(DASH)
    return Cell(score(found["mean"]), found["mean"], _between(found["interval"]))


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


def _shares(found: Facts) -> str:
    return f"[{share(found['low'])}, {share(found['high'])}]"


def _between(found: Facts | None) -> str:
    return bounds(found["low"], found["high"]) if found else ""


def rates(grid: Facts) -> Table:
    """Best, area and worst of every curve over learning rates."""
    columns = [
        Column("Line", numeric=False),
        Column("Chosen on dev"),
        Column("Best", about="highest mean test score of the grid"),
        Column("Area", about="average over the logarithmic grid, with a 95 % interval"),
        Column("Worst", about="lowest mean test score of the grid"),
        Column("Lost by a blind pick", about="best less area, with a 95 % interval"),
        Column("Good rates", about="share of rates whose mean is as good as the best, or nearly"),
        Column("Area on dev"),
    ]
    rows: list[list[Cell | str]] = []
    for c in grid["curves"]:
        t, d = c["test"], c["dev"]
        rows.append(
            [
                Cell(c["label"], c["label"]),
                Cell(f"{c['chosen']:g}", c["chosen"]),
                Cell(score(t["best_mean"]), t["best_mean"], f"at {t['best_rate']:g}"),
                Cell(score(t["area"]), t["area"], _if_any(t["area_low"], t["area_high"])),
                Cell(score(t["worst_mean"]), t["worst_mean"]),
                Cell(score(t["loss"]), t["loss"], _if_any(t["loss_low"], t["loss_high"])),
                Cell(share(t["within"]), t["within"]),
                Cell(score(d["area"] if d else None), d["area"] if d else None),
            ]
            if t
            else [Cell(c["label"], c["label"]), *[DASH] * 7]
        )
    return table(f"Sensitivity to {grid['axis']}", columns, rows)


def _if_any(low: Real | None, high: Real | None, *, sign: bool = False) -> str:
    return "" if low is None else bounds(low, high, sign=sign)


def points(caption: str, axis: str, curves: Sequence[Facts]) -> Table:
    """Every point of curves along an axis: the data of a figure."""
    columns = [
        Column("Line", numeric=False),
        Column(axis),
        Column("Runs"),
        Column("Dev mean"),
        Column("Test mean ± sd"),
        Column("Worst seed"),
        Column("Best seed"),
        Column("Collapsed"),
    ]
    rows = [
        [
            Cell(c["label"], c["label"], p["setting"]),
            Cell(f"{p['value']:g}", p["value"]),
            Cell(str(p["n"]), p["n"], f"{p['missing']} missing" if p["missing"] else ""),
            Cell(score(p["dev_mean"]), p["dev_mean"]),
            Cell(mean_sd(p["mean"], p["sd"]), p["mean"]),
            Cell(score(p["worst"]), p["worst"]),
            Cell(score(p["best"]), p["best"]),
            Cell(str(p["collapsed"]), p["collapsed"]),
        ]
        for c in curves
        for p in c["points"]
    ]
    return table(caption, columns, rows)


def components(facts: Facts) -> Table:
    """Variance components of every line."""
    columns = [
        Column("Line", numeric=False),
        Column("Source", numeric=False),
        Column("sd"),
        Column("Variance", about="with a 95 % interval"),
        Column("Share of variance", about="with a 95 % interval"),
        Column("Degrees of freedom"),
    ]
    rows = []
    for line in facts["components"]:
        if not line["found"]:
            rows.append([Cell(line["label"], line["label"]), line["reason"], *[DASH] * 4])
            continue
        for c in line["found"]["components"]:
            shares = "" if c["share"] is None else f"[{share(c['share_low'])}, {share(c['share_high'])}]"
            variance = f"[{c['low']:.2g}, {c['high']:.2g}]"
            rows.append(
                [
                    Cell(line["label"], line["label"]),
                    Cell(source(c["source"]), c["source"], "negative estimate, given as 0" if c["truncated"] else ""),
                    Cell(f"{c['sd']:.4f}", c["sd"]),
                    Cell(f"{c['variance']:.2g}", c["variance"], variance),
                    Cell(share(c["share"]), c["share"], shares),
                    Cell(str(c["df"]), c["df"]),
                ]
            )
    return table("Where the spread over seeds comes from", columns, rows)


def source(name: str) -> str:
    """A source of variance for people.

    >>> source("init x data_order")
    'init × data order'
    """
    return name.replace(" x ", " × ").replace("_", " ")


def cost(facts: Facts) -> Table:
    """What every line has taken."""
    columns = [
        Column("Line", numeric=False),
        Column("Runs", about="all settings, trials included"),
        Column("Time, all runs"),
        Column("Time per run", about="of the chosen setting; a member of a pack has its share of the time"),
        Column("Steps"),
        Column("Per step"),
        Column("Frozen", numeric=False, about="whether the backbone is frozen"),
        Column("Parameters trained"),
        Column("Parameters kept"),
        Column("Memory", about="of a pack, at the peak"),
    ]
    rows = []
    for line in facts["lines"]:
        c, memory = line["cost"], line["cost"]["memory"] or {}
        pack = f"a pack of {memory['size']}" if memory.get("size") else ""
        step = c["seconds_per_step"]
        rows.append(
            [
                Cell(line["label"], line["label"]),
                Cell(str(c["runs"]), c["runs"]),
                Cell(duration(c["seconds"]), c["seconds"]),
                Cell(duration(c["seconds_per_run"]), c["seconds_per_run"]),
                Cell(count(c["steps"]), c["steps"]),
                Cell(DASH if step is None else f"{1000 * step:.1f} ms", step),
                _frozen(c),
                Cell(count(c["trained"]), c["trained"]),
                Cell(count(c["kept"]), c["kept"]),
                Cell(size(memory.get("bytes")), memory.get("bytes"), pack),
            ]
        )
    return table("Cost", columns, rows)


def problems(facts: Facts) -> Table:
    """Runs that failed or diverged, with their errors and what counts in their place."""
    columns = [Column(n, numeric=False) for n in ("Line", "Seed", "Status", "Error", "Counted as", "Run")]
    rows = []
    for p in facts["problems"]:
        counted = (
            DASH
            if p["test"] is None
            else f"{score(p['test'])}, {'the constant answer' if p['imputed'] else 'its last good checkpoint'}"
        )
        error = f"{p['type']}: {p['message']}" if p["type"] else p["message"]
        rows.append(
            [Cell(p["line"], p["line"], p["setting"]), p["seed"], p["status"], error, counted, p["run"] or p["key"]]
        )
    return table("Runs that failed or diverged", columns, rows)


def seeds(facts: Facts) -> Table:
    """Every run of the chosen settings: the data of the dot plot."""
    columns = [
        Column("Line", numeric=False),
        Column("Seed", numeric=False),
        Column("Test"),
        Column("Dev"),
        Column("Status", numeric=False),
        Column("Run", numeric=False),
    ]
    rows = []
    for line in ranked(facts):
        for s in line["scores"]:
            extra = ", counts as the constant answer" if s["imputed"] else ", collapsed" if s["collapsed"] else ""
            rows.append(
                [
                    Cell(line["label"], line["label"]),
                    Cell(s["seed"], int(s["seed"]) if s["seed"].isdecimal() else s["seed"]),
                    Cell(score(s["test"]), s["test"]),
                    Cell(score(s["dev"]), s["dev"]),
                    s["status"] + extra,
                    s["run"] or DASH,
                ]
            )
    return table("Scores by seed", columns, rows)


def curve_ends(curve: Facts) -> Table:
    """Best and last evaluation of every seed of a line: the data of its learning curves."""
    names = ("Seed", "Best step", "Best dev score", "Last step", "Last dev score")
    columns = [Column(name, numeric=name != "Seed") for name in names]
    rows = []
    for s in curve["seeds"]:
        best = next((d for step, d in zip(s["steps"], s["dev"], strict=True) if step == s["best_step"]), None)
        best_step = DASH if s["best_step"] is None else str(s["best_step"])
        rows.append([s["seed"], Cell(best_step, s["best_step"]), Cell(score(best), best),
                     Cell(str(s["steps"][-1]), s["steps"][-1]), Cell(score(s["dev"][-1]), s["dev"][-1])])  # fmt: skip
    return table(f"Learning of {curve['label']}", columns, rows)
