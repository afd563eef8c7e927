"""What every verb prints with: one console for results, one for complaints, JSON, and shared option types."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from trimtab.metric_names import METRIC_NAMES

IS_FIRST = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
"""This process is alone, or the first of those that a launcher started. The others tell of their own defects only."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else 160, quiet=not IS_FIRST)
err = Console(stderr=True, highlight=False, quiet=not IS_FIRST)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any key of the recipe.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, progress to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Where run folders are.", envvar="TRIMTAB_RUNS")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model, if the bundle asks for that.")
]
Track = Annotated[
    list[str] | None, typer.Option("--track", help='Beside metrics.jsonl: tensorboard, `"wandb: {project: mine}"`, ...')
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where data: paths start.", envvar="TRIMTAB_DATA")]

_LEFT_OUT = {"unanswered": "name no class", "unread": "words not read", "unreachable": "cannot be ranked"}
"""Counts of what the scores take for wrong, or for outside of entities."""


def shown_metrics(metrics: Mapping[str, Any], between: str = "  ") -> str:
    """The scores among metrics on one line, and how many answers name no class or words were not read, if any."""
    scores = [f"{name} {metrics[key]:.3f}" for key, name in METRIC_NAMES.items() if key in metrics]
    return between.join(scores + [f"{metrics[key]} {what}" for key, what in _LEFT_OUT.items() if key in metrics])


def parsed_task(text: str | None) -> Any:
    """A task as it is given on the command line: a kind, or a mapping in YAML."""
    from trimtab.overrides import parse_overrides

    return None if text is None else parse_overrides([f"task={text}"])["task"]


def plain_help() -> Literal["rich"] | None:
    """Boxes and colors in help only where someone looks at a terminal."""
    return "rich" if sys.stdout.isatty() else None


def complain(message: str, *, always: bool = False) -> None:
    """One paragraph on stderr; `always` where the first process may not know of it."""
    err.quiet = err.quiet and not always
    err.print(f"[bold red]error[/]: {_escaped(message)}" if err.is_terminal else _escaped(f"error: {message}"),
              soft_wrap=True)  # fmt: skip


def print_json(value: Any) -> None:
    """JSON on stdout, nothing else."""
    if not IS_FIRST:
        return
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1 if sys.stdout.isatty() else None) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table without heavy lines."""
    table = Table(
        title=title, box=None, title_justify="left", header_style="bold", pad_edge=False, padding=(0, 2, 0, 0)
    )
    for i, column in enumerate(columns):
        numeric = all(isinstance(r[i], int | float) for r in rows) and bool(rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*[_escaped(_shown(v)) for v in row])
    out.print(table)


def say(message: str) -> None:
    """A line of result text; brackets in it are no markup."""
    out.print(_escaped(message), soft_wrap=True)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
