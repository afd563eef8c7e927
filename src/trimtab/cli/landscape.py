"""`trimtab landscape`: the loss around finished runs, as arrays, pictures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.console import AsJson, DataDir, Device, Quiet, RunsDir, err, print_json, print_table, say
from trimtab.cli.landscape_progress import LandscapeProgress


def command(
    runs: Annotated[list[str] | None, typer.Argument(help="Run folders, or ids under --runs-dir.")] = None,
    view: Annotated[
        list[str] | None,
        typer.Option("--view", help="text, prompt, path (two runs or more), plane (three). Default: text and prompt."),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Measure the reported runs of a study folder; views only if asked for."),
    ] = None,
    sharpness: Annotated[
        bool, typer.Option("--sharpness/--no-sharpness", help="Measure how sharp the loss is, too.")
    ] = True,
    points: Annotated[int, typer.Option("--points", help="Of the grid, along each axis.")] = 17,
    radius: Annotated[
        float | None,
        typer.Option("--radius", help="Reach of the grid, in norms of what is moved (text 0.5, prompt 1)."),
    ] = None,
    directions: Annotated[
        str, typer.Option("--directions", help="Across: gradient or random; auto is gradient for text.")
    ] = "auto",
    unit: Annotated[
        str, typer.Option("--unit", help="Of length: common to all runs, or each virtual token's own norm.")
    ] = "common",
    split: Annotated[str, typer.Option("--split", help="Where the examples come from: train, dev or test.")] = "test",
    task: Annotated[
        str | None, typer.Option("--task", help="Of runs on several tasks, the one whose loss is looked at.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", help="On how many the loss is taken.")] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Of random directions and of the examples.")] = 0,
    log: Annotated[bool, typer.Option("--log", help="Logarithmic colors and heights in pictures.")] = False,
    redraw: Annotated[bool, typer.Option("--redraw", help="Draw again what was computed before.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where pictures of several runs go. Default: the first run's folder.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens per pass, padding included.")] = 8192,
    runs_dir: RunsDir = Path("runs"),
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw the loss around finished runs: in their texts, their prompts, or between the prompts of several."""
    from trimtab import api

    with LandscapeProgress(quiet=quiet) as progress:
        found = api.landscape(
            runs or (),
            views=view,
            study=study,
            sharpness=sharpness,
            points=points,
            radius=radius,
            directions=directions,
            unit=unit,
            split=split,
            task=task,
            examples=examples,
            seed=seed,
            log=log,
            redraw=redraw,
            out=out,
            max_tokens=max_tokens,
            runs_dir=runs_dir,
            device=device,
            data_dir=data_dir,
            report=progress,
        )
    for note in found["notes"]:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        print_json(found)
    else:
        print_landscapes(found)


def print_landscapes(found: Mapping[str, Any]) -> None:
    """Losses of each surface and path, and where the files lie."""
    surfaces = [
        [s["label"], s["view"], s["loss"], s["lowest"], s["highest"], s["highest"] - s["lowest"]]
        for s in found["surfaces"]
    ]
    if surfaces:
        print_table(["Run", "View", "Loss", "Lowest", "Highest", "Range"], surfaces, title="Mean loss, nats")
    pairs = [[p["from"], p["to"], p["distance"], p["barrier"]] for p in found["pairs"]]
    if pairs:
        print_table(["From", "To", "Distance", "Barrier"], pairs, title="Between runs; the barrier in nats")
    if found["sharpness"]:
        _print_sharpness(found["sharpness"])
    if found["files"]:
        _print_files(found["files"], drawn=not found["notes"])


def _print_sharpness(files: Sequence[Mapping[str, Any]]) -> None:
    """The sharpness table, or several where runs were measured on other examples; and what could not be measured."""
    from trimtab.reports.sharpness import sharpness_tables

    for table in sharpness_tables(files):
        rows = [[c.text for c in row] for row in table.rows]
        print_table([c.name for c in table.columns], rows, title=table.caption)
    for its in files:
        for finding in its["findings"]:
            say(f"  {its['label']}: {finding}")


def _print_files(files: Sequence[str], *, drawn: bool) -> None:
    """Pages, and the folders of pictures and arrays."""
    say("")
    for path in files:
        if path.endswith(".html"):
            say(f"  page      {path}")
    for folder in dict.fromkeys(str(Path(path).parent) for path in files):
        say(f"  {'pictures' if drawn else 'arrays  '}  {folder}")
