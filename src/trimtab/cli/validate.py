"""`trimtab validate`: check a recipe and its data without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import AsJson, DataDir, Overrides, err, print_json, print_table, say


def command(
    recipe: Annotated[Path, typer.Argument(help="A recipe file.")],
    overrides: Overrides = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check recipe, data, template, label words and tokenizer; train and write nothing."""
    from trimtab import api

    found = api.validate(recipe, overrides or [], data_dir=data_dir)
    if as_json:
        print_json(found.as_json())
        return
    for option in found.dropped_options:
        err.print(f"note: {option} does not exist for the new kind and was dropped", markup=False)
    for note in found.notes:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    say(f"{recipe} is valid: {found.task.name}, {found.config.prompt['kind']} on {found.config.backbone.model}")
    print_table(
        ["split", "rows", "longest (tokens)", "truncated"],
        [[split, len(n), max(n), found.truncated[split]] for split, n in found.lengths.items()],
    )
