"""Duplicates: training rows that repeat or contradict each other."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import fact_rows, facts_task, write_jsonl
from tests.unit.diagnosis.cases import case_of, only, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis import Finding


def found_in(folder: Path, backbone: Backbone, texts: list[str], labels: list[str]) -> Finding:
    rows = [{"id": str(i), "text": t, "label": label} for i, (t, label) in enumerate(zip(texts, labels, strict=True))]
    return only("duplicates", toy_case(folder, backbone, train=str(write_jsonl(folder / "own.jsonl", rows))))


def test_a_text_with_two_answers_is_found(tmp_path: Path, backbone: Backbone) -> None:
    found = found_in(tmp_path, backbone, ["the cat", "the  cat ", "the dog"], ["positive", "negative", "negative"])
    assert found.severity == "warning"
    assert found.numbers == {"repeated": 1, "contradicting": 2, "rows": 3}


def test_a_text_that_repeats_its_answer_is_a_note(tmp_path: Path, backbone: Backbone) -> None:
    found = found_in(tmp_path, backbone, ["the cat", "the cat", "the dog"], ["positive", "positive", "negative"])
    assert (found.severity, found.numbers["repeated"]) == ("note", 1)


def test_facts_may_have_several_right_answers(tmp_path: Path, backbone: Backbone) -> None:
    task = facts_task(tmp_path)
    write_jsonl(tmp_path / "P1.jsonl", [*fact_rows(60), *({**r, "obj_label": "sun"} for r in fact_rows(10)[::2])])
    found = only("duplicates", case_of(backbone, task, {"kind": "prompt_tuning", "length": 9}))
    assert found.severity == "note"
    assert found.numbers["contradicting"] > 1


def test_different_rows_are_well(tmp_path: Path, backbone: Backbone) -> None:
    found = found_in(tmp_path, backbone, ["the cat", "a cat", "the dog"], ["positive", "positive", "negative"])
    assert (found.severity, found.seen) == ("ok", "3 training rows, all different")
