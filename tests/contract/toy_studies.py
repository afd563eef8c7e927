"""Small studies on the tiny model, and an executor that trains in this process and remembers what it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.tiny import toy_task
from trimtab.studies.definition import StudyConfig, check_study
from trimtab.studies.driver import Driver
from trimtab.studies.folder import StudyFolder
from trimtab.studies.work import Events, Fit, Job, Outcome, fit, train

RATES = [0.01, 0.05]


def toy_recipe(folder: Path, model: Path, **training: Any) -> dict[str, Any]:
    """A recipe of a moment: eight rows a split, four steps."""
    return {
        "backbone": {"model": str(model), "dtype": "float32"},
        "task": toy_task(folder, n=8),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"max_steps": 4, "min_steps": 4, "evaluations": 2, "batch_size": 4, **training},
    }


def toy_study(folder: Path, model: Path, **given: Any) -> StudyConfig:
    """Two prompts, two rates, two seeds, unless told otherwise."""
    axes = {"prompt.kind": ["prompt_tuning", "residual"], "training.learning_rate": RATES}
    raw = {"recipe": toy_recipe(folder, model), "axes": axes, "seeds": 2, **given}
    return check_study({k: v for k, v in raw.items() if v is not None})


class Recorder:
    """An executor in this process.

    Args:
        before: called with each job before it is trained; may raise what a kill would.
    """

    def __init__(self, before: Callable[[Job], None] = lambda job: None, events: Events | None = None) -> None:
        self.before, self.events = before, events
        self.jobs: list[Job] = []
        self.fitted: list[Job] = []

    slots = 1

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        return None

    def fit(self, job: Job, limit: int | None) -> Fit:
        self.fitted.append(job)
        return fit(job, limit)

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Outcome]]]:
        for i, job in enumerate(jobs):
            self.before(job)
            self.jobs.append(job)
            yield i, train(job, self.events)


def carried_out(study: StudyConfig, folder: Path, executor: Recorder | None = None, **options: Any) -> StudyFolder:
    """Run a study to its end."""
    place = StudyFolder(folder)
    Driver(study, place, executor or Recorder()).run(**options)
    return place


def outcome(folder: StudyFolder) -> dict[str, Any]:
    """What must be the same however often a study was disturbed: key -> status and metrics."""
    return {run.key: (run.status, run.record["metrics"]) for run in folder.read()}
