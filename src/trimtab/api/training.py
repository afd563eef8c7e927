"""Train a soft prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.api.inputs import Overrides, Recipe, places_of, resolved
from trimtab.config import Resolution
from trimtab.storage import RunFolder
from trimtab.trackers import Spec, check_trackers
from trimtab.training.loop import Report
from trimtab.training.parallel import joined
from trimtab.training.preparing import Prepared, open_backbone, prepare
from trimtab.training.runs import run_pack


def run(
    recipe: Recipe,
    overrides: Overrides = (),
    *,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    data_dir: str | Path | None = None,
    again: bool = False,
    track: Sequence[Spec] = (),
    report: Report | None = None,
) -> dict[str, Any]:
    """Train a soft prompt and score it.

    Everything that can be wrong with the input is checked before anything is written. A run that is finished already is
    not repeated: its record is returned with `"reused": True`.

    Processes started by torchrun or `accelerate launch` train the run together: the batch is divided among them,
    process 0 writes and reports, and all return the same record.

    Args:
        recipe: a file, or its content as a mapping.
        overrides: `"key=value"` texts or a mapping dotted key -> value.
        runs_dir: where run folders go.
        device: `auto`, `cpu` or `cuda`; of several processes each takes a GPU of its own.
        data_dir: where `data:` paths start.
        again: repeat a finished run.
        track: trackers beside metrics.jsonl: `"tensorboard"`, `"wandb: {project: mine}"`, `{"wandb": {...}}`; they
            change no result. One that fails on the way is left out, with a note.
        report: receives progress events, see `trimtab.training.runs.run_pack`.

    Returns:
        The content of run.json and `run`, the folder. `status` is `done`, or `diverged` when the loss was not finite;
        then the last good state is kept, and where there was none, `metrics` is empty and the folder holds no bundle.

    Raises:
        TrimtabError: something in the recipe, the data or the model must be changed.
    """
    specs, notes = check_trackers(track), list[str]()

    def told(event: Mapping[str, Any]) -> None:
        if event["event"] == "note":
            notes.append(event["text"])
        if report is not None:
            report(event)

    with joined() as processes:

        def ready() -> tuple[Resolution, Prepared]:
            found = resolved(recipe, overrides)
            backbone = open_backbone(found.config.backbone, processes.take_device(device))
            return found, prepare(found.config, backbone, places_of(data_dir))

        resolution, prepared = processes.together(ready)
        folder = RunFolder(Path(runs_dir) / prepared.id)
        finished = processes.on_main(lambda: folder.status == "done" and not again)
        record = run_pack([prepared], Path(runs_dir), again=again, report=told, track=specs, processes=processes)[0]
    extras: dict[str, Any] = {"reused": finished, "backbone": prepared.backbone.name}
    if notes:
        extras["notes"] = list(dict.fromkeys([*record.get("notes", ()), *notes]))
    return {**record, **extras} | ({"dropped_options": list(resolution.dropped)} if resolution.dropped else {})
