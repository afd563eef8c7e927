"""Balance: how often classes are seen in training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.toy_runs import toy_run
from tests.tiny import tagged_task, toy_rows, write_jsonl, written_task
from tests.unit.diagnosis.cases import case_of, only, seen, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis.case import Case


@pytest.mark.parametrize(("negative", "severity"), [(16, "ok"), (5, "note"), (1, "warning")])
def test_a_rare_class_is_found(tmp_path: Path, backbone: Backbone, negative: int, severity: str) -> None:
    rows = toy_rows(32, 0)
    few = [r for r in rows if r["label"] == "negative"][:negative]
    path = write_jsonl(tmp_path / "own.jsonl", [r for r in rows if r["label"] == "positive"] + few)
    found = only("balance", toy_case(tmp_path, backbone, train=str(path)))
    assert found.severity == severity
    assert found.numbers == {"counts": {"positive": 16, "negative": negative}}
    assert ("training.select=macro_f1" in found.advice) == (severity != "ok")


def test_tags_are_counted_by_word(tmp_path: Path, backbone: Backbone) -> None:
    case = case_of(backbone, tagged_task(tmp_path))
    found = only("balance", case)
    assert set(found.numbers["counts"]) == {"animal", "sky"}


def test_free_text_has_no_classes(tmp_path: Path, causal: Backbone) -> None:
    case = case_of(causal, written_task(tmp_path))
    assert seen("balance", case) == []


def test_who_selects_by_macro_f1_already_is_told_something_else(tmp_path: Path, backbone: Backbone) -> None:
    rows = [r for r in toy_rows(40, 0) if r["label"] == "positive"]
    path = write_jsonl(tmp_path / "own.jsonl", [*rows, {"id": "n", "text": "bad", "label": "negative"}])
    p = toy_run(tmp_path, backbone, {"training": {"select": "macro_f1"}}, train=str(path))
    assert "task.shots=1" in only("balance", Case(p)).advice
