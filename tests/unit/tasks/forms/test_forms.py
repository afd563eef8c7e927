"""What forms have in common: reading files, renaming columns, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.superglue_files import multirc
from tests.tiny import write_jsonl
from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.tasks.forms import Reading, check_form, forms, number
from trimtab.tasks.reading import read_table


def test_every_form_says_what_it_expects() -> None:
    assert forms.kinds() == ["multirc", "record", "record_query", "wsc"]
    assert all(forms.get(kind).expects.startswith("{") for kind in forms.kinds())  # type: ignore[attr-defined]


def test_without_a_form_each_line_is_a_row_and_columns_may_be_renamed(tmp_path: Path) -> None:
    table = read_table(write_jsonl(tmp_path / "t.jsonl", [{"sentence1": "a", "x": 1}, {"sentence1": "b"}]), "t.jsonl")
    rows = list(Reading(None, {"sentence1": "premise"}).rows(table))
    assert [dict(row.cells) for row in rows] == [{"premise": "a", "x": 1}, {"premise": "b"}]
    assert [(row.source, row.group, row.id) for row in rows] == [("t.jsonl:1", (), ""), ("t.jsonl:2", (), "")]


def test_a_renamed_column_must_be_there(tmp_path: Path) -> None:
    table = read_table(write_jsonl(tmp_path / "t.jsonl", [{"sentence1": "a"}, {"sentense1": "b"}]), "t.jsonl")
    with refused(DataError, "there is no column 'sentence1'", where="t.jsonl:2", fix="Did you mean 'sentense1'?"):
        list(Reading(None, {"sentence1": "premise"}).rows(table))


def test_a_line_of_another_form_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    table = read_table(write_jsonl(tmp_path / "t.jsonl", [*multirc()[:1], {"idx": 7, "premise": "x"}]), "t.jsonl")
    with refused(DataError, "there is no 'passage'", where="t.jsonl:2", fix="A line of the form 'multirc' is"):
        list(Reading("multirc").rows(table))
    broken = [{"idx": 1, "passage": "text"}]
    table = read_table(write_jsonl(tmp_path / "t.jsonl", broken), "t.jsonl")
    expected = 'A line of the form \'multirc\' is {"idx": 0, "passage": {"text": "...", "questions"'
    with refused(DataError, "'passage' must be an object, got str", where="t.jsonl:1", fix=expected):
        list(Reading("multirc").rows(table))


def test_two_lines_with_the_same_number_are_refused(tmp_path: Path) -> None:
    lines = multirc()
    table = read_table(write_jsonl(tmp_path / "t.jsonl", [*lines, {**lines[0], "idx": 1}]), "t.jsonl")
    with refused(DataError, "the number 1 stands at t.jsonl:2 too", where="t.jsonl:3", fix="Number the lines"):
        list(Reading("multirc").rows(table))


def test_an_unknown_form_is_refused() -> None:
    check_form(None)
    with refused(ConfigError, "there is no form 'multrc'", where="task.form", fix="Did you mean 'multirc'?"):
        check_form("multrc")


@pytest.mark.parametrize(("value", "shown"), [(None, "nothing"), ("x", "'x'"), (True, "True"), (1.5, "1.5")])
def test_a_number_must_be_one(value: Any, shown: str) -> None:
    assert number({"idx": 3}, "idx", "f:1") == number({"idx": "3"}, "idx", "f:1") == "3"
    with refused(DataError, f"'idx' must be a whole number, got {shown}", where="f:1"):
        number({"idx": value}, "idx", "f:1")
