"""The form of MultiRC."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.superglue_files import multirc, unlabeled
from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.forms.multirc import MultiRC


def test_a_row_per_answer_with_the_numbers_of_passage_and_question() -> None:
    rows = [row for line in multirc() for row in MultiRC().rows(line, "f:1")]
    assert [row.id for row in rows] == ["0-0-0", "0-0-1", "0-0-2", "0-1-3", "0-1-4", "1-2-5", "1-2-6"]
    assert [row.group for row in rows] == [("0", "0")] * 3 + [("0", "1")] * 2 + [("1", "2")] * 2
    assert [row.cells["label"] for row in rows] == [True, False, True, True, False, False, True]
    assert dict(rows[1].cells) == {
        "passage": "Anna has a dog and a cat. The dog is old.", "question": "What does Anna have?", "answer": "A bird",
        "idx": "1", "label": False,
    }  # fmt: skip


def test_answers_of_a_test_file_have_no_label() -> None:
    rows = MultiRC().rows(unlabeled(multirc())[0], "f:1")
    assert len(rows) == 5
    assert all("label" not in row.cells for row in rows)


def changed(change: Any) -> dict[str, Any]:
    line = deepcopy(multirc()[0])
    change(line["passage"]["questions"])
    return line


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda qs: qs[1].update(idx=0), "the question with the number 0 stands twice"),
        (lambda qs: qs[0]["answers"][1].update(idx=0), "the answer to question 0 with the number 0 stands twice"),
        (lambda qs: qs[0]["answers"].clear(), "question 0 has no answers"),
        (lambda qs: qs[0]["answers"][0].update(label=2), "the label of an answer is 0 or 1, got 2"),
        (lambda qs: qs[0]["answers"][0].pop("text"), "there is no 'text'"),
        (lambda qs: qs[0].pop("idx"), "'idx' must be a whole number, got nothing"),
    ],
)
def test_numbers_that_do_not_agree_are_refused(change: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        MultiRC().rows(changed(change), "f:3")
    assert what in caught.value.what
    assert caught.value.where == "f:3"


def test_a_twice_numbered_question_comes_with_advice() -> None:
    with refused(DataError, "stands twice", where="f:3", fix="Number them anew."):
        MultiRC().rows(changed(lambda qs: qs[1].update(idx=0)), "f:3")
