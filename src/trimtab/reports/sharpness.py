"""The sharpness table: what was measured around runs, from RUN/landscape/sharpness.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.files import read_json, understood
from trimtab.reports.numbers import DASH, score
from trimtab.reports.stability import brief
from trimtab.reports.table import Cell, Column, Table, table
from trimtab.storage import prompt_sha256
from trimtab.studies.analysis.sharpness import MEASURES, check_measured, numbers, way_of
from trimtab.studies.folder import SHARPNESS_FILE as FILE

SIDE_BY_SIDE = 4
"""Runs that are columns; more of them are rows, with the numbers that are read first."""
FIRST = ("words.mean_absolute", "text.epsilon_sharpness", "text.top_eigenvalue", "prompt.epsilon_sharpness",
         "prompt.top_eigenvalue")  # fmt: skip
CAPTION = "Sharpness; u is the root mean square of an embedding, or of the backbone's keys and values"


def read_sharpness(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What was measured of runs, of those that were.

    Raises:
        BundleError: a file is damaged, or is of another prompt than that of the run.
    """
    return [_read(folder) for folder in folders if (folder / FILE).exists()]


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    found = read_json(path)
    with understood(path):
        check_measured(found, str(path), prompt_sha256(folder) or found.get("prompt_sha256"))
        numbers(found), way_of(found), _examples(found)
        if not isinstance(found["loss"], int | float):
            raise TypeError(f"the loss must be a number, got {found['loss']!r}")
    return found


def sharpness_tables(files: Sequence[Mapping[str, Any]]) -> list[Table]:
    """A table for all runs that were measured in the same way on the same examples, and others for others: numbers on
    other examples are not to be compared."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for its in files:
        groups.setdefault(way_of(its), []).append(its)
    found = [(its[0], sharpness_table(its)) for its in groups.values()]
    if len(found) < 2:
        return [table for _, table in found]
    return [replace(table, caption=f"{_examples(first)}. {table.caption}") for first, table in found]


def _examples(its: Mapping[str, Any]) -> str:
    batch = its.get("batch") or {}
    count = len(batch.get("examples") or ())
    return f"{its.get('task') or DASH}, {count} example{'s' if count != 1 else ''} of {batch.get('split') or DASH}"


def sharpness_table(files: Sequence[Mapping[str, Any]]) -> Table:
    """Runs side by side, a row per number; or a row per run, where there are many."""
    found = [numbers(its) for its in files]
    labels = [str(its.get("label") or its.get("run")) for its in files]
    known = [m for m in MEASURES if any(m in n for n in found)]
    if len(files) > SIDE_BY_SIDE:
        shown = [m for m in FIRST if m in known]
        columns = [Column("Run", numeric=False), Column("loss, nats"), *(Column(_name(m)) for m in shown)]
        rows = [
            [Cell(label, label), Cell(score(its["loss"]), its["loss"]), *(_cell(n, m) for m in shown)]
            for label, its, n in zip(labels, files, found, strict=True)
        ]
        return table(CAPTION, columns, rows)
    columns = [Column("Number", numeric=False), *(Column(label) for label in labels)]
    first = [Cell("loss, nats", "loss"), *(Cell(score(its["loss"]), its["loss"]) for its in files)]
    rows = [[Cell(_name(m), m), *(_cell(n, m, its) for n, its in zip(found, files, strict=True))] for m in known]
    return table(CAPTION, columns, [first, *rows])


def _name(measure: str) -> str:
    return ", ".join(MEASURES[measure])


def _cell(found: Mapping[str, float], measure: str, its: Mapping[str, Any] | None = None) -> Cell:
    if measure not in found:
        return Cell(DASH)
    error = ((its or {}).get(measure.partition(".")[0]) or {}).get(f"{measure.partition('.')[2]}_error")
    return Cell(brief(found[measure]) + (f" ± {brief(error)}" if error is not None else ""), found[measure])
