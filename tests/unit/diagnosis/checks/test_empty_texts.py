"""Empty texts: fields of the template that hold nothing."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import toy_rows, write_jsonl
from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone


def test_empty_fields_are_counted(tmp_path: Path, backbone: Backbone) -> None:
    rows = [{**r, "title": " " if i < 8 else "the film"} for i, r in enumerate(toy_rows(32, 0))]
    paths = {s: str(write_jsonl(tmp_path / f"own-{s}.jsonl", [{**r, "id": s + r["id"]} for r in rows]))
             for s in ("train", "dev", "test")}  # fmt: skip
    case = toy_case(tmp_path, backbone, template="{prompt} {title} {text} {answer}.", **paths)
    found = only("empty_texts", case)
    assert (found.severity, found.numbers["empty"]) == ("warning", {"title": 24, "text": 0})
    assert "{title} in 24 of 96 rows" in found.seen


def test_filled_fields_are_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("empty_texts", toy_case(tmp_path, backbone)).severity == "ok"
