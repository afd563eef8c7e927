"""Truncation: what is cut, and that slots and answers are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.contract.toy_runs import toy_run
from tests.tiny import toy_rows, write_jsonl
from tests.unit.diagnosis.cases import only, seen, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis.case import Case


def test_rows_that_are_cut_are_counted(tmp_path: Path, backbone: Backbone) -> None:
    rows = [{**r, "text": "the " * 60 + r["text"]} if i < 8 else r for i, r in enumerate(toy_rows(32, 0))]
    case = toy_case(tmp_path, backbone, train=str(write_jsonl(tmp_path / "own.jsonl", rows)), max_length=40)
    found = only("truncation", case)
    assert found.severity == "warning"
    assert (found.numbers["train"]["rows"], found.numbers["dev"]["rows"]) == (8, 0)
    assert "25.0% of train" in found.seen
    assert "task.max_length (the backbone has 64)" in found.advice


def test_the_field_that_is_cut_first_is_named(tmp_path: Path, backbone: Backbone) -> None:
    rows = [{**r, "text": "the " * 60 + r["text"]} for r in toy_rows(32, 0)]
    case = toy_case(tmp_path, backbone, train=str(write_jsonl(tmp_path / "own.jsonl", rows)), truncate=["text"])
    assert "{text} first" in only("truncation", case).seen


def test_short_rows_are_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("truncation", toy_case(tmp_path, backbone)).severity == "ok"


def test_rows_that_lost_a_slot_or_their_answer_are_a_problem(tmp_path: Path, backbone: Backbone) -> None:
    p = toy_run(tmp_path, backbone)
    first, second, *rest = p.rows["train"]
    no_slot = replace(first, encoded=replace(first.encoded, slots=first.encoded.slots[1:]))
    no_answer = replace(second, encoded=replace(second.encoded, answer_at=(len(second.encoded),)))
    torn = replace(p, rows={**p.rows, "train": [no_slot, no_answer, *rest]})
    problem, _ = seen("truncation", Case(torn))
    assert (problem.severity, problem.numbers) == ("problem", {"torn": 2})
