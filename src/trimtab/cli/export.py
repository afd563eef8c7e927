"""`trimtab export`: trained prompts in other programs' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import AsJson, RunsDir, err, print_json, say


def command(
    runs: Annotated[list[str], typer.Argument(help="Run folders or bundles, or run ids under --runs-dir.")],
    to: Annotated[str, typer.Option("--to", help='peft, vllm, baked, kv or card; "baked: {dtype: bfloat16}".')],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to be written.")],
    name: Annotated[
        list[str] | None, typer.Option("--name", help="What a prompt is called, in the order of runs.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Where the backbone lies now.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace an earlier export.")] = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write a trained prompt for PEFT, for vLLM, as words of a plain model, as keys and values, or as a model card.

    The folder appears whole or not at all. What a format cannot express is refused, with the reason.
    """
    from trimtab import api

    found = api.export(runs, to, out, names=name or [], model=model, runs_dir=runs_dir, again=again)
    for note in found["notes"]:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        print_json(found)
        return
    say(f"{found['export']['kind']}  {found['folder']}")
    for file in found["files"]:
        say(f"  {file}")
