"""The form of WSC."""

from __future__ import annotations

from typing import Any

import pytest

from tests.superglue_files import wsc
from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.forms.wsc import WSC


def line(text: str, pronoun: str, index: int, referent: str = "Anna") -> dict[str, Any]:
    target = {"span1_text": referent, "span1_index": 0, "span2_text": pronoun, "span2_index": index}
    return {"idx": 0, "text": text, "target": target, "label": True}


def test_the_pronoun_is_starred_and_nothing_else_changes() -> None:
    (row,) = WSC().rows(wsc()[0], "f:1")
    assert dict(row.cells) == {
        "idx": 0, "label": True, "referent": "The cup", "pronoun": "it",
        "plain": "The cup did not fit in the bag because it was too big.",
        "text": "The cup did not fit in the bag because *it* was too big.",
    }  # fmt: skip
    assert row.remark == ""


@pytest.mark.parametrize(
    ("text", "pronoun", "index", "starred", "is_moved"),
    [
        ("Anna  ate. She, slept", "she", 2, "Anna  ate. *She*, slept", False),
        ("Anna saw it's red", "it", 2, "Anna saw *it*'s red", False),
        ('Anna said "it is" and it was', "it", 2, 'Anna said "*it* is" and it was', False),
        ("it was so that it is", "it", 5, "it was so that *it* is", True),
        ("it was itself", "it", 2, "*it* was itself", True),
    ],
)
def test_the_pronoun_is_found(text: str, pronoun: str, index: int, starred: str, is_moved: bool) -> None:
    (row,) = WSC().rows(line(text, pronoun, index), "f:1")
    assert row.cells["text"] == starred
    assert ("nearest place" in row.remark) == is_moved


def test_a_pronoun_that_is_not_there_is_refused() -> None:
    what = "the pronoun 'it' is to be word 1 of the text, counted from 0, where 'ate' stands, and it stands nowhere"
    with refused(DataError, what, where="f:4"):
        WSC().rows(line("Anna ate", "it", 1), "f:4")
    with refused(DataError, "where nothing stands", where="f:4"):
        WSC().rows(line("Anna ate", "it", 9), "f:4")


def test_empty_spans_and_missing_parts_are_refused() -> None:
    with refused(DataError, "span1_text and span2_text must not be empty", where="f:4"):
        WSC().rows(line("Anna ate", "it", 1, referent=" "), "f:4")
    with refused(DataError, "there is no 'target'", where="f:4", fix="Did you mean 'text'?"):
        WSC().rows({"text": "x", "passage": "y"}, "f:4")
