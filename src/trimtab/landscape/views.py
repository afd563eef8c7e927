"""What is looked at: the loss around a run in its texts or its prompt, and between the prompts of several runs.

    text     PTP's figure: across the gradient at the texts' embeddings, upward a random direction orthogonal to it
    prompt   across and upward two random directions of the prompt; or across its gradient
    plane    the plane through the prompts of three runs
    path     straight lines between the prompts of every two runs (linear mode connectivity, Frankle et al. 2020, arXiv
             1912.05671): barrier = max over w in [0, 1] of f(w) - ((1 - w) f(0) + w f(1))

Runs that are compared have the same examples, grid, random directions and units (`trimtab.landscape.directions`). The
gradient is each run's own, as in the paper. On planes and paths everything moves that the runs have trained: gates,
offsets, routers and heads too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import ConfigError, suggest
from trimtab.landscape.directions import UNITS, drawn, gradient, gradient_direction, random_direction, through, units
from trimtab.landscape.grid import check_memory, losses_over
from trimtab.landscape.point import MAX_TOKENS, LossAt, Space
from trimtab.landscape.surface import Landscape, Paths, Surface

DIRECTIONS = ("auto", "gradient", "random")
RADII = {"text": 0.5, "prompt": 1.0}
"""How far the grid reaches by default, in steps (see `trimtab.landscape.directions`)."""
MARGIN = 0.25
"""How far a plane reaches beyond the runs, as a share of their extent."""


@dataclass(frozen=True)
class Subject:
    """A run that is looked at.

    Attributes:
        folder: where its landscape goes.
        label: what it is called in pictures, in few words.
        is_tuned: whether its backbone was trained with the prompt.
        facts: of the run, for the record.
        label_ids: tokens of its label words, which no word of a text is swapped for.
    """

    folder: Path
    label: str
    loss: LossAt
    is_tuned: bool = False
    facts: Mapping[str, Any] | None = None
    label_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How landscapes are computed.

    Attributes:
        points: of the grid along each axis, odd, so that the run lies on it; lines have twice as many.
        radius: how far the grid reaches, in steps; by default `RADII`.
        directions: across the prompt: `random`, or its `gradient`. Across the text always the gradient, unless
            `random` is asked for.
        unit: of length, see `trimtab.landscape.directions`.
        seed: of random directions.
        max_tokens: tokens per pass.
    """

    points: int = 17
    radius: float | None = None
    directions: str = "auto"
    unit: str = "common"
    seed: int = 0
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        if self.points < 3 or self.points % 2 == 0:
            what = f"a grid has an odd number of points, 3 at least, and the run in its middle; got {self.points}."
            raise ConfigError(what, where="--points", fix=f"Use {max(3, self.points + 1 - self.points % 2)}.")
        for option, got, known in (
            ("--directions", self.directions, DIRECTIONS),
            ("--unit", self.unit, UNITS),
        ):
            if got not in known:
                raise ConfigError(f"there is nothing called {got!r} here.", where=option, fix=suggest(got, known))
        if self.max_tokens < 1:
            raise ConfigError(f"a pass has one token at least, got {self.max_tokens}.", where="--max-tokens")
        if self.radius is not None and not self.radius > 0:
            raise ConfigError(f"a radius is positive, got {self.radius:g}.", where="--radius")


Tell = Callable[[Mapping[str, Any]], None]
View = Callable[[Sequence[Subject], Settings, Tell], list[tuple[Subject, Landscape]]]


def around_texts(subjects: Sequence[Subject], settings: Settings, tell: Tell) -> list[tuple[Subject, Landscape]]:
    """A surface for each run, in the embeddings of its texts."""
    across = "gradient" if settings.directions == "auto" else settings.directions
    unit = "norm of the texts' embeddings"
    return [_around(s, subjects, "text", s.loss.text, across, unit, settings, tell) for s in subjects]


def around_prompts(subjects: Sequence[Subject], settings: Settings, tell: Tell) -> list[tuple[Subject, Landscape]]:
    """A surface for each run, in its prompt."""
    across = "random" if settings.directions == "auto" else settings.directions
    unit = "norm of the prompt" if len(subjects) == 1 or settings.unit == "own" else "mean norm of the prompts"
    return [_around(s, subjects, "prompt", s.loss.prompt, across, unit, settings, tell) for s in subjects]


def _around(
    subject: Subject,
    subjects: Sequence[Subject],
    view: str,
    space: Space,
    across: str,
    unit: str,
    settings: Settings,
    tell: Tell,
) -> tuple[Subject, Surface]:
    loss = subject.loss
    if not space.size:
        what = {
            "text": "no text to perturb: no field of the template has a token left beside label words",
            "prompt": "no prompt",
        }
        raise ConfigError(f"there is {what[view]}.", where=str(subject.folder), fix="Use another --view.")
    step = units([s.loss for s in subjects], space, loss, settings.unit)
    slope = gradient(loss, space) if across == "gradient" else None
    first = drawn(loss, space, settings.seed, "x")
    x = random_direction(first, space, step) if slope is None else gradient_direction(slope, step)
    y = random_direction(drawn(loss, space, settings.seed, "y"), space, step, beside=x)
    radius = settings.radius or RADII[view]
    half = settings.points // 2
    line = (radius * np.arange(-half, half + 1) / half).astype(np.float32)
    found = _grid(subject, view, space, torch.stack([x, y]), line, line, settings, tell)
    names = {"gradient": "along the gradient", "random": "along a random direction"}
    other = "along a random direction" if slope is not None else "along another random direction"
    facts = {
        "axes": {"x": {"name": names[across], "unit": unit}, "y": {"name": other, "unit": unit}},
        "scale": {
            "unit": settings.unit,
            "step": float(step.norm()),
            "radius": radius,
            "gradient_norm": None if slope is None else float(slope.norm()),
            "tokens": len(step),
        },
        "marks": [{"name": subject.label, "x": 0.0, "y": 0.0, "loss": _at_zero(found)}],
    }
    return subject, Surface({**_facts(subject, view, subjects), **facts}, line, line, found)


def plane(subjects: Sequence[Subject], settings: Settings, tell: Tell) -> list[tuple[Subject, Landscape]]:
    """The surface on the plane through the prompts of three runs; it goes to the first of them.

    Raises:
        ConfigError: other than three runs, or their prompts do not fit together.
    """
    if len(subjects) != 3:
        what = f"a plane goes through the prompts of three runs, got {len(subjects)}."
        raise ConfigError(what, where="--view plane", fix="Name three runs of different seeds.")
    check_alike(subjects)
    origin, space = subjects[0], subjects[0].loss.trained
    second, third = (_trained(s) - _trained(origin) for s in subjects[1:])
    x, y, (along, up) = through(second, third)
    places = [(0.0, 0.0), (1.0, 0.0), (along, up)]
    losses = losses_over(
        origin.loss, space, torch.stack([x, y]), np.array(places, dtype=np.float32), max_tokens=settings.max_tokens
    )
    across, upward = (_reaching([p[i] for p in places], settings.points) for i in range(2))
    found = _grid(origin, "plane", space, torch.stack([x, y]), across, upward, settings, tell)
    unit = "distance of A and B"
    facts = {
        "axes": {"x": {"name": "from A to B", "unit": unit}, "y": {"name": "orthogonal to it", "unit": unit}},
        "scale": {"unit": "distance", "step": float(x.norm())},
        "marks": [
            {"name": f"{letter}: {s.label}", "x": px, "y": py, "loss": float(its.mean())}
            for letter, s, (px, py), its in zip("ABC", subjects, places, losses, strict=True)
        ],
    }
    return [(origin, Surface({**_facts(origin, "plane", subjects), **facts}, across, upward, found))]


def paths(subjects: Sequence[Subject], settings: Settings, tell: Tell) -> list[tuple[Subject, Landscape]]:
    """The losses on the lines between every two runs; they go to the first of them.

    Raises:
        ConfigError: fewer than two runs, or their prompts do not fit together.
    """
    if len(subjects) < 2:
        raise ConfigError(
            "a path leads from the prompt of a run to that of another, got one run.",
            where="--view path",
            fix="Name two runs of different seeds, or more.",
        )
    check_alike(subjects)
    parts = max(1, round(settings.points / 3))  # from -1/4 to 0; beyond the runs it shows how steep their valleys are
    shares = (np.arange(-parts, 5 * parts + 1) / (4 * parts)).astype(np.float32)  # 0 and 1 are among them
    pairs, lines = [], []
    for a, b in combinations(subjects, 2):
        difference = _trained(b) - _trained(a)
        report = _reporter(tell, f"{a.label} to {b.label}", "path", len(shares))
        lines.append(
            losses_over(a.loss, a.loss.trained, difference[None], shares[:, None], report, settings.max_tokens)
        )
        ends = {"from": a.label, "to": b.label, "distance": float(difference.norm())}
        pairs.append({**ends, "barrier": barrier(shares, lines[-1].mean(1, dtype=np.float64))})
    facts = {
        "axes": {"x": {"name": "from the first prompt to the second", "unit": "distance of the two"}},
        "pairs": pairs,
    }
    first = subjects[0]
    return [(first, Paths({**_facts(first, "path", subjects), **facts}, shares, np.stack(lines)))]


VIEWS: dict[str, View] = {"text": around_texts, "prompt": around_prompts, "plane": plane, "path": paths}


def barrier(shares: Float[np.ndarray, "N"], losses: Float[np.ndarray, "N"]) -> float:
    """How much the loss between two runs rises above the line that joins their losses; at least 0.

    >>> barrier(np.array([0.0, 0.5, 1.0]), np.array([1.0, 3.0, 2.0]))
    1.5
    """
    start, end = (losses[np.abs(shares - w).argmin()] for w in (0.0, 1.0))
    between = (shares >= 0) & (shares <= 1)
    return float((losses - ((1 - shares) * start + shares * end))[between].max())


def check_alike(subjects: Sequence[Subject]) -> None:
    """Refuse runs between whose prompts there is nothing.

    Raises:
        ConfigError: their prompts have other parts or shapes, stand at other places of the text, or their backbones
            were trained and differ.
    """
    first = subjects[0]
    for other in subjects:
        where = f"{first.folder.name}, {other.folder.name}"
        if other.loss.trained.shapes != first.loss.trained.shapes or _places(other.loss) != _places(first.loss):
            shapes = " and ".join(str(dict(s.loss.trained.shapes)) for s in (first, other))
            raise ConfigError(
                f"prompts on a line or a plane have the same parts, in the same layers; got {shapes}.",
                where=where,
                fix="Compare runs that differ in their seeds.",
            )
        if [r.variants for r in other.loss.rows] != [r.variants for r in first.loss.rows]:
            raise ConfigError(
                "prompts on a line or a plane stand in the same template, and these do not.",
                where=where,
                fix="Compare runs that differ in their seeds.",
            )
        if other.is_tuned:
            raise ConfigError(
                "the backbone was trained with the prompt, so between two runs lie other backbones, too.",
                where=str(other.folder),
                fix="Compare prompts on a frozen backbone, or use --view text or prompt.",
            )


def _places(loss: LossAt) -> tuple[Any, ...]:
    """The layers of a prompt's keys and values, and how far it shifts the text."""
    layers = {site: deep.layers for site, deep in loss.table.deep.items()}
    return layers, None if loss.table.shifts is None else loss.table.shifts.tolist()


def _trained(subject: Subject) -> Float[Tensor, "M"]:
    return subject.loss.original(subject.loss.trained)


def _grid(
    subject: Subject,
    view: str,
    space: Space,
    axes: Float[Tensor, "D M"],
    x: Float[np.ndarray, "N"],
    y: Float[np.ndarray, "Y"],
    settings: Settings,
    tell: Tell,
) -> Float[np.ndarray, "Y N X"]:
    check_memory(subject.loss, space, len(x) * len(y), settings.max_tokens)  # before there are as many coordinates
    at = np.stack([a.ravel() for a in np.meshgrid(x, y)], axis=1)
    report = _reporter(tell, subject.label, view, len(at))
    found = losses_over(subject.loss, space, axes, at, report, settings.max_tokens)
    return found.reshape(len(y), len(x), -1)


def _reaching(values: Sequence[float], points: int) -> Float[np.ndarray, "N"]:
    """A grid that reaches beyond values."""
    room = MARGIN * (max(values) - min(values))
    return np.linspace(min(values) - room, max(values) + room, points, dtype=np.float32)


def _at_zero(losses: Float[np.ndarray, "Y N X"]) -> float:
    middle = len(losses) // 2
    return float(losses[middle, middle].mean(dtype=np.float64))


def _reporter(tell: Tell, label: str, view: str, of: int) -> Callable[[int], None]:
    def report(count: int) -> None:
        tell({"event": "points", "run": label, "view": view, "count": count, "of": of})

    return report


def _facts(subject: Subject, view: str, subjects: Sequence[Subject]) -> dict[str, Any]:
    return {
        "view": view,
        "run": subject.folder.name,
        "label": subject.label,
        "compared": [s.folder.name for s in subjects],
        **(subject.facts or {}),
    }
