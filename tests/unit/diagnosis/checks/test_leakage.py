"""Leakage: rows of dev or test that stand in train."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import toy_rows, write_jsonl
from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis import Finding

Rows = list[dict[str, str]]


def rows(n: int, start: int) -> Rows:
    """Rows that all differ."""
    return [
        {"text": f"{'a ' * i}{('good', 'bad')[i % 2]}", "label": ("positive", "negative")[i % 2]}
        for i in range(start + 1, start + n + 1)
    ]


def found_in(folder: Path, backbone: Backbone, train: Rows, dev: Rows, test: Rows) -> Finding:
    splits = {"train": train, "dev": dev, "test": test}
    return only("leakage", toy_case(folder, backbone, **{
        s: str(write_jsonl(folder / f"own-{s}.jsonl", its)) for s, its in splits.items()
    }))  # fmt: skip


def test_rows_that_are_learned_from_and_scored_are_counted(tmp_path: Path, backbone: Backbone) -> None:
    train = rows(10, 0)
    again = {"text": f"  {train[3]['text'].replace(' ', '  ')} ", "label": "positive"}
    dev = [*rows(9, 10), again]
    found = found_in(tmp_path, backbone, train, dev, [*rows(9, 20), dev[0]])
    assert found.severity == "problem"
    assert found.numbers == {"dev_in_train": 1, "test_in_train": 0, "test_in_dev": 1}
    assert "1 of dev in train, 1 of test in dev" in found.seen
    assert "task.test" in found.advice


def test_one_row_of_thirty_is_a_warning(tmp_path: Path, backbone: Backbone) -> None:
    assert found_in(tmp_path, backbone, rows(4, 0), rows(30, 3), rows(4, 40)).severity == "warning"


def test_other_texts_of_the_same_words_are_no_leak(tmp_path: Path, backbone: Backbone) -> None:
    found = found_in(tmp_path, backbone, rows(6, 0), rows(6, 10), rows(6, 20))
    assert (found.severity, found.advice) == ("ok", "")


def test_columns_that_the_model_does_not_read_do_not_hide_a_leak(tmp_path: Path, backbone: Backbone) -> None:
    its = [{"text": r["text"], "label": r["label"]} for r in toy_rows(6, 0)]
    splits = [[{**r, "note": f"{s} {i}"} for i, r in enumerate(its)] for s in ("one", "two", "three")]
    assert found_in(tmp_path, backbone, *splits).numbers["test_in_train"] == 6
