"""Results in one file: what is left there, and a study that goes on from it elsewhere."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.toy_studies import Recorder, toy_study
from tests.unit.refusals import refused
from trimtab.errors import BundleError, ConfigError, DataError
from trimtab.files import write_json
from trimtab.studies import results
from trimtab.studies.analysis import analyse
from trimtab.studies.analysis.lines import build_lines
from trimtab.studies.definition import StudyConfig, check_study
from trimtab.studies.driver import Driver
from trimtab.studies.folder import SHARPNESS_FILE, StudyFolder
from trimtab.studies.results import FILE, read_results, write_results


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudyConfig:
    return toy_study(tmp_path_factory.mktemp("study"), tiny_folder)


@pytest.fixture(scope="module")
def left(study: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study that has ended, with its results; one run failed, and one was looked around."""
    folder = StudyFolder(tmp_path_factory.mktemp("left") / "study")
    Driver(study, folder, Recorder()).run()
    first, second = list(folder.ended().values())[:2]
    write_json(folder.runs_dir / first["run"] / SHARPNESS_FILE, {"schema": 1})
    folder.enter({**second, "status": "failed", "run": None, "error": {"type": "X", "message": "y"}})
    write_results(folder, folder.read())
    return folder


def test_a_study_goes_on_from_what_was_left_elsewhere(study: StudyConfig, left: StudyFolder, tmp_path: Path) -> None:
    executor, folder, events = Recorder(), StudyFolder(tmp_path / "study"), list[str]()
    driver = Driver(study, folder, executor, events=lambda e: events.append(e["event"]))
    driver.run(results=left.path / FILE)
    assert executor.jobs == []
    assert events[0] == "adopted"
    there, here = left.read(), folder.read()
    assert [(r.key, r.status, r.name, r.error, r.events(), r.sharpness()) for r in here] == [
        (r.key, r.status, r.name, r.error, r.events(), r.sharpness()) for r in there
    ]
    assert [r.folder for r in here] == [None] * 8
    assert sum(r.sharpness() is not None for r in here) == 1
    assert here[0].record == {k: v for k, v in there[0].record.items() if k != "working_directory"}


def test_only_what_is_missing_is_trained(study: StudyConfig, left: StudyFolder, tmp_path: Path) -> None:
    head, *runs = gzip.decompress((left.path / FILE).read_bytes()).splitlines(keepends=True)
    part = tmp_path / FILE
    part.write_bytes(gzip.compress(b"".join([head, *runs[:-2]])))
    executor, folder = Recorder(), StudyFolder(tmp_path / "study")
    Driver(study, folder, executor).run(results=part)
    missing = {json.loads(run)["line"]["key"] for run in runs[-2:]}
    assert {k for job in executor.jobs for k in job.keys} >= missing
    assert {r.key for r in folder.read() if r.folder is not None} >= missing
    whole = {r.key: r for r in left.read()}
    for run in folder.read():
        if run.key in missing:
            assert run.record["metrics"] == whole[run.key].record["metrics"]


def test_the_analysis_is_the_same(study: StudyConfig, left: StudyFolder, tmp_path: Path) -> None:
    (left.runs_dir / left.read()[0].name / SHARPNESS_FILE).unlink()  # made up above; the analysis would read it
    write_results(left, left.read())
    folder = StudyFolder(tmp_path / "study")
    Driver(study, folder, Recorder()).run(results=left.path / FILE)
    there, here = analyse(left), analyse(folder)
    for part in ("runs", "lines", "curves", "confusion", "verdict"):
        assert here[part] == there[part], part


def test_equal_studies_leave_equal_files(left: StudyFolder, study: StudyConfig, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    Driver(study, folder, Recorder()).run(results=left.path / FILE)
    write_results(folder, folder.read())
    assert (folder.path / FILE).read_bytes() == (left.path / FILE).read_bytes()


def test_no_path_of_the_machine_is_left(left: StudyFolder) -> None:
    assert "working_directory" in left.read()[0].record
    assert b"working_directory" not in gzip.decompress((left.path / FILE).read_bytes())


def test_results_of_another_plan_are_refused(left: StudyFolder, study: StudyConfig, tmp_path: Path) -> None:
    other = study.model_copy(update={"seeds": 1})
    folder = StudyFolder(tmp_path / "study")
    where = str(left.path / FILE)
    with refused(ConfigError, "another plan", where=where, fix="--extend"):
        Driver(other, folder, Recorder()).run(results=left.path / FILE)
    executor = Recorder()
    Driver(other, folder, executor).run(results=left.path / FILE, extend=True)
    assert executor.jobs == []
    assert len(folder.read()) == 4


@pytest.mark.parametrize("search", [None, {"space": {"training.learning_rate": [1e-3, 1e-2]}, "sampler": "grid"}])
def test_runs_of_an_arm_that_was_renamed_stand_under_its_new_name(
    search: Any, study: StudyConfig, tmp_path: Path
) -> None:
    def named(name: str) -> StudyConfig:
        return check_study({"recipe": study.recipe, "arms": {name: {}}, "seeds": 1, "search": search})

    folder, other = StudyFolder(tmp_path / "study"), StudyFolder(tmp_path / "other")
    Driver(named("old"), folder, Recorder()).run()
    write_results(folder, folder.read())
    for now, options in ((folder, {}), (other, {"results": folder.path / FILE})):
        executor = Recorder()
        Driver(named("new"), now, executor).run(extend=True, **options)
        assert executor.jobs == []
        (line,) = build_lines(named("new"), now.read())
        assert (len(line.reported), len(line.trials)) == (1, 2 if search else 0)


def test_results_of_other_data_are_refused(left: StudyFolder, study: StudyConfig, tmp_path: Path) -> None:
    head, *runs = gzip.decompress((left.path / FILE).read_bytes()).splitlines(keepends=True)
    changed = json.loads(head)
    changed["plan"]["sources"] = dict.fromkeys(changed["plan"]["sources"], "0" * 64)
    assert changed["plan"]["sources"]
    (tmp_path / FILE).write_bytes(gzip.compress(json.dumps(changed).encode() + b"\n" + b"".join(runs)))
    driver = Driver(study, StudyFolder(tmp_path / "study"), Recorder())
    with pytest.raises(DataError, match="data has changed"):
        driver.run(results=tmp_path / FILE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: b"not packed",
        lambda data: gzip.compress(b""),
        lambda data: gzip.compress(b"[1]\n"),
        lambda data: gzip.compress(gzip.decompress(data) + b'{"line": {}}\n'),
        lambda data: gzip.compress(gzip.decompress(data) + b"[" * 100_000),
    ],
    ids=["cut", "not packed", "empty", "a list", "a run without key", "deep"],
)
def test_damaged_results_are_refused(left: StudyFolder, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(damage((left.path / FILE).read_bytes()))
    with pytest.raises(BundleError, match=r"no results\.jsonl\.gz of a study"):
        read_results(tmp_path / FILE)


@pytest.mark.parametrize(
    ("at", "place", "value", "key"),
    [
        (0, ("fits",), [1], "fits"),
        (0, ("packs",), None, "packs"),
        (0, ("plan", "sources"), ["a"], "plan.sources"),
        (1, ("line", "key"), ["k"], "line.key"),
        (1, ("line", "status"), "running", "line.status"),
        (1, ("record", "baselines"), [1], "record.baselines"),
        (1, ("record", "metrics", "test", "confusion", "counts"), [[1]], "record.metrics.test.confusion"),
        (1, ("events",), [{"dev": {}}], "events.0.step"),
    ],
)
def test_results_whose_parts_are_of_another_sort_are_refused(
    left: StudyFolder, at: int, place: tuple[str, ...], value: Any, key: str, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in gzip.decompress((left.path / FILE).read_bytes()).splitlines()]
    holder = lines[at]
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    (tmp_path / FILE).write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    with refused(
        BundleError, f"the key {key!r} must be otherwise", where=str(tmp_path / FILE), fix="beside the report"
    ):
        read_results(tmp_path / FILE)


def test_results_that_unpack_to_too_much_are_refused(left: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_BYTES", 1000)
    with refused(BundleError, "more than 1,000 bytes", where=str(left.path / FILE), fix="beside the report"):
        read_results(left.path / FILE)


def test_results_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with refused(BundleError, "No such file", where=str(tmp_path / FILE), fix="beside the report"):
        read_results(tmp_path / FILE)
