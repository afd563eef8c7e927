"""Records of a data directory: written once, compared ever after."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.fetching.records import Checked, check, read_record, refuse_changes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, text in {
        "cb/train.jsonl": "t",
        "cb/dev.jsonl": "d",
        "lama/TREx/P19.jsonl": "p",
        "lama/r.jsonl": "r",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_folders_are_recorded_first_and_compared_then(data: Path) -> None:
    assert check(data) == [Checked("cb", 2, is_new=True), Checked("lama", 2, is_new=True)]
    assert check(data) == [Checked("cb", 2), Checked("lama", 2)]
    stored = json.loads((data / ".trimtab" / "cb.json").read_text())
    assert stored["files"]["cb/train.jsonl"] == hashlib.sha256(b"t").hexdigest()
    refuse_changes(check(data), data)


def test_a_changed_file_is_an_error_with_its_name(data: Path) -> None:
    check(data)
    (data / "cb" / "train.jsonl").write_text("T")
    (data / "lama" / "r.jsonl").unlink()
    (data / "cb" / "new.jsonl").write_text("n")
    found = check(data)
    assert found == [
        Checked("cb", 2, changed=("cb/train.jsonl",), added=("cb/new.jsonl",)),
        Checked("lama", 2, missing=("lama/r.jsonl",)),
    ]
    what = "the file has changed since it was recorded; lama/r.jsonl is missing."
    with refused(DataError, what, where=str(data / "cb" / "train.jsonl"), fix="trimtab data check --write"):
        refuse_changes(found, data)
    refuse_changes(check(data, ["cb"], write=True), data)
    assert check(data, ["cb"]) == [Checked("cb", 3)]
    assert check(data, ["lama"])[0].missing == ("lama/r.jsonl",), "another record is left as it was"


def test_many_changes_are_told_in_short() -> None:
    found = [Checked("a", 9, changed=tuple(f"a/{i}" for i in range(6)))]
    with refused(DataError, "a/3 has changed; and 2 more", where="d/a/0", fix="--again"):
        refuse_changes(found, Path("d"))


def test_what_is_not_there_cannot_be_checked(data: Path) -> None:
    with refused(DataError, "there is no record and no folder", where=str(data / "cbb"), fix="Did you mean 'cb'?"):
        check(data, ["cbb"])
    with refused(DataError, "there is no such data directory", where=str(data / "no"), fix="--data-dir"):
        check(data / "no")


def test_a_record_of_another_version_is_refused(data: Path) -> None:
    check(data)
    path = data / ".trimtab" / "cb.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with refused(DataError, "the record has schema 7, this version of trimtab reads 1", where=str(path)):
        read_record(data, "cb")
