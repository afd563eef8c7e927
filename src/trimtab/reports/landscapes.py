"""Pictures and pages of landscapes, from what lies in RUN/landscape/ alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.errors import BundleError, DataError
from trimtab.files import understood, write_atomically, write_text
from trimtab.landscape.surface import (
    FOLDER,
    VIEWS,
    Landscape,
    Paths,
    Surface,
    paths_of,
    read_landscape,
    views_of,
    way_of,
)
from trimtab.reports.colors import shared_scale
from trimtab.reports.surface_page import surface_page
from trimtab.reports.surface_pictures import MISSING, can_draw, contours, curves, named, reliefs


def write_pictures(
    folders: Sequence[Path], views: Sequence[str] | None = None, *, log: bool = False, out: Path | None = None
) -> dict[str, Any]:
    """Draw landscapes of runs: each in its folder, and side by side where there are several.

    All surfaces of a view share colors and heights. What belongs to several runs (a plane, paths) lies with the first.

    Args:
        views: that are drawn; all that there are by default.
        log: logarithmic colors and heights.
        out: where pictures and page of several runs go; by default to the first run's folder.

    Returns:
        `surfaces`: run, label, view, loss, lowest and highest of each; `pairs` of paths; `files`; `notes`.

    Raises:
        BundleError: a landscape is missing, damaged, or of another schema version.
        DataError: surfaces that would stand side by side were computed on other examples, grids or units.
        StorageError: the disk refuses.
    """
    found = _read(folders, views)
    for view, its in found.items():
        _check_alike(view, its)
    files: list[Path] = []
    for view, its in found.items():
        surfaces = {f: s for f, s in its.items() if isinstance(s, Surface)}
        scale = shared_scale([s.mean for s in surfaces.values()], log) if surfaces else None
        for folder, one in its.items():
            files += [paths_of(folder, view)[0]]
            if can_draw():
                files += _write(folder / FOLDER, _pictures(view, [one], scale, log))
        if len(surfaces) > 1 and can_draw():
            files += _write(
                out or folders[0] / FOLDER, _pictures(f"compare-{view}", list(surfaces.values()), scale, log)
            )
    for folder in dict.fromkeys(f for its in found.values() for f in its):
        every = [read_landscape(folder, view) for view in views_of(folder)]  # also those that were drawn before
        files.append(_page(folder / FOLDER / "landscape.html", every, log))
    if len(folders) > 1:
        every = [one for its in found.values() for one in its.values()]
        files.append(_page((out or folders[0] / FOLDER) / "compare.html", every, log))
    return {**summary(found), "files": [str(f) for f in files], "notes": [] if can_draw() else [MISSING]}


def summary(found: Mapping[str, Mapping[Path, Landscape]]) -> dict[str, Any]:
    """Landscapes in numbers."""
    each = [its for by_folder in found.values() for its in by_folder.values()]
    surfaces = [
        {
            "run": s.facts["run"],
            "label": s.facts["label"],
            "view": s.facts["view"],
            "loss": s.facts["marks"][0]["loss"],
            "lowest": float(s.mean.min()),
            "highest": float(s.mean.max()),
        }
        for s in each
        if isinstance(s, Surface)
    ]
    return {"surfaces": surfaces, "pairs": [p for s in each if isinstance(s, Paths) for p in s.facts["pairs"]]}


def _read(folders: Sequence[Path], views: Sequence[str] | None) -> dict[str, dict[Path, Landscape]]:
    """Landscapes by view and folder, views and runs in order."""
    found: dict[str, dict[Path, Landscape]] = {}
    for view in VIEWS if views is None else views:
        its = {f: read_landscape(f, view) for f in folders if view in views_of(f)}
        if its:
            found[view] = its
        elif views is not None:
            read_landscape(folders[0], view)  # says what is missing
    if not found:
        raise BundleError(
            "there is no landscape to be drawn.",
            where=", ".join(map(str, folders)),
            fix="Compute one: leave --redraw out.",
        )
    return found


def _check_alike(view: str, its: Mapping[Path, Landscape]) -> None:
    """Refuse surfaces side by side that mean different things."""
    ways: list[dict[str, Any]] = []
    for folder, one in its.items():
        with understood(paths_of(folder, view)[1]):
            ways += [way_of(one.facts)] if isinstance(one, Surface) else []
    others = [way for way in ways if way != ways[0]]
    if others:
        differ = [name for name in ways[0] if any(way[name] != ways[0][name] for way in others)]
        said = {"batch": "examples", "settings": "grid, directions, unit or seed", "together": "unit of length"}
        raise DataError(
            f"surfaces stand side by side if they were computed in the same way; those of the view {view!r} differ in "
            f"their {' and '.join(said[name] for name in differ)}.",
            where=", ".join(map(str, its)),
            fix="Compute them together, in one call without --redraw; or draw each alone.",
        )


def _pictures(stem: str, its: Sequence[Landscape], scale: Any, log: bool) -> dict[str, bytes]:
    surfaces = [s for s in its if isinstance(s, Surface)]
    if not surfaces:
        (paths,) = (p for p in its if isinstance(p, Paths))
        return named(curves(paths, log), stem)
    return {**named(contours(surfaces, scale), stem), **named(reliefs(surfaces, scale), f"{stem}-3d")}


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return [folder / name for name in files]


def _page(path: Path, its: Sequence[Landscape], log: bool) -> Path:
    write_text(path, surface_page(its, log=log))
    return path
