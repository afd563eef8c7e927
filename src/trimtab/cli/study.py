"""`trimtab study`: many runs, and a report that tells how sure it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.console import AsJson, DataDir, Device, Quiet, Track, print_json, print_table, say
from trimtab.cli.report import brief, print_report
from trimtab.cli.study_progress import StudyProgress
from trimtab.sizes import of_memory, of_time

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Any key of the study or of its recipe.")
]


def command(
    study: Annotated[Path, typer.Argument(help="A study file.")],
    overrides: Overrides = None,
    studies_dir: Annotated[
        Path, typer.Option("--studies-dir", help="Where study folders are.", envvar="TRIMTAB_STUDIES")
    ] = Path("studies"),
    name: Annotated[str | None, typer.Option("--name", help="Of the folder; else by the file.")] = None,
    on: Annotated[str, typer.Option("--on", help="local or ray.")] = "local",
    address: Annotated[str | None, typer.Option("--address", help="Of a Ray cluster, host:port or auto.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes here; else one, or one per GPU.")] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show packs, memory and time; train nothing.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Put a changed study in the place of the old one.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Train failed runs again.")] = False,
    results: Annotated[
        Path | None, typer.Option("--from", help="Go on from the results.jsonl.gz that was left elsewhere.")
    ] = None,
    track: Track = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train all runs of a study, many of them together, and write its report.

    What is finished is not repeated: a study that was stopped goes on, and a finished one prints its result again.
    """
    from trimtab import api
    from trimtab.studies.definition import name_of

    options: dict[str, Any] = {
        "studies_dir": studies_dir, "name": name, "on": on, "address": address, "workers": workers, "device": device,
        "data_dir": data_dir,
    }  # fmt: skip
    with StudyProgress(name or name_of(study), quiet=quiet) as progress:
        if dry_run:
            found = api.plan(study, overrides or [], **options, report=progress)
        else:
            again: dict[str, Any] = {"extend": extend, "retry": retry, "results": results, "track": track or []}
            found = api.study(study, overrides or [], **options, **again, report=progress)
    if as_json:
        print_json(found if dry_run else brief(found))
    elif dry_run:
        _print_plan(found)
    else:
        print_report(found)


def _print_plan(found: dict[str, Any]) -> None:
    expected = ", ".join(f"{n} {stage} runs" for stage, n in found["expected"].items())
    say(f"{found['name']}: {expected}, {len(found['lines'])} lines to compare; plan {found['digest']}")
    rows = [
        [_cells(g["cells"]), g["runs"], f"{g['packs']} x {g['pack']}", _memory(g["bytes"]), of_time(g["seconds"])]
        for g in found["groups"]
    ]
    print_table(["trained together", "runs", "packs", "memory", "time"], rows)
    total = sum(g["seconds"] for g in found["groups"]) / max(1, min(found["slots"], len(found["groups"])))
    limits = {_memory(g["limit"]) for g in found["groups"]}
    say(f"about {of_time(total)} on {found['slots']} worker(s); a pack may take {', '.join(sorted(limits))}")
    if "trial" in found["expected"]:
        say("(of a first batch of trials; the whole search takes longer)")
    say(f"study folder {found['folder']}; nothing was trained or written")


def _cells(cells: list[dict[str, Any]]) -> str:
    from trimtab.studies.plan import show_value

    keys = list(dict.fromkeys(key for cell in cells for key in cell))
    parts = []
    for key in keys:
        values = list(dict.fromkeys(show_value(cell[key]) for cell in cells if key in cell))
        parts.append(f"{key} {', '.join(values)}")
    return "; ".join(parts) or "the recipe"


def _memory(count: int | None) -> str:
    return "unknown" if count is None else of_memory(count)
