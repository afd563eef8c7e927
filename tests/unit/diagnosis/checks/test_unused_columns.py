"""Unused columns: texts that the template leaves out."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import toy_rows, write_jsonl
from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone


def test_text_that_is_not_read_is_found_and_numbers_are_not(tmp_path: Path, backbone: Backbone) -> None:
    rows = [{**r, "body": "the film was very bad", "year": "1999"} for r in toy_rows(32, 0)]
    found = only("unused_columns", toy_case(tmp_path, backbone, train=str(write_jsonl(tmp_path / "own.jsonl", rows))))
    assert (found.severity, found.numbers["texts"]) == ("note", ["body"])
    assert found.numbers["unused"] == ["id", "body", "year"]
    assert "{body}" in found.advice


def test_a_table_that_is_read_whole_is_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("unused_columns", toy_case(tmp_path, backbone)).severity == "ok"
