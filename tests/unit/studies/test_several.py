"""What each task scores in a study of runs on several."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study_folders import Result, write_study
from trimtab.reports.markdown import markdown
from trimtab.reports.page import page
from trimtab.studies.analysis import analyse
from trimtab.studies.plan import PlannedRun

METRICS = {"mails": "accuracy", "names": "entity_f1"}


def result(run: PlannedRun) -> Result:
    seed = run.seeds["init"]
    if run.cell["prompt.kind"] == "residual":
        return Result(0.5)
    if seed == 2:
        return Result(status="failed", error={"type": "ValueError", "message": "x"}, has_folder=False)
    own = {"mails.accuracy": 0.8 + 0.1 * seed, "names.entity_f1": 0.3}
    return Result(0.6 + 0.05 * seed, metric="score", classes=(), extra=own, task_metrics=METRICS)


def test_each_task_of_a_line_is_told(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"axes": {"prompt.kind": ["deep", "residual"]}, "seeds": 3}, result)
    facts = analyse(folder)
    (line,) = facts["of_tasks"]
    assert line["label"] == "deep"
    assert {name: its["metric"] for name, its in line["tasks"].items()} == METRICS
    assert line["tasks"]["mails"]["mean"] == pytest.approx(0.85)
    assert line["tasks"]["mails"]["sd"] == pytest.approx(0.1 / 2**0.5)
    assert (line["tasks"]["names"]["sd"], line["tasks"]["names"]["n"]) == (0.0, 2), "a run without a result is left out"
    text = markdown(facts)
    assert "| Line | mails | names |" in text
    assert "| deep | 0.850 ± 0.071 | 0.300 ± 0.000 |" in text
    assert "Each task: test mean" in page(facts)


def test_runs_on_one_task_have_no_such_table(tmp_path: Path) -> None:
    facts = analyse(write_study(tmp_path / "s", {"seeds": 2}, lambda run: Result()))
    assert facts["of_tasks"] == []
    assert "Each task" not in markdown(facts) + page(facts)
