"""Sharpness of several runs, measured by one rule, and written to RUN/landscape/sharpness.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.backbones.substitutes import substitutes
from trimtab.landscape.sharpness import PARTS, Protocol, Sharpness, measure, write_sharpness
from trimtab.landscape.surface import Surface, read_landscape, views_of
from trimtab.landscape.views import Subject, Tell
from trimtab.perturbations import Lexicon

VIEWS = ("text", "prompt")
"""Surfaces whose height and slope are among the numbers."""


def measure_all(
    subjects: Sequence[Subject], protocol: Protocol, tell: Tell = lambda event: None
) -> list[tuple[Subject, Sharpness]]:
    """Measure runs that were opened together, and write what was found into their folders.

    Surfaces that lie there count if they were computed on the same examples.

    Args:
        tell: receives an event `points` for each part that is done, as of a view called sharpness.

    Raises:
        BackboneError: a model cannot be differentiated twice, or a loss is not finite.
        TrimtabError: the disk refuses.
    """
    lexicons: dict[Any, Lexicon | None] = {}
    found = []
    for subject in subjects:
        backbone = subject.loss.model.backbone
        key = (id(backbone), subject.label_ids)
        if key not in lexicons:  # runs on one backbone share what it proposes
            lexicons[key] = substitutes(backbone, subject.label_ids).lexicon

        def done(part: str, label: str = subject.label) -> None:
            about = {"run": label, "view": "sharpness", "what": "parts"}
            tell({"event": "points", **about, "count": 1, "of": 2 * len(PARTS) + 1})

        its = measure(subject.loss, lexicons[key], surfaces_of(subject), protocol, done)
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


def _batch(facts: Mapping[str, Any]) -> Any:
    return (facts.get("batch") or {}).get("sha256")
