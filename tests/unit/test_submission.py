"""Submission files: each task's lines as SuperGLUE's server takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.benchmark_metrics import Judged
from trimtab.errors import ConfigError, DataError
from trimtab.submission import WRITERS, file_name, submission
from trimtab.types import Example

TRUTH = ("false", "true")


def row(idx: int, label: str | None, group: tuple[str, ...] = (), share: float = 0.0, **fields: str) -> Judged:
    example = Example(f"{group}{idx}{fields}", {"idx": str(idx), **fields}, None, f"f:{idx + 1}", group=group)
    return Judged(example, label, {"true": share})


def lines(task: str, rows: list[Judged], classes: tuple[str, ...] = TRUTH) -> list[Any]:
    return [json.loads(line) for line in submission(task, rows, classes)[0].splitlines()]


def test_there_is_a_file_for_each_of_the_ten_tasks() -> None:
    names = ["BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "RTE", "WiC", "WSC", "AX-b", "AX-g"]
    assert [file_name(task) for task in WRITERS] == [f"{name}.jsonl" for name in names]


@pytest.mark.parametrize("task", ["BoolQ", "WiC"])
def test_true_and_false_are_lower_case_text(task: str) -> None:
    assert lines(task, [row(0, "true"), row(1, "false")]) == [{"idx": 0, "label": "true"}, {"idx": 1, "label": "false"}]


def test_wsc_has_capitals() -> None:
    assert lines("WSC", [row(0, "true"), row(1, "false")]) == [
        {"idx": 0, "label": "True"},
        {"idx": 1, "label": "False"},
    ]


@pytest.mark.parametrize("task", ["CB", "RTE", "AX-b", "AX-g"])
def test_entailment_is_text(task: str) -> None:
    classes = ("entailment", "not_entailment")
    assert lines(task, [row(7, "not_entailment")], classes) == [{"idx": 7, "label": "not_entailment"}]


@pytest.mark.parametrize("classes", [("choice1", "choice2"), ("0", "1")])
def test_copa_has_numbers(classes: tuple[str, ...]) -> None:
    assert lines("COPA", [row(0, classes[1]), row(1, classes[0])], classes) == [
        {"idx": 0, "label": 1}, {"idx": 1, "label": 0}
    ]  # fmt: skip


def test_multirc_is_nested() -> None:
    rows = [
        row(0, "true", ("0", "0")),
        row(1, "false", ("0", "0")),
        row(2, "true", ("0", "1")),
        row(3, "false", ("4", "2")),
    ]
    assert lines("MultiRC", rows) == [
        {"idx": 0, "passage": {"questions": [
            {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
            {"idx": 1, "answers": [{"idx": 2, "label": 1}]},
        ]}},
        {"idx": 4, "passage": {"questions": [{"idx": 2, "answers": [{"idx": 3, "label": 0}]}]}},
    ]  # fmt: skip


def test_record_names_the_likeliest_entity_of_each_query() -> None:
    rows = [row(q, "false", ("0", str(q)), share, entity=e) for q, e, share in
            ((5, "Anna", 0.2), (5, "Carl", 0.4), (6, "Anna", 0.9), (6, "Carl", 0.1))]  # fmt: skip
    assert lines("ReCoRD", rows) == [{"idx": 5, "label": "Carl"}, {"idx": 6, "label": "Anna"}]
    written = Judged(Example("a", {"idx": "3"}, None, group=("0", "3")), text="Anna Berg; Anna")
    assert lines("ReCoRD", [written], ()) == [{"idx": 3, "label": "Anna Berg"}]


def test_answers_that_name_no_class_are_counted() -> None:
    content, unnamed = submission("BoolQ", [row(0, None), row(1, "true")], TRUTH)
    assert (content.splitlines()[0], unnamed) == ('{"idx": 0, "label": "false"}', 1)


def test_rows_without_a_number_and_twice_numbered_ones_are_refused() -> None:
    with refused(DataError, "the row has no number 'idx'", where="f:1"):
        submission("BoolQ", [Judged(Example("a", {}, None, "f:1"), "true")], TRUTH)
    with refused(DataError, "the number 0 stands at f:1 too", where="f:1"):
        submission("BoolQ", [row(0, "true"), row(0, "true")], TRUTH)


@pytest.mark.parametrize(("task", "what"), [(None, "the task is none"), ("SST", "'SST' is none")])
def test_other_tasks_have_no_format(task: str | None, what: str) -> None:
    with refused(ConfigError, what, where="--format", fix="--task superglue/"):
        submission(task, [row(0, "true")], TRUTH)
