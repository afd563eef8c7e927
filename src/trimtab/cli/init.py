"""`trimtab init`: look at a table and write a recipe for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import AsJson, err, print_json, say


def command(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet.")],
    label: Annotated[str | None, typer.Option("--label", help="The column of classes to choose among.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Or a column of free text to write.")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text column; repeat for several.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The recipe; stdout by default.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", help="Model whose vocabulary is used: nano-masked, or nano-causal for --target."),
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="Prompt method.")] = "residual",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a table and write a complete, commented recipe that trains as it stands."""
    from trimtab import api

    draft = api.init(
        table, label, text or [], target=target, output=output, backbone=backbone, prompt=prompt, force=force
    )
    if as_json:
        print_json(
            {"recipe": None if output is None else str(output), "text": draft.recipe, "notes": list(draft.notes)}
        )
        return
    for note in draft.notes:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if output is None:
        typer.echo(draft.recipe, nl=False)
    else:
        say(f"wrote {output}; train it with: trimtab run {output}")
