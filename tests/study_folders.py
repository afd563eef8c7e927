"""Study folders with known numbers: run folders as training writes them, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.files import write_json
from trimtab.storage import RunFolder
from trimtab.studies.definition import check_study
from trimtab.studies.driver import plan_of, planned_runs
from trimtab.studies.folder import StudyFolder
from trimtab.studies.plan import PlannedRun

RECIPE: dict[str, Any] = {
    "backbone": {"model": "nano-masked"},
    "task": {"kind": "support_desk"},
    "prompt": {"kind": "residual", "length": 10},
    "training": {"learning_rate": 1.0e-3, "max_steps": 20},
}
ROWS = 40
ENVIRONMENT = {
    "trimtab": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "device": "cpu (x86_64)",
    "threads": 2,
    "processes": 1,
    "dtype": "float32",
}


@dataclass(frozen=True)
class Result:
    """What a run has come to. `test` None: a run without metrics. `status` missing: not run at all."""

    test: float | None = 0.5
    dev: float | None = None
    loss: float = 1.0
    status: str = "done"
    error: Mapping[str, str] | None = None
    metric: str = "accuracy"
    majority: float | None = 0.25
    no_prompt: float | None = 0.3
    classes: Sequence[str] = ("billing", "delivery", "returns", "praise")
    evaluations: int = 6
    seconds: float = 12.5
    parameters: Mapping[str, int] | None = None
    task: str = "support_desk"
    has_folder: bool = True
    pack: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)
    task_metrics: Mapping[str, str] = field(default_factory=dict)
    sharpness: Mapping[str, Any] | None = None


def write_study(
    path: Path, raw: Mapping[str, Any], result: Callable[[PlannedRun], Result], fits: Mapping[str, Any] | None = None
) -> StudyFolder:
    """A study folder whose runs have ended as `result` says. `raw` is a study without its recipe."""
    definition = {"recipe": RECIPE, **raw}
    study = check_study(definition)
    runs = planned_runs(study)
    folder = StudyFolder(path)
    folder.begin(study.model_dump(mode="json", exclude_none=True), plan_of(study, runs, path.name))
    for run in runs:
        enter(folder, run, result(run))
    for key in {r.pack_key for r in runs}:
        if fits:
            folder.keep_fit(key, fits)
    return folder


def enter(folder: StudyFolder, run: PlannedRun, its: Result) -> None:
    """Write the run folder of a run and its line in the ledger."""
    if its.status == "missing":
        return
    line: dict[str, Any] = {"key": run.key, "run": None, "stage": run.stage, "cell": dict(run.cell),
                            "seeds": dict(run.seeds), "status": its.status, "pack": its.pack}  # fmt: skip
    if its.has_folder:
        line["run"] = f"{its.task}-{run.config.prompt['kind']}-{run.key}"
        _write(RunFolder(folder.runs_dir / line["run"]), run, its)
    folder.enter(line | ({"error": dict(its.error)} if its.error else {}))


def _write(folder: RunFolder, run: PlannedRun, its: Result) -> None:
    opening = {
        "id": folder.path.name,
        "task": its.task,
        "prompt": run.config.prompt["kind"],
        "backbone": "nano-masked",
        "started": "2026-11-21T10:00:00+00:00",
        "fingerprints": {"data": "d" * 64, "backbone": "b" * 64, "tokenizer": "t" * 64},
        "environment": ENVIRONMENT,
        "rows": {"train": 192, "dev": 96, "test": ROWS},
    }
    folder.begin(run.config.as_dict(), opening)
    if its.sharpness is not None:
        write_json(folder.path / "landscape" / "sharpness.json", sharpness_file(folder.path, its.sharpness))
    if its.status == "failed":
        return
    metrics: dict[str, Any] = {}
    if its.test is not None:
        dev = its.test if its.dev is None else its.dev
        right = round(its.test * ROWS)
        metrics = {
            "dev": {its.metric: dev, "loss": its.loss},
            "test": {its.metric: its.test, "rows": ROWS, **its.extra},
        }
        if its.classes:
            metrics["test"]["confusion"] = {"classes": list(its.classes), "counts": []}
            folder.write_predictions("test", predictions(its.classes, right))
        steps = range(its.evaluations)
        folder.write_history(
            {
                "step": 4 * i,
                "train_loss": None if i == 0 else 2.0 - i / 10,
                "dev": {
                    "loss": its.loss + 1 / (i + 1),
                    its.metric: dev * (0.5 + 0.5 * i / max(its.evaluations - 1, 1)),
                },
                "best": True,
            }
            for i in steps
        )
    record = {
        **opening,
        "parameters": dict(its.parameters or {"trained": 208528, "kept": 2560}),
        "metrics": metrics,
        "metric": its.metric,
        **({"task_metrics": dict(its.task_metrics)} if its.task_metrics else {}),
        "baselines": {"majority": its.majority, "no_prompt": its.no_prompt},
        "best_step": 4 * (its.evaluations - 1) if metrics else None,
        "steps": 20,
        "seconds": its.seconds,
        "seconds_per_step": its.seconds / 20,
    }
    folder.finish(record, its.status)


def sharpness_file(folder: Path, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What `trimtab landscape` would leave of a run without a prompt file; `numbers` go over it."""
    return {
        "schema": 1,
        "run": folder.name,
        "batch": {"sha256": "a" * 64, "examples": [str(i) for i in range(24)]},
        "protocol": {"seed": 0},
        "prompt_sha256": None,
        **numbers,
    }


def predictions(classes: Sequence[str], right: int) -> list[dict[str, Any]]:
    """`ROWS` predictions over the classes in turn, the first `right` of them right, the others one class further."""
    found = []
    for i in range(ROWS):
        gold = i % len(classes)
        label = gold if i < right else (gold + 1) % len(classes)
        found.append({"id": str(i), "label": classes[label], "gold": classes[gold]})
    return found
