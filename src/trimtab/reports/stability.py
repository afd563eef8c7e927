"""The section "Stability" of a report: sharpness of the loss against spread over seeds and score, over lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.metric_names import metric_name
from trimtab.reports import charts
from trimtab.reports.charts import Axis, Series
from trimtab.reports.figures import figure
from trimtab.reports.html_tables import html_table
from trimtab.reports.markup import Html, el
from trimtab.reports.numbers import DASH, MINUS, Real, bounds, mean_sd, score, signed
from trimtab.reports.table import Cell, Column, Table, table
from trimtab.studies.analysis.sharpness import MEASURES

Facts = Mapping[str, Any]

SIDES = {"sd": "sd over seeds", "mean": "mean"}
SHOWN = 4
"""Measures whose scatter plots stand open; the others are folded away."""
WIDE = 30.0
"""Positive values over more than this factor are drawn on a logarithmic axis."""


def stability_section(groups: Sequence[Facts]) -> list[Any]:
    """Lead, scatter plots and tables, task by task."""
    parts: list[Any] = []
    for i, group in enumerate(groups):
        slug = f"stability-{i}"
        parts += [
            el("h3", group["task"]) if len(groups) > 1 else None,
            el("p", about(group), class_="lead"),
            scatters(slug, group),
            html_table(f"{slug}-rho", correlations(group)),
        ]
    return parts


def about(group: Facts) -> str:
    """What is shown, and what it cannot show."""
    lines = len(group["points"])
    return (
        f"How sharp the loss is around the trained prompts, on {group['examples']} examples that all runs share, "
        f"against the spread of test scores over seeds and against their mean: {lines} line{'s' if lines > 1 else ''}. "
        "u is the root mean square of an embedding, or of the backbone's own keys and values. A rank correlation near "
        "1 with the sd would be PTP's story: what is sharper varies more. Intervals are 95 % bootstrap intervals over "
        "lines; lines also differ in other ways, so a correlation is no cause."
    )


def scatters(slug: str, group: Facts) -> Html:
    """A dot per line: each measure against sd and against mean."""
    points: Sequence[Facts] = group["points"]
    key = charts.legend([Series(p["label"], i, [(0, 0)]) for i, p in enumerate(points)])
    pairs = [_pair(f"{slug}-{i}", group, measure) for i, measure in enumerate(group["measures"])]
    first, rest = ([cell for pair in its for cell in pair] for its in (pairs[:SHOWN], pairs[SHOWN:]))
    more = None
    if rest:
        said = f"{len(pairs) - SHOWN} more measures"
        more = el("details", el("summary", said), el("div", rest, class_="small-multiples pairs"))
    told = f"Test {metric_name(group['metric']) or 'score'}; sharpness is the mean over the measured runs of a line."
    body = [key, el("div", first, class_="small-multiples pairs"), more]
    return figure(f"{slug}-scatter", "Sharpness against spread and score", told, body,
                  html_table(f"{slug}-data", sharpness(group)))  # fmt: skip


def _pair(slug: str, group: Facts, measure: str) -> list[Html]:
    """Two panels: the measure against sd, and against mean."""
    name, unit = MEASURES[measure]
    cells = []
    for side, said in SIDES.items():
        dots = [
            (i, p["label"], p["values"][measure]["mean"], p[side])
            for i, p in enumerate(group["points"])
            if measure in p["values"] and p[side] is not None
        ]
        rho = told_rho(group["correlations"][measure][side])
        head = el("h3", f"{said[0].upper()}{said[1:]} against {name}", class_="panel-name")
        if not dots:
            cells.append(el("div", head, el("p", "No line has both numbers.")))
            continue
        x, y = axis_of([d[2] for d in dots]), axis_of([d[3] for d in dots])
        series = [Series(label, i, [(a, b)]) for i, label, a, b in dots]
        words = ". ".join(f"{label}: {a:.3g} {unit}, {score(b)}" for _, label, a, b in dots) + f". {rho}"
        chart = charts.panel(f"{slug}-{side}", f"{said} against {name}", words, series, x, y, 170, f"{name}, {unit}")
        cells.append(el("div", head, chart, el("p", rho, class_="panel-note")))
    return cells


def axis_of(values: Sequence[Real]) -> Axis:
    """A linear axis with some room, or a logarithmic one for positive values that lie far apart.

    >>> axis_of([0.001, 10.0]).log, axis_of([1.0, 2.0]).log
    (True, False)
    """
    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return Axis(10.0 ** decades[0], 10.0 ** decades[-1], tuple(10.0**d for d in decades), log=True)
    room = 0.06 * (high - low)
    return charts.linear([low - room if low < 0 else max(low - room, 0.0), high + room],
                         many=4, least=max(abs(low), abs(high)) * 0.02 or 1e-6)  # fmt: skip


def told_rho(found: Facts | None) -> str:
    """A rank correlation in words."""
    if found is None:
        return "Fewer than 3 lines have both numbers."
    if found["rho"] is None:
        return "No rank correlation: all are equal on one side."
    ends = f" {bounds(found['low'], found['high'], sign=True)}" if found["low"] is not None else ", without bounds"
    return f"ρ = {signed(found['rho'], 2)}{ends}, {found['n']} lines"


def correlations(group: Facts) -> Table:
    """A row per measure: its rank correlation with sd and mean over lines."""
    columns = [
        Column("Measure", numeric=False),
        Column("ρ with the sd over seeds", about="Spearman's, over lines, with a 95 % interval"),
        Column("ρ with the mean score", about="Spearman's, over lines, with a 95 % interval"),
        Column("Lines"),
    ]
    rows = []
    for measure in group["measures"]:
        its, (name, unit) = group["correlations"][measure], MEASURES[measure]
        count = sum(measure in p["values"] for p in group["points"])
        rows.append([Cell(name, name, unit), _rho(its["sd"]), _rho(its["mean"]), Cell(str(count), count)])
    return table("Sharpness against spread and score over lines", columns, rows)


def _rho(found: Facts | None) -> Cell:
    if found is None or found["rho"] is None:
        return Cell(DASH)
    between = bounds(found["low"], found["high"], sign=True) if found["low"] is not None else ""
    return Cell(signed(found["rho"], 2), found["rho"], between)


def sharpness(group: Facts) -> Table:
    """A row per line: scores, and every measure as mean ± sd over its measured runs."""
    columns = [Column("Line", numeric=False), Column("Measured"), Column("Test mean ± sd")]
    columns += [Column(name, about=unit) for name, unit in (MEASURES[m] for m in group["measures"])]
    rows = []
    for p in group["points"]:
        values = [_value(p["values"].get(m)) for m in group["measures"]]
        measured = Cell(f"{p['measured']} of {p['n']}", p["measured"])
        rows.append([Cell(p["label"], p["label"]), measured, Cell(mean_sd(p["mean"], p["sd"]), p["mean"]), *values])
    return table("Sharpness of lines", columns, rows)


def _value(found: Facts | None) -> Cell:
    if found is None:
        return Cell(DASH)
    spread = f" ± {brief(found['sd'])}" if found["sd"] is not None else ""
    return Cell(brief(found["mean"]) + spread, found["mean"])


def brief(value: Real) -> str:
    """A number of any size in three digits.

    >>> brief(0.0123456), brief(-1234.5), brief(0.0)
    ('0.0123', '−1.23e+03', '0')
    """
    return f"{MINUS if value < 0 else ''}{abs(value):.3g}"
