"""`trimtab run`: train a soft prompt and score it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.console import (
    IS_FIRST,
    AsJson,
    DataDir,
    Device,
    Overrides,
    Quiet,
    RunsDir,
    Track,
    err,
    print_json,
    say,
    shown_metrics,
)
from trimtab.cli.progress import TrainingProgress
from trimtab.errors import DivergedError
from trimtab.metric_names import METRIC_NAMES
from trimtab.sizes import of_file

_CONSTANTS = {
    "macro_f1": "majority class",
    "accuracy": "most frequent choice",
    "entity_f1": "most frequent tag",
    "f1": "no answer",
    "p_at_1": "most frequent object",
}
"""What the best constant answer is called; the first metric that a run has says what its answers are."""


def command(
    recipe: Annotated[Path, typer.Argument(help="A recipe file.")],
    overrides: Overrides = None,
    runs_dir: RunsDir = Path("runs"),
    device: Device = "auto",
    data_dir: DataDir = None,
    again: Annotated[bool, typer.Option("--again", help="Repeat a finished run.")] = False,
    track: Track = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the soft prompt of a recipe and report its score.

    A finished run is not repeated; the same command prints its result again.
    """
    from trimtab import api

    with TrainingProgress(recipe.stem, quiet=quiet or not IS_FIRST) as progress:
        record = api.run(
            recipe,
            overrides or [],
            runs_dir=runs_dir,
            device=device,
            data_dir=data_dir,
            again=again,
            track=track or [],
            report=progress,
        )
    for option in record.get("dropped_options", []):
        err.print(f"note: {option} does not exist for the new kind and was dropped", markup=False)
    for note in record.get("notes", []):
        if note in progress.notes:
            continue
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        print_json(record)
    else:
        _print(record)
    if record["status"] == "diverged":
        raise _diverged(record)


def _diverged(record: dict[str, Any]) -> DivergedError:
    if record["metrics"]:
        what = f"the loss was not finite at step {record['steps']}; the best state before it is in the run folder."
        return DivergedError(what, where=record["run"], fix="Lower training.learning_rate.")
    return DivergedError(
        "the loss was not finite before the first step, so there is no prompt to keep.",
        where=record["run"],
        fix="Change prompt.initializer or set backbone.dtype=float32; the learning rate has had no effect yet.",
    )


def _print(record: dict[str, Any]) -> None:
    if record["metrics"]:
        _print_scores(record)
    say(f"  run folder  {record['run']}")


def _print_scores(record: dict[str, Any]) -> None:
    metrics, baselines, parameters = record["metrics"], record["baselines"], record["parameters"]
    seconds = "finished earlier" if record["reused"] else f"{record['seconds']:.1f} s"
    say(f"{record['task']}, {record['prompt']} on {record['backbone']} ({record['environment']['dtype']}), {seconds}")
    say(f"  parameters  {parameters['trained']:,} trained, {parameters['kept']:,} kept")
    if tuned := parameters.get("backbone"):
        say(f"  backbone    {tuned:,} of them, trained with the prompt and kept: {of_file(4 * tuned)}")
    for split in ("dev", "test"):
        m = metrics[split]
        purpose = f"(selected step {record['best_step']} of {record['steps']})" if split == "dev" else ""
        say(f"  {split:<10}  {shown_metrics(m)}  {m['rows']} rows  {purpose}")
        for name, its in m.get("tasks", {}).items():
            say(f"    {name:<10}{shown_metrics(its)}  {its['rows']} rows")
    metric = METRIC_NAMES[record["metric"]]
    constant = next((name for key, name in _CONSTANTS.items() if key in metrics["test"]), "most frequent answer")
    named = {constant: baselines["majority"], "no prompt": baselines["no_prompt"]}
    if known := [f"{name} {score:.3f}" for name, score in named.items() if score is not None]:
        say(f"  baselines   {', '.join(known)} (test {metric})")
    cut = sum(record["truncated"].values())
    if cut:
        say(f"  truncated   {cut} rows")
