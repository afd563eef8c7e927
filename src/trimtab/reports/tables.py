"""Tables of the lines and runs of a study, once for HTML, Markdown and the terminal; from what study.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.reports.numbers import DASH, between, count, duration, mean_sd, score, share, size
from trimtab.reports.table import Cell, Column, Table, table

Facts = Mapping[str, Any]


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
                Cell(score(line["iqm"]), line["iqm"], between(line["iqm_interval"])),
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
