"""Landscapes with known numbers, written as computing them writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.landscape.surface import Paths, Surface, write_landscape

HOSTILE = "</script><script>alert('x')</script> & \"quotes\""


def facts(view: str, label: str, run: str, compared: Sequence[str] = ()) -> dict[str, Any]:
    """What every landscape says of itself."""
    unit = "norm of the texts' embeddings"
    return {
        "view": view,
        "run": run,
        "label": label,
        "compared": list(compared) or [run],
        "axes": {
            "x": {"name": "along the gradient", "unit": unit},
            "y": {"name": "along a random direction", "unit": unit},
        },
        "scale": {"unit": "common", "step": 12.5, "radius": 1.0, "gradient_norm": 0.25},
        "batch": {"split": "test", "seed": 0, "examples": ["a", "b"], "sha256": "0" * 64},
        "settings": {"points": 9, "seed": 0, "directions": "auto", "unit": "common"},
        "loss": "mean over the examples, nats",
        "backbone": "nano-masked",
        "task": "support_desk",
        "environment": {"trimtab": "0.1.0", "torch": "2.13.0"},
    }


def surface(
    run: str,
    label: str | None = None,
    view: str = "text",
    bend: float = 1.0,
    marks: int = 1,
    compared: Sequence[str] = (),
) -> Surface:
    """A bowl of two examples, 9 points wide and 7 high: bend (x^2 + 2 y^2) + 0.5 in the mean."""
    x, y = np.linspace(-1, 1, 9, dtype=np.float32), np.linspace(-1, 1, 7, dtype=np.float32)
    bowl = bend * (x[None, :] ** 2 + 2 * y[:, None] ** 2) + 0.5
    label = run if label is None else label
    places = [(0.0, 0.0), (1.0, 0.0), (0.5, 0.5)][:marks]
    named = [label] if marks == 1 else [f"{letter}: {label}" for letter in "ABC"]
    told = [
        {"name": n, "x": a, "y": b, "loss": bend * (a * a + 2 * b * b) + 0.5}
        for n, (a, b) in zip(named, places, strict=True)
    ]
    losses = np.stack([bowl - 0.1, bowl + 0.1], axis=2).astype(np.float32)
    return Surface({**facts(view, label, run, compared), "marks": told}, x, y, losses)


def paths(run: str, others: Sequence[str] = ("b",)) -> Paths:
    """Lines with a hill of 0.75 in their middle."""
    x = (np.arange(-2, 11) / 8).astype(np.float32)
    line = 1 + 3 * x * (1 - x)
    pairs = [{"from": run, "to": o, "distance": 2.0, "barrier": 0.75} for o in others]
    its = facts("path", run, run, [run, *others])
    axes = {"x": {"name": "from the first prompt to the second", "unit": "distance of the two"}}
    losses = np.stack([np.stack([line + 0.1 * i, line + 0.1 * i], axis=1) for i in range(len(others))])
    return Paths({**its, "axes": axes, "pairs": pairs}, x, losses.astype(np.float32))


def write_runs(root: Path, labels: Sequence[str] = ("prompt_tuning", "prompt_tuning + pgd")) -> list[Path]:
    """Run folders with surfaces around the text and the prompt; the first also with a plane and paths."""
    folders = [root / f"run-{i}" for i in range(len(labels))]
    for i, (folder, label) in enumerate(zip(folders, labels, strict=True)):
        for view in ("text", "prompt"):
            its = surface(folder.name, label, view, bend=1.0 + i, compared=[f.name for f in folders])
            write_landscape(folder, its)
    write_landscape(folders[0], surface(folders[0].name, labels[0], "plane", marks=3))
    write_landscape(folders[0], paths(folders[0].name, ["b", "c"]))
    return folders
