"""Surfaces of the loss on a page, side by side, to be turned and read; surface.js draws what stands here as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trimtab.landscape.surface import Surface
from trimtab.reports.colors import VIRIDIS, Scale, shared_scale
from trimtab.reports.markup import Html, el
from trimtab.reports.numbers import DASH, score
from trimtab.reports.table import Cell, Column, Table, table

KEYS = (
    "Drag a surface, or use the arrow keys on it, to turn it; + and − zoom, 0 resets. Point at a map, or use the arrow "
    "keys on it, to read the loss. What you do to one run is done to all that stand beside it."
)


def surface_panels(slug: str, surfaces: Sequence[Surface], *, log: bool = False) -> Html:
    """Surfaces and maps side by side, which surface.js draws and surface.css lays out."""
    scale = shared_scale([s.mean for s in surfaces])
    data = {"colors": VIRIDIS, "log": log, "surfaces": [_data(s) for s in surfaces]}
    panels = [_panel(f"{slug}-{i}", s, scale) for i, s in enumerate(surfaces)]
    controls = el(
        "div",
        el("label", el("input", type="checkbox", class_="log", checked=log), " logarithmic"),
        el("label", el("input", type="checkbox", class_="own"), " a scale for each run") if len(surfaces) > 1 else None,
        el("label", "height ", el("input", type="range", class_="height", min="0.2", max="2", step="0.05", value="1")),
        el("button", "Reset", type="button", class_="reset"),
        class_="controls",
    )
    raw = json.dumps(data, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")  # nothing ends the script
    return el(
        "div",
        el("script", Html(raw), type="application/json"),
        el("noscript", el("p", "Without scripts, see the table below and the pictures beside this page.")),
        controls,
        el("div", panels, class_="surfaces"),
        el("p", KEYS, class_="keys"),
        class_="landscape",
        id=f"{slug}-panels",
    )


def _panel(slug: str, s: Surface, scale: Scale) -> Html:
    mean = s.mean
    x, y = s.facts["axes"]["x"], s.facts["axes"]["y"]
    shown = f"{x['name']}, {y['name']}; 1 = {x['unit']}"
    told = f"mean loss {score(float(mean.min()))} to {score(float(mean.max()))} nats, {score(_loss(s))} at the run"
    keys = "Arrow keys turn it, plus and minus zoom, 0 resets."
    relief = el(
        "canvas", class_="relief", tabindex=0, role="img", aria_label=f"{s.facts['label']}: surface, {told}. {keys}"
    )
    chart = el(
        "canvas", class_="map", tabindex=0, role="img",
        aria_label=f"{s.facts['label']}: map, {told}. Across: {x['name']}; upward: {y['name']}. Arrow keys read it.",
    )  # fmt: skip
    bar = el(
        "div", el("span", class_="low"), el("span", class_="ramp"), el("span", class_="high"), class_="bar-of-colors"
    )
    marks = s.facts["marks"]
    title = "; ".join(m["name"] for m in marks) if len(marks) > 1 else s.facts["label"]
    name = el("figcaption", title, el("span", told), el("span", shown), id=f"{slug}-name")
    both, read = el("div", relief, chart, class_="both"), el("p", class_="readout", aria_live="polite")
    return el("figure", name, both, bar, read, class_="surface", aria_labelledby=f"{slug}-name", id=slug)


def _data(s: Surface) -> dict[str, Any]:
    return {
        "label": s.facts["label"],
        "axes": s.facts["axes"],
        "marks": s.facts["marks"],
        "x": _round(s.x.tolist()),
        "y": _round(s.y.tolist()),
        "z": [_round(row) for row in s.mean.tolist()],
    }


def _round(values: Sequence[float]) -> list[float]:
    return [float(f"{v:.5g}") for v in values]


def _loss(s: Surface) -> float:
    return float(s.facts["marks"][0]["loss"])


def numbers(surfaces: Sequence[Surface]) -> Table:
    """A row per surface."""
    columns = [
        Column("Run", numeric=False),
        Column("Loss", about="Mean loss at the run, nats"),
        Column("Lowest"),
        Column("Highest"),
        Column("Range", about="Highest minus lowest"),
        Column("Gradient", about="Norm of the gradient at the run, where an axis follows it"),
        Column("Step", about="Length of a step of 1"),
    ]
    rows = []
    for s in surfaces:
        low, high, scale = float(s.mean.min()), float(s.mean.max()), s.facts["scale"]
        slope = scale.get("gradient_norm")
        rows.append([
            Cell(s.facts["label"], s.facts["label"], s.facts["run"]),
            *[Cell(score(v), v) for v in (_loss(s), low, high, high - low)],
            Cell(DASH if slope is None else f"{slope:.3g}", slope),
            Cell(f"{scale['step']:.3g}", scale["step"]),
        ])  # fmt: skip
    return table("Mean loss in nats over the grid", columns, rows)
