"""The report of a study as Markdown: the verdict and all tables, without figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.reports import comparison_tables, curve_tables, stability, study_surfaces, tables
from trimtab.reports.numbers import prose
from trimtab.reports.page import commands, method_facts
from trimtab.reports.table import Cell, Table

Facts = Mapping[str, Any]


def markdown(facts: Facts) -> str:
    """The content of report.md."""
    v = facts["verdict"]
    parts = [f"# {_plain(facts['study'])}", f"**{_plain(prose(v['headline']))}**", _bullets(v["sentences"])]
    if v["cautions"]:
        parts += ["Keep in mind:", _bullets(v["cautions"])]
    shared = tables.of_tasks(facts)
    parts += ["## Results", _table(tables.headline(facts)), _table(shared) if shared else ""]
    if facts["aggregate"]:
        parts += ["## Tasks", _table(comparison_tables.aggregate(facts))]
        others = comparison_tables.other_scores(facts)
        parts += [_table(others)] if others else []
    if facts["comparisons"]["pairs"]:
        parts += ["## Comparisons", _table(comparison_tables.comparisons(facts, "baseline"))]
    for grid in facts["rates"]:
        parts += [f"## Learning rates: {grid['axis']}", _table(curve_tables.rates(grid))]
        parts.append(_table(curve_tables.points("", "Rate", grid["curves"])))
    if facts["lengths"]:
        parts += ["## Prompt length", _table(curve_tables.points("", "Length", facts["lengths"]))]
    if facts["components"]:
        parts += ["## Sources of variance", _table(tables.components(facts))]
    for group in facts["surfaces"]:
        parts += [f"## Loss landscape: {_plain(study_surfaces.title(group))}", study_surfaces.about(group)]
        parts.append(_table(study_surfaces.surfaces_table(group)))
    for group in facts["stability"]:
        parts += [f"## Stability{': ' + group['task'] if group['task'] else ''}", stability.about(group)]
        parts += [_table(stability.correlations(group)), _table(stability.sharpness(group))]
    parts += ["## Seeds", _table(tables.seeds(facts)), "## Cost", _table(tables.cost(facts))]
    if facts["problems"]:
        parts += ["## Failed runs", _table(tables.problems(facts))]
    made = "\n".join(f"* {name}: {_plain(value)}" for name, value in method_facts(facts))
    rules = "\n".join(f"* {rule}" for rule in facts["rule"])
    parts += ["## How this was made", rules, made, f"```sh\n{commands(facts)}\n```"]
    return "\n\n".join(p for p in parts if p) + "\n"


def _bullets(sentences: list[str]) -> str:
    return "\n".join(f"* {_plain(prose(s))}" for s in sentences)


def _table(its: Table) -> str:
    heads = "| " + " | ".join(c.name for c in its.columns) + " |"
    rule = "|" + "|".join("---:" if c.numeric else "---" for c in its.columns) + "|"
    rows = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in its.rows]
    return "\n".join([heads, rule, *rows])


def _cell(cell: Cell) -> str:
    if cell.note.startswith("["):
        return _plain(f"{cell.text} {cell.note}")
    return _plain(f"{cell.text} ({cell.note})" if cell.note else cell.text)


def _plain(text: str) -> str:
    """Text that Markdown leaves alone.

    >>> _plain("a|b <i> *x*")
    'a\\\\|b \\\\<i> \\\\*x\\\\*'
    """
    for sign in "\\`*<|[":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())
