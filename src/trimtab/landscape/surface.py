"""What a landscape leaves in RUN/landscape/: arrays and what they are, as plain data. No torch here.

    <view>.safetensors   x [N], y [Y] or nothing, losses [Y,N,X] or of paths [C,N,X]: every example at every point
    <view>.json          axes, units, scale, batch, seeds, versions, and the SHA-256 of the arrays and of the prompt

The JSON is written last and names the bytes of the arrays, so a reader never joins halves of two landscapes, and those
of the run's prompt, so it never shows the landscape of one that was replaced. Pictures and pages are drawn from these
files alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from trimtab.errors import BundleError
from trimtab.files import read_json, read_tensors, sha256_of, understood, write_json, write_tensors
from trimtab.storage import prompt_sha256

SCHEMA = 1
FOLDER = "landscape"
"""Of a run folder."""
VIEWS = ("text", "prompt", "plane", "path")
"""What may lie there, in the order of pages; `trimtab.landscape.views` computes them."""


@final
@dataclass(frozen=True)
class Surface:
    """Losses over a grid of a plane through a run.

    Attributes:
        facts: `view`, `run`, `label`, `axes` (x and y, each with `name` and `unit`), `marks` (points with a name, in
            axis coordinates), `batch`, `scale` and more, see `trimtab.landscape.views`.
        x: coordinates across, ascending.
        y: coordinates upward, ascending.
        losses: of every example at every point; rows go with y.
    """

    facts: Mapping[str, Any]
    x: Float[np.ndarray, "N"]
    y: Float[np.ndarray, "Y"]
    losses: Float[np.ndarray, "Y N X"]

    @property
    def mean(self) -> Float[np.ndarray, "Y N"]:
        """The mean loss over the examples."""
        return self.losses.mean(axis=2, dtype=np.float64)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is written."""
        return {"x": self.x, "y": self.y, "losses": self.losses}


@final
@dataclass(frozen=True)
class Paths:
    """Losses on straight lines between the prompts of runs.

    Attributes:
        facts: as of a surface; `pairs` has the labels, the distance and the barrier of each line.
        x: the share of the second prompt: 0 is the first run of a pair, 1 the second.
        losses: of every example at every point of every line.
    """

    facts: Mapping[str, Any]
    x: Float[np.ndarray, "N"]
    losses: Float[np.ndarray, "C N X"]

    @property
    def mean(self) -> Float[np.ndarray, "C N"]:
        """The mean loss over the examples."""
        return self.losses.mean(axis=2, dtype=np.float64)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is written."""
        return {"x": self.x, "losses": self.losses}


Landscape = Surface | Paths


def write_landscape(folder: Path, found: Landscape) -> dict[str, str]:
    """Write a landscape into a run folder, each file whole or not at all; returns the files by name.

    Raises:
        TrimtabError: the disk refuses, or a number is not finite.
    """
    arrays, facts = paths_of(folder, found.facts["view"])
    there = {"file": arrays.name, "sha256": write_tensors(arrays, found.arrays)}
    write_json(facts, {"schema": SCHEMA, **found.facts, "prompt_sha256": prompt_sha256(folder), "arrays": there})
    return {arrays.name: str(arrays), facts.name: str(facts)}


def read_landscape(folder: Path, view: str) -> Landscape:
    """Read a landscape of a run folder.

    Raises:
        BundleError: there is none, it has another schema version, its arrays are missing, damaged, or not those that
            belong to it, or it is of another prompt than that of the run.
    """
    arrays, described = paths_of(folder, view)
    if not described.exists():
        raise BundleError(
            f"there is no landscape of the view {view!r}.",
            where=str(folder),
            fix=f"Compute it: trimtab landscape {folder} --view {view}",
        )
    facts = read_json(described)
    if facts.get("schema") != SCHEMA:
        raise BundleError(
            f"the landscape has schema {facts.get('schema')!r}, this version of trimtab reads {SCHEMA}.",
            where=str(described),
            fix="Compute it again.",
        )
    if (prompt := prompt_sha256(folder)) is not None and facts.get("prompt_sha256") != prompt:
        raise BundleError(
            "the landscape is that of another prompt than that of the run.",
            where=str(described),
            fix=f"Compute it again: trimtab landscape {folder} --view {view}",
        )
    its = read_tensors(arrays)
    with understood(described):
        if sha256_of(arrays) != facts["arrays"]["sha256"]:
            what = f"the arrays are not those that {described.name} describes."
            raise BundleError(what, where=str(arrays), fix="Compute them again.")
        return Surface(facts, **its) if "y" in its else Paths(facts, **its)


def views_of(folder: Path) -> list[str]:
    """The views that a run folder has."""
    return [view for view in VIEWS if paths_of(folder, view)[1].exists()]


def way_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """How a surface was computed: equal for those that may stand side by side.

    The common unit of prompts comes from the runs that were looked at together, so there these belong to the way; that
    of texts is the same for all runs. How points were packed changes nothing.
    """
    settings = {k: v for k, v in facts["settings"].items() if k != "max_tokens"}
    is_of_all = facts["view"] == "prompt" and settings["unit"] == "common"
    together = sorted(facts["compared"]) if is_of_all else None
    return {"view": facts["view"], "batch": facts["batch"]["sha256"], "settings": settings, "together": together}


def paths_of(folder: Path, view: str) -> tuple[Path, Path]:
    """Where the arrays and the facts of a view lie."""
    place = folder / FOLDER
    return place / f"{view}.safetensors", place / f"{view}.json"
