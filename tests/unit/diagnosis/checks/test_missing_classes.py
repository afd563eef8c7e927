"""Missing classes: those that are taught or asked for in no row."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import tagged_rows, tagged_task, toy_rows, write_jsonl
from tests.unit.diagnosis.cases import case_of, only, toy_case
from trimtab.backbones import Backbone


def test_a_class_that_is_never_asked_for_is_a_note(tmp_path: Path, backbone: Backbone) -> None:
    path = write_jsonl(tmp_path / "own.jsonl", [r for r in toy_rows(8, 5) if r["label"] == "positive"])
    found = only("missing_classes", toy_case(tmp_path, backbone, dev=str(path)))
    assert (found.severity, found.seen) == ("note", "'negative' is not in dev")


def test_a_tag_that_is_never_taught_is_a_warning(tmp_path: Path, backbone: Backbone) -> None:
    rows = [r for r in tagged_rows(40, 0) if not any("sky" in tag for tag in r["tags"])]
    task = {**tagged_task(tmp_path), "train": str(write_jsonl(tmp_path / "own.jsonl", rows))}
    found = only("missing_classes", case_of(backbone, task))
    assert found.severity == "warning"
    assert found.numbers["missing"]["train"] == ["B-sky", "I-sky"]


def test_all_classes_everywhere_is_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("missing_classes", toy_case(tmp_path, backbone)).severity == "ok"
