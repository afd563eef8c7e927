"""Majority: what a constant answer scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tagged_task, toy_rows, write_jsonl
from tests.unit.diagnosis.cases import case_of, only, seen, toy_case
from trimtab.backbones import Backbone


def test_a_metric_that_a_constant_answer_satisfies_is_found(tmp_path: Path, backbone: Backbone) -> None:
    rows = [{**r, "label": "positive" if i else "negative"} for i, r in enumerate(toy_rows(20, 7))]
    found = only("majority", toy_case(tmp_path, backbone, test=str(write_jsonl(tmp_path / "own.jsonl", rows))))
    assert found.severity == "warning"
    assert found.numbers == {"metric": "accuracy", "dev": 0.5, "test": pytest.approx(0.95)}
    assert "macro_f1" in found.advice


def test_equal_classes_are_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("majority", toy_case(tmp_path, backbone)).severity == "ok"


def test_of_entities_a_constant_says_nothing(tmp_path: Path, backbone: Backbone) -> None:
    case = case_of(backbone, tagged_task(tmp_path))
    assert seen("majority", case) == []
