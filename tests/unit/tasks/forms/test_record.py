"""The two forms of ReCoRD, on made-up lines and on those of the data folder."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.superglue_files import record, unlabeled
from trimtab.errors import DataError
from trimtab.tasks.forms import Reading
from trimtab.tasks.forms.record import Record, RecordQuery
from trimtab.tasks.reading import read_table


def test_a_row_per_entity_stands_in_the_place_of_the_placeholder() -> None:
    rows = Record().rows(record()[0], "f:1")
    assert [row.id for row in rows] == ["0-0-0", "0-0-1", "0-0-2", "0-0-3", "0-1-0", "0-1-1", "0-1-2", "0-1-3"]
    assert [row.cells["entity"] for row in rows[:4]] == ["Anna Berg", "Carl", "Mill", "Anna"]
    assert [row.cells["label"] for row in rows] == [True, False, False, True, False, False, True, False]
    assert rows[1].cells["query"] == "After the song, Carl thanked Carl."
    assert rows[1].group == ("0", "0")
    assert [text for text, _ in rows[1].answers] == ["Anna Berg", "Anna"]
    text = rows[1].cells["passage"]
    assert all(text.startswith(answer, start) for answer, start in rows[1].answers)
    assert "@highlight" in text


def test_entities_that_are_spelled_alike_are_one() -> None:
    line = deepcopy(record()[1])
    line["passage"]["entities"] *= 2
    assert [row.cells["entity"] for row in Record().rows(line, "f:1")] == ["Dora", "Ford", "Emil"]


def test_a_row_per_query_has_all_spellings_to_write() -> None:
    first, second = RecordQuery().rows(record()[0], "f:1")
    assert (first.cells["answer"], second.cells["answer"]) == ("Anna Berg; Anna", "Mill")
    assert first.cells["query"] == "After the song, @placeholder thanked Carl."
    assert first.cells["entities"] == "Anna Berg, Carl, Mill, Anna"
    assert (first.id, first.group, first.cells["idx"]) == ("0-0", ("0", "0"), "0")


def test_queries_of_a_test_file_have_no_answer() -> None:
    line = unlabeled(record())[0]
    assert all("label" not in row.cells and not row.answers for row in Record().rows(line, "f:1"))
    assert all("answer" not in row.cells and not row.answers for row in RecordQuery().rows(line, "f:1"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda line: line["qas"][1].update(idx=0), "the query with the number 0 stands twice"),
        (lambda line: line["qas"][0].update(query="no gap"), "there is no @placeholder in query 0"),
        (lambda line: line["qas"][0].update(answers=[]), "query 0 has no answers"),
        (lambda line: line["passage"].update(entities=[]), "the passage has no entities"),
        (lambda line: line["passage"]["entities"][0].update(end=900), "from character 0 to 900, and the passage has"),
        (lambda line: line["passage"].pop("text"), "there is no 'text'"),
    ],
)
def test_what_does_not_agree_is_refused(change: Any, what: str) -> None:
    line = deepcopy(record()[0])
    change(line)
    for form in (Record(), RecordQuery()):
        with pytest.raises(DataError) as caught:
            form.rows(line, "f:9")
        assert what in caught.value.what
        assert caught.value.where == "f:9"


def test_the_lines_of_the_data_folder(shared: Path) -> None:
    for name, n in (("train", 32), ("dev32", 32)):
        table = read_table(shared / "data" / "fewglue_32dev" / "ReCoRD" / f"{name}.jsonl")
        queries = list(Reading("record_query").rows(table))
        rows = list(Reading("record").rows(table))
        assert len(queries) == n
        assert {row.group for row in rows} == {row.group for row in queries}
        for row in rows:  # answers begin where they say, and each is an entity
            assert all(row.cells["passage"].startswith(text, start) for text, start in row.answers)
        for query in queries:
            its = [row for row in rows if row.group == query.group]
            assert {r.cells["entity"] for r in its if r.cells["label"]} == {text for text, _ in query.answers}
