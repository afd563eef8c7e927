"""Study folders: what is written once, what is appended, what a crash leaves, what a hand has changed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import BundleError, ConfigError, StorageError, TrimtabError
from trimtab.storage import RunFolder
from trimtab.studies.folder import StudyFolder, seal

CELL = {"prompt.kind": "deep"}


def entry(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "stage": "grid", "cell": CELL, "seeds": {"init": 0}, **more}


def plan(*keys: str, digest: str = "d", searched: bool = False) -> dict[str, Any]:
    return {"digest": digest, "searched": searched, "runs": [entry(k) for k in keys]}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Three runs: one done, one failed without a folder, one to come."""
    study = StudyFolder(tmp_path / "study")
    study.begin({"seeds": 1}, plan("a", "b", "c"))
    run = RunFolder(study.runs_dir / "one")
    run.begin({}, {"id": "one"})
    run.finish({"id": "one", "metrics": {"test": {"accuracy": 0.5}}}, "done")
    study.enter(entry("a", status="done", run="one", pack=0))
    study.enter(entry("b", status="failed", run=None, error={"type": "X", "message": "y"}, pack=0))
    return study


def test_runs_are_read_with_their_records(folder: StudyFolder) -> None:
    done, failed, missing = folder.read()
    assert (done.key, done.status, done.pack, done.cell) == ("a", "done", 0, CELL)
    assert done.record["metrics"]["test"]["accuracy"] == 0.5
    assert done.folder == folder.runs_dir / "one"
    assert (failed.status, failed.folder, failed.record, failed.error) == (
        "failed",
        None,
        {},
        {"type": "X", "message": "y"},
    )
    assert (missing.status, missing.record) == ("missing", {})


def test_what_decides_no_outcome_may_change_under_the_same_plan(folder: StudyFolder) -> None:
    folder.begin({"seeds": 1, "baseline": {"arm": "none"}}, plan("a", "b", "c"))
    assert "arm: none" in (folder.path / "study.yaml").read_text()
    assert [r.key for r in folder.read()] == ["a", "b", "c"]


def test_runs_that_a_search_added_are_read_too(folder: StudyFolder) -> None:
    folder.enter(entry("late", status="failed", run=None, error=None))
    assert [r.key for r in folder.read()] == ["a", "b", "c"]
    folder.begin({}, plan(digest="other", searched=True), extend=True)
    assert [r.key for r in folder.read()] == ["a", "b", "late"]


def test_the_last_line_of_a_run_counts(folder: StudyFolder) -> None:
    folder.enter(entry("b", status="diverged", run=None))
    assert folder.ledger()["b"]["status"] == "diverged"
    assert len((folder.path / "ledger.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("hand", ["edits", "adds", "removes"])
def test_a_run_folder_that_was_edited_is_found(folder: StudyFolder, hand: str) -> None:
    run = folder.runs_dir / "one"
    changed = "config.yaml"
    if hand == "edits":
        record = json.loads((run / "run.json").read_text())
        record["metrics"]["test"]["accuracy"] = 0.9
        (run / "run.json").write_text(json.dumps(record))
        changed = "run.json"
    elif hand == "adds":
        (run / "notes.txt").write_text("")
        changed = "notes.txt"
    else:
        (run / "config.yaml").unlink()
    with refused(BundleError, f"ended: {changed}.", where=str(run), fix="remove the folder to train the run again"):
        folder.read()


def test_what_is_no_result_is_not_sealed(folder: StudyFolder) -> None:
    run = folder.runs_dir / "one"
    (run / ".hidden").write_text("")
    (run / "resume.safetensors").write_bytes(b"")
    assert sorted(seal(run)) == ["config.yaml", "run.json"]
    folder.read()


def test_a_removed_run_folder_is_a_run_to_come(folder: StudyFolder) -> None:
    for file in (folder.runs_dir / "one").iterdir():
        file.unlink()
    (folder.runs_dir / "one").rmdir()
    assert [r.status for r in folder.read()] == ["missing", "failed", "missing"]


def test_a_line_cut_off_by_a_crash_is_dropped_and_written_over(folder: StudyFolder) -> None:
    ledger = folder.path / "ledger.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"key": "c", "sta')
    assert list(folder.ledger()) == ["a", "b"]
    folder.enter(entry("c", status="failed", run=None))
    assert ledger.read_bytes().startswith(whole)
    assert list(folder.ledger()) == ["a", "b", "c"]


def test_a_damaged_line_is_named(folder: StudyFolder) -> None:
    ledger = folder.path / "ledger.jsonl"
    ledger.write_bytes(b"{oops}\n" + ledger.read_bytes())
    with refused(
        BundleError, "this line is not a JSON object", where=f"{ledger}:1", fix="Restore it, or remove the line."
    ):
        folder.read()


def test_a_full_disk_leaves_no_half_line(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = folder.path / "ledger.jsonl"
    whole = ledger.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with refused(StorageError, "No space left on device", where=str(ledger), fix="Free some space"):
            folder.enter(entry("c", status="failed", run=None))
    assert ledger.read_bytes() == whole


def test_packs_are_numbered_in_order(folder: StudyFolder) -> None:
    assert [folder.begin_pack(["a", "b"]), folder.begin_pack(["c"])] == [0, 1]
    assert folder.packs() == [{"number": 0, "keys": ["a", "b"]}, {"number": 1, "keys": ["c"]}]


def test_fits_are_kept(folder: StudyFolder) -> None:
    assert folder.fits() == {}
    folder.keep_fit("k", {"size": 3})
    folder.keep_fit("l", {"size": 4})
    assert folder.fits() == {"k": {"size": 3}, "l": {"size": 4}}


def test_another_plan_is_refused_unless_asked(folder: StudyFolder) -> None:
    folder.begin({}, plan("a", "b", "c"))
    where = str(folder.path)
    with refused(ConfigError, "has 1 runs that the new plan lacks and lacks 2 of its 4", where=where, fix="--extend"):
        folder.begin({}, plan("a", "b", "d", "e", digest="other"))
    with refused(ConfigError, "compared or tuned by other axes", where=where, fix="--name"):
        folder.begin({}, plan("a", "b", "c", digest="other"))
    folder.begin({}, plan("a", "d", digest="other"), extend=True)
    assert [(r.key, r.status) for r in folder.read()] == [("a", "done"), ("d", "missing")]


def test_a_folder_of_another_schema_is_refused(folder: StudyFolder) -> None:
    path = folder.path / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 9}))
    for call in (folder.read, lambda: folder.begin({}, plan("a"))):
        with refused(TrimtabError, "schema 9, this version of trimtab reads 1", where=str(path), fix="--studies-dir"):
            call()


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with refused(TrimtabError, "there is no plan.json", where=str(tmp_path), fix="studies/NAME"):
        StudyFolder(tmp_path).read()
    with refused(TrimtabError, "no such folder", where=str(tmp_path / "x"), fix="studies/NAME"):
        StudyFolder(tmp_path / "x").read()
