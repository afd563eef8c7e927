"""What a study makes of landscapes in its run folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.study_folders import Result, write_study
from tests.unit.refusals import refused
from trimtab.errors import BundleError, DataError
from trimtab.landscape import sharpness as written
from trimtab.landscape.surface import FOLDER
from trimtab.studies.analysis import analyse
from trimtab.studies.analysis.sharpness import MEASURES, SCHEMA, runs_to_measure
from trimtab.studies.folder import SHARPNESS_FILE as FILE
from trimtab.studies.folder import StudyFolder, seal
from trimtab.studies.plan import PlannedRun

ARMS = {"arms": {f"arm {i}": {"training.weight_decay": 0.01 * i} for i in range(6)}, "seeds": 2}


def measured(change: Callable[[PlannedRun], dict[str, Any] | None]) -> Callable[[PlannedRun], Result]:
    def result(run: PlannedRun) -> Result:
        i = int(run.cell["arm"][-1])
        its = {"text": {"trace": 1.0 + i + run.seeds["init"], "slope": None}, "words": None}
        more = change(run)
        return Result(0.6 - 0.01 * i - 0.001 * i * run.seeds["init"], sharpness=None if more is None else its | more)

    return result


def study(path: Path, change: Callable[[PlannedRun], dict[str, Any] | None], raw: dict[str, Any] = ARMS) -> StudyFolder:
    return write_study(path, raw, measured(change))


def test_lines_are_points_and_ranks_are_compared(tmp_path: Path) -> None:
    (found,) = analyse(study(tmp_path / "s", lambda run: {}))["stability"]
    assert found["measures"] == ["text.trace"]
    assert found["examples"] == 24
    first = found["points"][0]
    assert (first["label"], first["n"], first["measured"], first["mean"], first["sd"]) == ("arm 0", 2, 2, 0.6, 0.0)
    assert first["values"] == {"text.trace": {"mean": 1.5, "sd": pytest.approx(0.5**0.5), "n": 2}}
    its = found["correlations"]["text.trace"]
    assert its["mean"]["rho"] == pytest.approx(-1.0)
    assert its["sd"]["rho"] == pytest.approx(1.0)
    assert its["sd"]["n"] == 6


def test_runs_that_were_not_measured_are_counted_and_lines_without_any_left_out(tmp_path: Path) -> None:
    def some(run: PlannedRun) -> dict[str, Any] | None:
        alone = run.cell["arm"] == "arm 1" and run.seeds["init"] == 0
        return {} if alone or run.cell["arm"] in ("arm 2", "arm 3") else None

    (found,) = analyse(study(tmp_path / "s", some))["stability"]
    assert [(p["label"], p["measured"], p["n"]) for p in found["points"]] == [
        ("arm 1", 1, 2), ("arm 2", 2, 2), ("arm 3", 2, 2)
    ]  # fmt: skip
    assert found["correlations"]["text.trace"]["mean"]["low"] is None


def test_without_landscapes_there_is_nothing(tmp_path: Path) -> None:
    assert analyse(study(tmp_path / "s", lambda run: None))["stability"] == []


def test_one_seed_has_no_spread_to_compare(tmp_path: Path) -> None:
    (found,) = analyse(study(tmp_path / "s", lambda run: {}, {**ARMS, "seeds": 1}))["stability"]
    assert found["correlations"]["text.trace"]["sd"] is None
    assert found["correlations"]["text.trace"]["mean"]["rho"] == pytest.approx(-1.0)


def test_tasks_stay_apart(tmp_path: Path) -> None:
    raw = {"axes": {"task.kind": ["sst2", "trec"], "prompt.kind": ["prompt_tuning", "residual", "deep"]}, "seeds": 2}

    def result(run: PlannedRun) -> Result:
        kind = run.cell["task.kind"]
        return Result(task=kind, sharpness={"text": {"trace": 1.0}, "batch": {"sha256": kind, "examples": []}})

    found = analyse(write_study(tmp_path / "s", raw, result))["stability"]
    assert [(g["task"], len(g["points"])) for g in found] == [("sst2", 3), ("trec", 3)]


@pytest.mark.parametrize("other", [{"batch": {"sha256": "x"}}, {"protocol": {"seed": 7}}])
def test_numbers_that_mean_different_things_are_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    folder = study(tmp_path / "s", lambda run: other if run.cell["arm"] == "arm 3" else {})
    with refused(DataError, "measured in the same way; these runs differ", where=FILE, fix="landscape --study"):
        analyse(folder)


def test_a_file_of_another_prompt_is_refused(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", lambda run: {"prompt_sha256": "0" * 64})
    path = next(iter(sorted(folder.runs_dir.glob("*")))) / FILE
    with pytest.raises(BundleError, match="another prompt than that of the run") as caught:
        analyse(folder)
    assert "landscape/sharpness.json" in str(caught.value.where)
    assert path.exists()


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the sharpness has schema 9, this version of trimtab reads 1") as caught:
        analyse(study(tmp_path / "s", lambda run: {"schema": 9}))
    assert caught.value.fix == "Measure it again: trimtab landscape."


@pytest.mark.parametrize("damage", [{"text": "x"}, {"text": {"top_eigenvalue": "x"}}, {"batch": "x"}])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="the file was edited or damaged") as caught:
        analyse(study(tmp_path / "s", lambda run: damage))
    assert "landscape/sharpness.json" in str(caught.value.where)


def test_it_reads_what_the_landscape_writes() -> None:
    assert f"{FOLDER}/{written.FILE}" == FILE
    assert written.SCHEMA == SCHEMA
    spaces = {f"{space}.{name}" for space in ("text", "prompt") for name in written.SpaceSharpness.__annotations__}
    words = {f"words.{name}" for name in written.WordJumps.__annotations__}
    assert set(MEASURES) <= spaces | words


def test_measuring_a_run_does_not_break_the_seal_of_its_study(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", lambda run: None)
    one = next(iter(folder.runs_dir.glob("*")))
    (one / "landscape").mkdir()
    (one / FILE).write_text(json.dumps({"schema": 1, "prompt_sha256": None, "text": {"trace": 2.0}}))
    assert len(analyse(folder)["stability"]) == 1


def test_runs_that_can_be_measured_together_are_a_group(tmp_path: Path) -> None:
    raw = {"axes": {"task.kind": ["sst2", "trec"], "prompt.kind": ["residual", "deep"]}, "seeds": 2}
    folder = write_study(tmp_path / "s", raw, lambda run: Result(task=run.cell["task.kind"]))
    with refused(DataError, "no run of the study has finished", where=str(folder.path), fix="trimtab study"):
        runs_to_measure(folder)
    for one in folder.runs_dir.iterdir():
        (one / "bundle.json").write_text("{}")
    (tmp_path / "s" / "ledger.jsonl").write_text(
        "".join(
            json.dumps({**line, "files": seal(folder.runs_dir / line["run"])}) + "\n"
            for line in folder.ledger().values()
        )
    )
    groups = runs_to_measure(folder)
    assert [sorted(p.name.split("-")[0] for p in group) for group in groups] == [["sst2"] * 4, ["trec"] * 4]
