"""Sharpness of several runs, measured by one rule, and written to RUN/landscape/sharpness.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.backbones.substitutes import substitutes
from trimtab.landscape.sharpness import PARTS, Protocol, Sharpness, measure, write_sharpness
from trimtab.landscape.surface import Surface, read_landscape, views_of, way_of
from trimtab.landscape.views import Subject, Tell
from trimtab.perturbations import Lexicon

VIEWS = ("text", "prompt")
"""Surfaces whose height and slope are among the numbers."""


def measure_all(
    subjects: Sequence[Subject], protocol: Protocol, tell: Tell = lambda event: None
) -> list[tuple[Subject, Sharpness]]:
    """Measure runs that were opened together, and write what was found into their folders.

    Surfaces that lie there count if they were computed on the same examples, and those of a view over one grid.

    Args:
        tell: receives an event `points` for each part that is done, as of a view called sharpness.

    Raises:
        BackboneError: a model cannot be differentiated twice, or a loss is not finite.
        TrimtabError: the disk refuses.
    """
    lexicons: dict[Any, Lexicon | None] = {}
    found = []
    for subject, surfaces in zip(subjects, alike([surfaces_of(s) for s in subjects]), strict=True):
        backbone = subject.loss.model.backbone
        key = (id(backbone), subject.label_ids)
        if key not in lexicons:  # runs on one backbone share what it proposes
            lexicons[key] = substitutes(backbone, subject.label_ids).lexicon

        def done(part: str, label: str = subject.label) -> None:
            about = {"run": label, "view": "sharpness", "what": "parts"}
            tell({"event": "points", **about, "count": 1, "of": 2 * len(PARTS) + 1})

        its = measure(subject.loss, lexicons[key], surfaces, protocol, done)
        facts = {"label": subject.label, **(subject.facts or {})}
        path = write_sharpness(subject.folder, its, facts)
        tell({"event": "written", "run": subject.label, "view": "sharpness", "files": {path.name: str(path)}})
        found.append((subject, its))
    return found


def surfaces_of(subject: Subject) -> dict[str, Surface]:
    """The surfaces around a run that lie in its folder and were computed on the same examples."""
    found = {}
    for view in VIEWS:
        if view in views_of(subject.folder):
            its = read_landscape(subject.folder, view)
            if isinstance(its, Surface) and _batch(its.facts) == _batch(subject.facts or {}):
                found[view] = its
    return found


def alike(each: Sequence[Mapping[str, Surface]]) -> list[dict[str, Surface]]:
    """Without the views whose surfaces were computed in several ways: heights and slopes over other grids are other
    numbers."""
    ways = {view: [way_of(its[view].facts) for its in each if view in its] for view in VIEWS}
    kept = [view for view, its in ways.items() if all(way == its[0] for way in its)]
    return [{view: surface for view, surface in its.items() if view in kept} for its in each]


def _batch(facts: Mapping[str, Any]) -> Any:
    return (facts.get("batch") or {}).get("sha256")
