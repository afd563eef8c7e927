"""`trimtab doctor`: what may be wrong with a run, before it is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from trimtab.cli.console import DataDir, Device, Overrides, out, print_json, say

if TYPE_CHECKING:
    from trimtab.diagnosis import Diagnosis, Finding

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}
_PLURALS = {"ok": "ok", "note": "notes", "warning": "warnings", "problem": "problems"}


def command(
    recipe: Annotated[Path, typer.Argument(help="A recipe file.")],
    overrides: Overrides = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="A check that is made; all by default.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="A check that is not made.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    to_json: Annotated[str | None, typer.Option("--json", help="Write JSON to a file; - for stdout.")] = None,
) -> int:
    """Look for what may be wrong with a run before it is started: data, label words, truncation, gradients, padding.

    Exits with 0 where nothing is worse than a warning, with 1 where there is a problem. `trimtab ls checks` lists what
    is looked at, docs/doctor.md says what to do.
    """
    from trimtab import api
    from trimtab.files import write_text

    found = api.doctor(recipe, overrides or [], only=only or [], skip=skip or [], device=device, data_dir=data_dir)
    if to_json == "-":
        print_json(found.as_json())
    else:
        if to_json is not None:
            write_text(Path(to_json), json.dumps(found.as_json(), ensure_ascii=False, indent=1) + "\n")
        _show(recipe, found)
    return 0 if found.is_fit(strict=strict) else 1


def _show(recipe: Path, found: Diagnosis) -> None:
    about = found.about
    say(f"{recipe}: {about['task']}, {about['prompt']} on {about['backbone']} ({about['dtype']}, {about['device']})")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for its in found.findings:
        table.add_row(Text(its.severity, style=_STYLES[its.severity]), _name(its), _told(its))
    out.print(table)
    counts = [f"{n} {_PLURALS[s] if n != 1 else s}" for s, n in reversed(found.counts.items()) if n or s == "ok"]
    say(f"{', '.join(counts)} in {found.seconds:.0f} s")


def _name(finding: Finding) -> str:
    return f"{finding.check} ({finding.task})" if finding.task else finding.check


def _told(finding: Finding) -> Text:
    """What was seen, and below it what to do."""
    text = Text(finding.seen)
    return text.append(f"\n{finding.advice}", style="bold") if finding.advice else text
