"""`trimtab take`: the bundle of one task out of that of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import AsJson, RunsDir, print_json, say


def command(
    run_or_bundle: Annotated[str, typer.Argument(help="A run folder or bundle, or a run id under --runs-dir.")],
    task: Annotated[str, typer.Argument(help="The name of the task.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the new bundle.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Take one task's bundle out of a run on several tasks: the shared prompt, its template and its head."""
    from trimtab import api

    metadata = api.take_task(run_or_bundle, task, output, runs_dir=runs_dir)
    if as_json:
        print_json({"bundle": str(output), "task": metadata["task"]["name"]})
    else:
        say(f"{task} of {run_or_bundle} is in {output}")
