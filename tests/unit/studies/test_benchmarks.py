"""The average of a benchmark in a study's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.study_folders import Result, write_study
from trimtab.reports.study import write_report
from trimtab.studies.analysis import analyse
from trimtab.studies.plan import PlannedRun
from trimtab.studies.statistics.averages import FEWGLUE

TWO = {"cb": {"accuracy": 0.9, "macro_f1": 0.5}, "multirc": {"f1a": 0.6, "question_em": 0.2}}
PLAIN = {"boolq": 0.7, "copa": 0.6, "rte": 0.5, "wic": 0.4, "wsc": 0.8}


def result(run: PlannedRun) -> Result:
    task = run.cell["task.kind"].partition("/")[2].partition("_")[0]
    if task in TWO:  # the score of the run is not what the metrics say, to see which is taken
        return Result(0.123, metric="score", task=run.cell["task.kind"], extra=TWO[task])
    return Result(PLAIN[task] + 0.01 * run.seeds["init"], task=run.cell["task.kind"])


def studied(folder: Path, kinds: list[str], seeds: int = 3) -> Any:
    return write_study(folder, {"axes": {"task.kind": kinds}, "seeds": seeds}, result)


KINDS = [f"fewglue_32dev/{task}" for task in FEWGLUE]


def test_metrics_of_a_task_come_first_then_tasks(tmp_path: Path) -> None:
    (method,) = analyse(studied(tmp_path / "s", KINDS))["aggregate"]["methods"]
    found = method["benchmark"]
    assert found["name"] == "fewglue_average"
    tasks = {"cb": 0.7, "multirc": 0.4, **{t: v + 0.01 for t, v in PLAIN.items()}}
    assert found["tasks"] == pytest.approx(tasks)
    assert found["mean"] == pytest.approx(sum(tasks.values()) / 7)
    assert found["interval"]["low"] <= found["mean"] <= found["interval"]["high"]


def test_presets_that_read_a_task_in_another_way_count_as_the_task(tmp_path: Path) -> None:
    kinds = [k.replace("copa", "copa_cloze").replace("/cb", "/cb_text") for k in KINDS]
    assert analyse(studied(tmp_path / "s", kinds))["aggregate"]["methods"][0]["benchmark"]["mean"] > 0


@pytest.mark.parametrize(
    "kinds",
    [KINDS[1:], [*KINDS, "fewglue_32dev/cb_text"], [*KINDS[1:], "fewglue/boolq"], ["superglue/rte", "superglue/cb"]],
    ids=["one missing", "one twice", "two suites", "eight tasks wanted"],
)
def test_there_is_none_for_other_sets_of_tasks(kinds: list[str], tmp_path: Path) -> None:
    assert {m["benchmark"] for m in analyse(studied(tmp_path / "s", kinds))["aggregate"]["methods"]} == {None}


def test_one_seed_has_no_interval_and_a_report_shows_the_average(tmp_path: Path) -> None:
    folder = studied(tmp_path / "one", KINDS, seeds=1)
    assert analyse(folder)["aggregate"]["methods"][0]["benchmark"]["interval"] is None
    folder = studied(tmp_path / "s", KINDS)
    facts = write_report(folder)
    mean = facts["aggregate"]["methods"][0]["benchmark"]["mean"]
    for name in ("report.md", "report.html"):
        text = (folder.path / name).read_text()
        assert "FewGLUE average" in text
        assert f"{mean:.3f}" in text
