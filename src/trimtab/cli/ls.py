"""`trimtab ls`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import AsJson, RunsDir, print_json, print_table, say

HIDDEN = {"tasks": ("options",), "backbones": ("options",), "runs": ("backbone", "started")}
"""Columns that --json has and the table leaves out."""


def command(
    what: Annotated[
        str,
        typer.Argument(
            help="runs, tasks, prompts, readouts, regularizers, backbones, trackers, exports, checks, presets or "
            "recipes."
        ),
    ] = "runs",
    runs_dir: RunsDir = Path("runs"),
    recipes_dir: Annotated[Path, typer.Option("--recipes-dir", help="Where recipes are.")] = Path("recipes"),
    as_json: AsJson = False,
) -> None:
    """List runs, or the components that recipes may name."""
    from trimtab import api

    found = api.ls(what, runs_dir=runs_dir, recipes_dir=recipes_dir)
    if as_json:
        print_json(found)
        return
    if not found:
        say(f"no {what} in {runs_dir if what == 'runs' else recipes_dir}")
        return
    columns = [c for c in found[0] if c not in HIDDEN.get(what, ())]
    rows = [[line[c] for c in columns] for line in found]
    print_table(columns, [[", ".join(v) if isinstance(v, list) else v for v in row] for row in rows])
