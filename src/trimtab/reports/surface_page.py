"""Landscapes as one HTML page that needs nothing else: surfaces to be turned, maps to be read, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.landscape.surface import VIEWS, Landscape, Paths, Surface
from trimtab.reports import charts
from trimtab.reports.charts import Series
from trimtab.reports.figures import figure
from trimtab.reports.html_tables import html_table
from trimtab.reports.markup import Html, el
from trimtab.reports.numbers import score
from trimtab.reports.shell import contents, document, top
from trimtab.reports.surface_panels import numbers, surface_panels
from trimtab.reports.table import Cell, Column, table

NAMES = {
    "text": "Around the texts",
    "prompt": "Around the prompt",
    "plane": "The plane through three prompts",
    "path": "Between the prompts",
}
ABOUT = {
    "text": "The embeddings of the texts move; the prompt stays. The scale is the norm of the texts' embeddings.",
    "prompt": "The prompt moves; the texts stay. A step of 1 moves every virtual token by the unit of length.",
    "plane": "The prompt moves on the plane through three trained prompts.",
    "path": "The prompt moves on a straight line from one trained prompt to another. Dots mark the runs; the barrier "
    "is how much the loss rises above the line between them.",
}


def surface_page(its: Sequence[Landscape], *, log: bool = False) -> str:
    """The content of landscape.html or compare.html."""
    views = [v for v in VIEWS if any(s.facts["view"] == v for s in its)]
    runs = list(dict.fromkeys(s.facts["label"] for s in its))
    title = f"{its[0].facts['task']}: {', '.join(runs[:4])}{' …' if len(runs) > 4 else ''}"
    links = contents([(v, NAMES[v]) for v in views])
    sections = [_section(v, [s for s in its if s.facts["view"] == v], log) for v in views]
    columns = el("div", links, el("main", sections, _method(its)), class_="columns")
    body = [
        el("a", "To the surfaces", href=f"#{views[0]}", class_="skip"),
        el("div", top("Loss landscape", title), columns, class_="page"),
        el("p", id="said", class_="only-read", aria_live="polite"),
    ]
    return document(f"{title} – loss landscape", body, ["report", "surface"])


def _section(view: str, its: Sequence[Landscape], log: bool) -> Html:
    surfaces = [s for s in its if isinstance(s, Surface)]
    parts: list[Any] = [el("h2", NAMES[view], id=view), el("p", ABOUT[view], class_="lead")]
    if surfaces:
        parts += [surface_panels(view, surfaces, log=log), html_table(f"{view}-table", numbers(surfaces))]
    parts += [_paths(i, p) for i, p in enumerate(p for p in its if isinstance(p, Paths))]
    return el("section", parts, aria_labelledby=view)


def _paths(i: int, its: Paths) -> Html:
    """Curves over the lines between runs, and their barriers as a table."""
    x = [float(v) for v in its.x]
    series = [
        Series(f"{p['from']} to {p['to']}", k, list(zip(x, map(float, line), strict=True)), marks=False)
        for k, (p, line) in enumerate(zip(its.facts["pairs"], its.mean, strict=True))
    ]
    dots = [(w, float(line[x.index(w)])) for line in its.mean for w in (0.0, 1.0)]
    axes = charts.linear(x), charts.linear([y for s in series for _, y in s.points])
    about = "; ".join(
        f"{s.label}: barrier {score(p['barrier'])}" for s, p in zip(series, its.facts["pairs"], strict=True)
    )
    plot = charts.panel(
        f"path-{i}-plot",
        "Mean loss between runs, nats",
        about,
        series,
        *axes,
        x_name="share of the second prompt",
        dots=dots,
    )
    columns = [Column("From", numeric=False), Column("To", numeric=False), Column("Distance"), Column("Barrier")]
    rows = [
        [p["from"], p["to"], Cell(f"{p['distance']:.3g}", p["distance"]), Cell(score(p["barrier"]), p["barrier"])]
        for p in its.facts["pairs"]
    ]
    data = html_table(f"path-{i}-table", table("Barriers in nats", columns, rows))
    return figure(f"path-{i}", "Mean loss between runs, nats", about, [charts.legend(series), plot], data)


def _method(its: Sequence[Landscape]) -> Html:
    """How it was computed, from the facts beside the arrays."""
    each = [(NAMES[s.facts["view"]].lower(), _made(s.facts)) for s in its]
    told = {name: _where_they_differ([(view, made[name]) for view, made in each]) for name in each[0][1]}
    told["Runs"] = ", ".join(dict.fromkeys(r for s in its for r in s.facts["compared"]))
    listed = el("dl", [[el("dt", k), el("dd", v)] for k, v in told.items()], class_="facts-list")
    return el("section", el("h2", "How this was made", id="method"), listed, aria_labelledby="method")


def _made(facts: Mapping[str, Any]) -> dict[str, str]:
    batch, settings, e = facts["batch"], facts["settings"], facts["environment"]
    return {
        "Examples": f"{len(batch['examples'])} of {batch['split']}, drawn with seed {batch['seed']}; SHA-256 "
                    f"{batch['sha256'][:12]}",
        "Loss": facts["loss"],
        "Arithmetic": "float32, eager attention, no dropout, whatever the run was trained in",
        "Directions": f"seed {settings['seed']}, {settings['directions']}, unit {settings['unit']}",
        "Backbone": facts["backbone"],
        "Versions": "; ".join(f"{k} {e[k]}" for k in ("trimtab", "torch", "transformers", "device") if k in e),
    }  # fmt: skip


def _where_they_differ(told: Sequence[tuple[str, str]]) -> str:
    """What is said of all views; of each, where they were computed at different times.

    >>> _where_they_differ([("around the texts", "6 of test"), ("around the prompt", "24 of test")])
    '6 of test (around the texts); 24 of test (around the prompt)'
    """
    views: dict[str, dict[str, None]] = {}
    for view, what in told:
        views.setdefault(what, {})[view] = None
    return "; ".join(f"{what} ({', '.join(its)})" if len(views) > 1 else what for what, its in views.items())
