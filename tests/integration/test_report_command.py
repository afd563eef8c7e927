"""`trimtab report` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.study_folders import Result, write_study
from trimtab import api
from trimtab.cli import main
from trimtab.studies.folder import StudyFolder
from trimtab.studies.plan import PlannedRun


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    def result(run: PlannedRun) -> Result:
        return Result(0.5 + 0.01 * run.seeds["init"] + (0.1 if run.cell["prompt.kind"] == "residual" else 0.0))

    return write_study(tmp_path / "small", {"axes": {"prompt.kind": ["prompt_tuning", "residual"]}, "seeds": 5}, result)


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def test_it_prints_table_verdict_and_files(study: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", study.path) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].strip() == "Test accuracy of every line"
    assert lines[1].split()[:3] == ["Line", "Setting", "Runs"]
    assert lines[2].split()[:2] == ["residual", "5"]
    assert "0.620 ± 0.016" in lines[2]
    assert lines[3].split()[:2] == ["prompt_tuning", "baseline"]
    assert "residual has the highest mean test accuracy" in out
    for name in ("report.html", "report.md", "runs.csv", "study.json"):
        assert str(study.path / name) in out
        assert (study.path / name).exists()


def test_json_is_one_object_without_what_is_there_for_every_run(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("report", study.path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lines"][0]["mean"] == pytest.approx(0.52)
    assert found["folder"] == str(study.path)
    assert found["files"]["report.html"] == str(study.path / "report.html")
    assert "runs" not in found
    assert len(json.loads((study.path / "study.json").read_text())["runs"]) == 10


def test_the_function_returns_what_study_json_holds(study: StudyFolder) -> None:
    found = api.report(study.path)
    there = json.loads((study.path / "study.json").read_text())
    assert {k: v for k, v in json.loads(json.dumps(found)).items() if k != "files"} == {
        **there,
        "folder": str(study.path),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.mkdir(), "there is no plan.json"),
        (lambda path: (path.mkdir(), (path / "plan.json").write_text('{"schema": 99}')), "the study has schema 99"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], make, message: str) -> None:
    make(tmp_path / "other")
    assert call("report", tmp_path / "other") == 2
    err = capsys.readouterr().err
    assert message in err
    assert str(tmp_path / "other") in err.replace("\n", "")


def test_a_run_edited_by_hand_is_refused_and_nothing_is_written(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    next(iter(study.runs_dir.glob("*/predictions.test.jsonl"))).write_text("")
    assert call("report", study.path) == 2
    assert "not as it was when the run ended: predictions.test.jsonl" in capsys.readouterr().err
    assert not (study.path / "report.html").exists()
