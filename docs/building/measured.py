"""Scores of a method that docs/results holds: tables of scripts/method_table.py, and studies.

A number is read from the JSON beside each page of results, so it cannot differ from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from trimtab.registry import prompts
from trimtab.reports.numbers import mean_sd

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Score:
    """What a method scored on a task over seeds.

    Attributes:
        kind: the method; `options` are those that were set.
        readout: where the command named one.
        rows: of training; None where the file does not say.
        sd: sample standard deviation, None for one seed.
        page: that holds it, relative to docs/results.
    """

    kind: str
    options: str
    task: str
    rows: int | None
    backbone: str
    readout: str
    metric: str
    mean: float
    sd: float | None
    seeds: int
    page: str

    def __str__(self) -> str:
        return mean_sd(self.mean, self.sd)


def scores(folder: Path = RESULTS) -> list[Score]:
    """All scores of methods in a folder of results, in the order of their files."""
    found: list[Score] = []
    for file in sorted(folder.rglob("*.json")):
        raw = json.loads(file.read_text(encoding="utf-8"))
        if _is_method_table(raw):
            found += _of_table(raw, file.with_suffix(".md").relative_to(folder).as_posix())
        elif isinstance(raw, dict) and "verdict" in raw:
            found += _of_study(raw, (file.parent / "report.md").relative_to(folder).as_posix())
    return found


def _is_method_table(raw: Any) -> bool:
    lines = raw.get("results") if isinstance(raw, dict) else None
    return isinstance(lines, list) and all({"task", "method", "test"} <= set(line) for line in lines)


def _of_table(raw: dict[str, Any], page: str) -> Iterator[Score]:
    """A line for each method, and for each task one of the same template without a prompt."""
    readout = re.search(r"readout\.kind=(\w+)", raw["command"])
    bare: set[str] = set()
    for line in raw["results"]:
        first, values = line["runs"][0], line["test"]
        metric = next(name for name, value in first["metrics"]["test"].items() if value == values[0])
        score = Score(
            kind=line["method"].partition(": ")[0],
            options=line["method"].partition(": ")[2],
            task=line["task"],
            rows=first.get("rows", {}).get("train"),
            backbone=first["backbone"],
            readout=readout[1] if readout else "",
            metric=metric,
            mean=mean(values),
            sd=stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            page=page,
        )
        yield score
        without = first.get("baselines", {}).get("no_prompt")
        if without is not None and line["task"] not in bare:
            bare.add(line["task"])
            yield replace(score, kind="manual", options="", rows=None, mean=without, sd=None, seeds=1)


def _of_study(raw: dict[str, Any], page: str) -> Iterator[Score]:
    """Lines that say their method, task and backbone and differ in nothing else, and means over LAMA's relations: the
    report has the others. An arm that is called like a method is that method."""
    backbone = _only(raw["backbones"])
    if not backbone:
        return
    score = partial(Score, options="", backbone=Path(backbone).name, readout="", page=page)
    for line in raw["lines"]:
        cell = line["cell"]
        others = set(cell) - {"prompt.kind", "task", "task.kind", "arm"}
        task = line["task"].partition(" (")[0] or _only(raw["tasks"])
        kind = cell.get("prompt.kind") if cell.get("arm", "none") == "none" else _method(cell["arm"])
        if kind and not others and task:
            rows = _only(raw["rows"]["train"])
            its = {"metric": line["metric"], "mean": line["mean"], "sd": line["sd"], "seeds": line["n"]}
            yield score(kind=kind, task=task, rows=rows, **its)
    whole = raw["aggregate"]
    if whole and set(raw["compared"]) == {"task.relation", "prompt.kind"}:
        tasks, metric = len(whole["tasks"]), whole["metrics"][0]
        for method in whole["methods"]:
            its = {"metric": metric, "mean": method["mean"], "sd": None, "seeds": method["runs"] // tasks}
            yield score(kind=method["label"], task=f"mean of {tasks} relations of LAMA", rows=None, **its)


def _method(arm: str) -> str | None:
    return arm if arm in prompts.kinds() else None


def _only(values: list[Any]) -> Any:
    """The one that there is; None of several."""
    return values[0] if len(values) == 1 else None


def read(name: str, folder: Path = RESULTS) -> Any:
    """A file of docs/results."""
    return json.loads((folder / name).read_text(encoding="utf-8"))
