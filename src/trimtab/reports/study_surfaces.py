"""The section "Loss landscape" of a report: one surface per line of a study, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.landscape.surface import Surface, read_landscape, views_of, way_of
from trimtab.reports.html_tables import html_table
from trimtab.reports.markup import el
from trimtab.reports.surface_panels import numbers, surface_panels
from trimtab.reports.table import Table
from trimtab.studies.analysis.lines import fixed

Facts = Mapping[str, Any]

NAMES = {"text": "around the texts", "prompt": "around the prompt"}
ABOUT = {
    "text": "The embeddings of the texts move, the prompt stays.",
    "prompt": "The prompt moves, the texts stay; a step of 1 moves every virtual token by the unit of length.",
}


def study_surfaces(runs_dir: Path, lines: Sequence[Facts]) -> list[dict[str, Any]]:
    """For every task and view, a surface of each line that has one: that of its run with the median test score among
    those that were looked at together (the same examples, directions and unit).

    Args:
        runs_dir: where the run folders of the study are.
        lines: as study.json has them.

    Returns:
        Groups: `task`, `view`, `examples`, and `surfaces`, each with `line`, `seed`, `of` (how many runs of the line
        were looked at), `x`, `y`, `mean` (nats, rows go with y) and `facts`.

    Raises:
        BundleError: a landscape is damaged or of another schema version.
    """
    groups: dict[str, dict[str, Any]] = {}
    for line in lines:
        for view in NAMES:
            for key, its in _looked_at(runs_dir, line, view).items():
                seed, surface = its[(len(its) - 1) // 2]
                new = {"task": line["task"], "view": view, "examples": len(surface.facts["batch"]["examples"])}
                group = groups.setdefault(key, {**new, "surfaces": []})
                group["surfaces"].append({"line": line["label"], "seed": seed, "of": len(its), **_plain(surface)})
    return list(groups.values())


def _looked_at(runs_dir: Path, line: Facts, view: str) -> dict[str, list[tuple[str, Surface]]]:
    """What was looked at together -> seed and surface of each run of a line, by test score."""
    found: dict[str, list[tuple[str, Surface]]] = {}
    for scored in sorted((s for s in line["scores"] if s["run"]), key=lambda s: (s["test"], s["seed"])):
        folder = runs_dir / scored["run"]
        if view in views_of(folder) and isinstance(its := read_landscape(folder, view), Surface):
            key = fixed([line["task"], way_of(its.facts)])
            found.setdefault(key, []).append((scored["seed"], its))
    return found


def _plain(its: Surface) -> dict[str, Any]:
    mean = [[float(f"{v:.6g}") for v in row] for row in its.mean.tolist()]
    facts = {k: its.facts[k] for k in ("run", "axes", "marks", "scale")}
    return {"x": its.x.tolist(), "y": its.y.tolist(), "mean": mean, "facts": facts}


def surfaces_section(groups: Sequence[Facts]) -> list[Any]:
    """Panels and a table for every task and view."""
    parts: list[Any] = []
    for i, group in enumerate(groups):
        slug, surfaces = f"landscape-{i}", _surfaces(group)
        parts += [el("h3", title(group)), el("p", about(group), class_="lead")]
        parts += [surface_panels(slug, surfaces), html_table(f"{slug}-table", numbers(surfaces))]
    return parts


def title(group: Facts) -> str:
    """Task and view."""
    name = NAMES[group["view"]]
    return f"{group['task']}, {name}" if group["task"] else name.capitalize()


def about(group: Facts) -> str:
    """What is shown."""
    return (
        f"{ABOUT[group['view']]} Mean loss over {group['examples']} examples that all runs share, on one scale of "
        "color and height. Of each line the run with the median test score is shown."
    )


def surfaces_table(group: Facts) -> Table:
    """Loss at the runs, and its lowest and highest, in numbers."""
    return numbers(_surfaces(group))


def _surfaces(group: Facts) -> list[Surface]:
    return [
        Surface(
            {**s["facts"], "label": s["line"]},
            np.asarray(s["x"], np.float32),
            np.asarray(s["y"], np.float32),
            np.asarray(s["mean"], np.float32)[:, :, None],
        )
        for s in group["surfaces"]
    ]
