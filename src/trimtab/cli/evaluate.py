"""`trimtab evaluate`: score a finished run on one split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.console import (
    AsJson,
    DataDir,
    Device,
    RunsDir,
    parsed_task,
    print_json,
    print_table,
    say,
    shown_metrics,
)


def command(
    run: Annotated[str, typer.Argument(help="A run folder, or an id under --runs-dir.")],
    split: Annotated[str, typer.Option("--split", help="train, dev or test.")] = "test",
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Rows and metrics of another task, such as superglue/ax_b or '{kind: tagged, test: FILE}'; or one of "
            "several tasks.",
        ),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Score a finished run on one split of its task, or of another with the same classes."""
    from trimtab import api

    found = api.evaluate(run, split, task=parsed_task(task), runs_dir=runs_dir, device=device, data_dir=data_dir)
    if as_json:
        print_json({"run": run, "split": split, "metrics": found.metrics})
        return
    m: Any = found.metrics
    say(f"{split}: {shown_metrics(m, ', ')}, {m['rows']} rows")
    for name, its in m.get("tasks", {}).items():
        say(f"  {name}: {shown_metrics(its, ', ')}, {its['rows']} rows")
    if "per_type" in m:
        rows = [[t, s["entities"], s["precision"], s["recall"], s["f1"]] for t, s in m["per_type"].items()]
        print_table(["type", "entities", "precision", "recall", "F1"], rows)
    if "confusion" not in m:
        return
    classes = m["confusion"]["classes"]
    counts = zip(classes, m["confusion"]["counts"], strict=True)
    print_table(["gold \\ predicted", *classes], [[c, *row] for c, row in counts])
