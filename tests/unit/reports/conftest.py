"""Reports of made-up studies that between them show every part of a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.study_folders import Result, write_study
from tests.unit.reports.made_landscapes import surface
from trimtab.landscape.surface import write_landscape
from trimtab.reports.study import write_report
from trimtab.studies.folder import StudyFolder
from trimtab.studies.plan import PlannedRun

HOSTILE = "<script>alert('x')</script> & \"quotes\" | pipes"
LONG = "a name that goes on and on, as somebody wrote it into the study file, version "


@dataclass(frozen=True)
class Report:
    """A written report: its folder and the content of study.json."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def html(self) -> str:
        """The page."""
        return (self.folder / "report.html").read_text(encoding="utf-8")


def _rates(run: PlannedRun) -> Result:
    seed, rate = run.seeds["init"], run.cell["training.learning_rate"]
    if run.cell["arm"] == HOSTILE and seed == 0:
        return Result(None, status="failed", error={"type": "ValueError", "message": HOSTILE}, has_folder=False)
    if run.cell["arm"] == "plain" and rate == 0.1 and seed == 1:
        return Result(None, status="diverged")
    score = 0.4 + 0.02 * seed + (0.1 if run.cell["arm"] == "steady" else 0.0) - (0.05 if rate == 0.001 else 0.0)
    return Result(0.25 if run.cell["arm"] == "plain" and seed == 2 else score)


def _lengths(run: PlannedRun) -> Result:
    wobble = 0.01 * ((5 * run.seeds["init"] + 3 * run.seeds["data_order"]) % 7)
    return Result(0.4 + 0.001 * run.cell["prompt.length"] + wobble)


def _tasks(run: PlannedRun) -> Result:
    if run.seeds["init"] == 2 and run.cell["task.kind"] == "trec":
        return Result(status="missing")
    return Result(0.6 + 0.01 * run.seeds["init"], task=run.cell["task.kind"])


def _many(run: PlannedRun) -> Result:
    return Result(0.4 + 0.001 * (int(run.key[:4], 16) % 97), evaluations=3)


def _landscapes(run: PlannedRun) -> Result:
    """Lines of ascending sharpness and spread; one was not measured, one lacks numbers of its prompt."""
    i, seed = int(run.cell["arm"][-1]), run.seeds["init"]
    sharp: dict[str, Any] = {
        "text": {"top_eigenvalue": 0.02 * 10**i + 0.001 * seed, "epsilon_sharpness": 1.0 + i, "trace": -3.0 + i},
        "prompt": {"top_eigenvalue": 2.0 - 0.2 * i, "range": 1.5} if i else None,
        "words": {"mean_absolute": 0.1 * i},
    }
    score = (0.5, 0.55, 0.65, 0.6, 0.7, 0.5)[i]
    return Result(score + 0.01 * (i + 1) * seed, sharpness=None if i == 5 else sharp)


def _look_around(folder: StudyFolder) -> None:
    """Surfaces of two runs of arm 0, one of arm 1."""
    runs = [run for run in folder.read() if run.cell["arm"] in ("arm 0", "arm 1")]
    names = {run.name: 1.0 + run.seeds["init"] for run in runs[:2] + runs[3:4] if run.name}
    for name, bend in names.items():
        for view in ("text", "prompt"):
            write_landscape(folder.runs_dir / name, surface(name, None, view, bend, compared=list(names)))


STUDIES: dict[str, tuple[dict[str, Any], Callable[[PlannedRun], Result]]] = {
    "rates": (
        {
            "arms": {
                "plain": {"prompt.kind": "prompt_tuning"},
                "steady": {"prompt.kind": "residual"},
                HOSTILE: {"prompt.kind": "deep"},
            },
            "axes": {"training.learning_rate": [0.001, 0.01, 0.1]},
            "seeds": 5,
        },
        _rates,
    ),
    "lengths": (
        {
            "axes": {"prompt.kind": ["prompt_tuning", "residual"], "prompt.length": [1, 10, 100]},
            "seeds": {"init": 3, "data_order": 3},
        },
        _lengths,
    ),
    "tasks": (
        {"axes": {"task.kind": ["sst2", "trec"], "prompt.kind": ["prompt_tuning", "residual"]}, "seeds": 3},
        _tasks,
    ),
    "many": (
        {
            "arms": {f"{LONG}{i}": {"training.weight_decay": 0.01 * i} for i in range(8)},
            "axes": {"training.learning_rate": [0.001, 0.01]},
            "seeds": 2,
        },
        _many,
    ),
    "landscapes": (
        {"arms": {f"arm {i}": {"training.weight_decay": 0.01 * i} for i in range(6)}, "seeds": 3},
        _landscapes,
    ),
    "one": ({"seeds": 1}, lambda run: Result()),
    "nothing": (
        {"axes": {"prompt.kind": ["prompt_tuning", "residual"]}, "seeds": 2},
        lambda run: Result(status="missing"),
    ),
}


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """A report by the name of its study, written once."""
    root, there = tmp_path_factory.mktemp("studies"), dict[str, Report]()

    def write(name: str) -> Report:
        if name not in there:
            raw, result = STUDIES[name]
            folder = write_study(root / name, raw, result)
            if name == "landscapes":
                _look_around(folder)
            there[name] = Report(folder.path, write_report(folder))
        return there[name]

    return write
