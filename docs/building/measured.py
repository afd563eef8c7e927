"""Scores of a method that docs/results holds: tables of scripts/method_table.py, and studies.

A number is read from the JSON beside each page of results, so it cannot differ from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Score:
    """What a method scored on a task over seeds.

    Attributes:
        kind: the method; `method` is what was set, options included.
        readout: where the command named one.
        sd: sample standard deviation, None for one seed.
        page: that holds it, relative to docs/results.
    """

    kind: str
    method: str
    task: str
    backbone: str
    readout: str
    metric: str
    mean: float
    sd: float | None
    seeds: int
    page: str

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.sd is None else f" ± {self.sd:.3f}")


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
    readout = re.search(r"readout\.kind=(\w+)", raw["command"])
    for line in raw["results"]:
        first, values = line["runs"][0], line["test"]
        metric = next(name for name, value in first["metrics"]["test"].items() if value == values[0])
        yield Score(
            kind=line["method"].split(":")[0],
            method=line["method"],
            task=line["task"],
            backbone=first["backbone"],
            readout=readout[1] if readout else "",
            metric=metric,
            mean=mean(values),
            sd=stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            page=page,
        )


def _of_study(raw: dict[str, Any], page: str) -> Iterator[Score]:
    for line in raw["lines"]:
        kind = line["cell"].get("prompt.kind", line["label"])
        yield Score(
            kind, line["label"], raw["tasks"][0], raw["backbones"][0], "", line["metric"],
            line["mean"], line["sd"], line["n"], page,
        )  # fmt: skip


def read(name: str, folder: Path = RESULTS) -> Any:
    """A file of docs/results."""
    return json.loads((folder / name).read_text(encoding="utf-8"))
