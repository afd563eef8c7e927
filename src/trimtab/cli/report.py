"""`trimtab report`: what a study has found, as pages and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.console import AsJson, print_json, print_table, say

LARGE = ("runs", "curves", "confusion")
"""Parts of study.json that --json leaves to the file."""


def command(
    study: Annotated[Path, typer.Argument(help="The folder of a study.")],
    as_json: AsJson = False,
) -> None:
    """Write the report of a study from its files; it need not have ended. Nothing is trained."""
    from trimtab import api

    found = api.report(study)
    if as_json:
        print_json(brief(found))
    else:
        print_report(found)


def brief(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says, without what there is for each run; study.json has that."""
    return {k: v for k, v in found.items() if k not in LARGE}


def print_report(found: Mapping[str, Any]) -> None:
    """Headline table, verdicts, and where the report lies."""
    from trimtab.reports.numbers import prose
    from trimtab.reports.tables import headline

    table = headline(found)
    shown = ("Line", "Runs", "Test mean ± sd", "IQM", "Worst seed", "Collapsed", "No prompt")
    at = [i for i, column in enumerate(table.columns) if column.name in shown]
    names = [table.columns[i].name for i in at]
    rows = []
    for row in table.rows:
        cells = list(zip(names, (row[i] for i in at), strict=True))
        texts = [f"{c.text} {c.note}".strip() if name in ("IQM", "Runs") else c.text for name, c in cells]
        rows.append([texts[0], row[0].note, *texts[1:]])
    columns = [names[0], "Setting", *("IQM, 95 %" if name == "IQM" else name for name in names[1:])]
    print_table(columns, rows, title=table.caption)
    verdict = found["verdict"]
    say(f"\n{prose(verdict['headline'])}")
    for sentence in verdict["sentences"]:
        say(f"  {prose(sentence)}")
    for caution in verdict["cautions"]:
        say(f"  Keep in mind: {prose(caution)}")
    say("")
    for name, path in found["files"].items():
        say(f"  {name:<12}  {path}")
