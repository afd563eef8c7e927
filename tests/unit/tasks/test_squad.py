"""Reading questions and contexts: both formats, and the place of what cannot be read."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.squad import Question, read_squad

CONTEXT = "The Danube rises in Germany. The Danube ends in the sea."
UNIQUE = "Make the ids unique"
OFFSET = "Correct answer_start"


def nested(*qas: Any, context: Any = CONTEXT) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Rivers", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def qa(name: Any = "q1", *answers: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    spans = [{"text": t, "answer_start": s} for t, s in answers or (("Germany", 20),)]
    return {"id": name, "question": "Where does it rise?", "answers": spans, **more}


def row(name: Any = "q1", texts: Any = ("Germany",), starts: Any = (20,), **more: Any) -> dict[str, Any]:
    answers = {"text": list(texts), "answer_start": list(starts)}
    return {"id": name, "context": CONTEXT, "question": "Where does it rise?", "answers": answers, **more}


def read(folder: Path, content: Any, **options: Any) -> tuple[Question, ...]:
    """A list is a file of rows, anything else one JSON value."""
    path = folder / ("t.jsonl" if isinstance(content, list) else "t.json")
    text = "\n".join(map(json.dumps, content)) if isinstance(content, list) else json.dumps(content)
    path.write_text(text if not isinstance(content, str) else content, encoding="utf-8")
    return read_squad(path, path.name, **options)


def without(mapping: dict[str, Any], *keys: str) -> dict[str, Any]:
    copy = deepcopy(mapping)
    for key in keys:
        del copy[key]
    return copy


def test_both_formats_hold_the_same_questions(tmp_path: Path) -> None:
    nothing = {**qa("q2"), "answers": [], "is_impossible": True, "plausible_answers": [{"text": "x"}]}
    first = read(tmp_path, nested(qa("q1", ("Germany", 20), ("in Germany", 17), is_impossible=False), nothing))
    second = read(tmp_path, [row("q1", ["Germany", "in Germany"], [20, 17]), row("q2", [], [])])
    assert first == (
        Question("q1", "Where does it rise?", CONTEXT, (("Germany", 20), ("in Germany", 17)), False, "t.json:q1"),
        Question("q2", "Where does it rise?", CONTEXT, (), True, "t.json:q2"),
    )
    assert [q.source for q in second] == ["t.jsonl:1", "t.jsonl:2"]
    assert [(q.id, q.context, q.answers, q.is_impossible) for q in second] == [
        (q.id, q.context, q.answers, q.is_impossible) for q in first
    ]


def test_numbers_are_ids_and_the_path_is_the_name(tmp_path: Path) -> None:
    assert read(tmp_path, nested(qa(7)))[0].id == "7"
    assert read(tmp_path, [row(7)])[0].id == "7"
    assert read_squad(tmp_path / "t.json")[0].source == f"{tmp_path / 't.json'}:7"


def test_offsets_count_characters(tmp_path: Path) -> None:
    text = nested(qa("q", ("é", 2)), context="😀 é")
    assert read(tmp_path, text)[0].answers == (("é", 2),)


def test_parquet_rows_are_read_like_jsonl(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist([row(), row("q2", [], [])]), tmp_path / "t.parquet")
    found = read_squad(tmp_path / "t.parquet", "t.parquet")
    assert [(q.source, q.answers) for q in found] == [("t.parquet:row 1", (("Germany", 20),)), ("t.parquet:row 2", ())]


# Offsets


@pytest.mark.parametrize(
    ("text", "start", "what", "fix"),
    [
        (
            "Germany",
            21,
            "'Germany' of question 'q1' does not stand at character 21 of its context; it stands at 20.",
            1,
        ),
        ("Germany", -36, "does not stand at character -36 of its context; it stands at 20", 1),
        ("Danube", 5, "does not stand at character 5 of its context; it stands at 4, 33.", 1),
        ("Danube", 99, "does not stand at character 99 of its context; it stands at 4, 33.", 1),
        ("e", 0, "does not stand at character 0 of its context; it stands at 2, 9, 14 and 6 more.", 1),
        ("germany", 20, "does not stand at character 20 of its context; it stands nowhere in it.", 0),
        ("Germany" + "y" * 60, 20, "the answer 'Germany" + "y" * 52 + "…' of question 'q1'", 0),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_an_answer_that_stands_elsewhere_is_refused_with_the_right_place(
    tmp_path: Path, text: str, start: int, what: str, fix: int, flat: bool
) -> None:
    content = [row("q1", [text], [start])] if flat else nested(qa("q1", (text, start)))
    where = "t.jsonl:1" if flat else "t.json:q1"
    with refused(DataError, what, where=where, fix=OFFSET if fix else "a literal part of the context"):
        read(tmp_path, content)


@pytest.mark.parametrize(("start", "right"), [(4, 4), (5, 4), (18, 4), (19, 33), (90, 33), (-3, 4)])
def test_offsets_are_repaired_on_request_to_the_nearest_place(tmp_path: Path, start: int, right: int) -> None:
    found = read(tmp_path, nested(qa("q1", ("Danube", start))), repair_offsets=True)
    assert found[0].answers == (("Danube", right),)


def test_places_that_overlap_are_places(tmp_path: Path) -> None:
    text = nested(qa("q", ("aa", 7)), context="aaa")
    assert read(tmp_path, text, repair_offsets=True)[0].answers == (("aa", 1),)


def test_an_answer_that_is_nowhere_cannot_be_repaired(tmp_path: Path) -> None:
    with refused(DataError, "it stands nowhere in it", where="t.json:q1", fix="literal part"):
        read(tmp_path, nested(qa("q1", ("Rhine", 4))), repair_offsets=True)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab 😀é", min_size=1, max_size=12).filter(str.strip), st.data())
def test_every_literal_part_is_an_answer_and_repair_finds_it_again(tmp_path: Path, context: str, data: Any) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    text = context[start : data.draw(st.integers(start + 1, len(context)))]
    if not text.strip():
        return
    assert read(tmp_path, nested(qa("q", (text, start)), context=context))[0].answers == ((text, start),)
    moved = data.draw(st.integers(-3, 15))
    ((_, place),) = read(tmp_path, nested(qa("q", (text, moved)), context=context), repair_offsets=True)[0].answers
    assert context.startswith(text, place)
    assert abs(place - moved) <= abs(start - moved)


# What cannot be read


AT = "t.json:data[0].paragraphs[0]"
LIKE = "an object with 'context' must stand here, got str"


@pytest.mark.parametrize(
    ("content", "what", "where", "fix"),
    [
        ("{", "not valid JSON: Expecting property name", "t.json:1", None),
        ('{"data":\n\n [1 2]}', "not valid JSON: Expecting ',' delimiter at character 5", "t.json:3", None),
        ("", "not valid JSON: Expecting value at character 1", "t.json:1", None),
        ('{"data": ' + "9" * 5000 + "}", "not valid JSON: a number has too many digits", "t.json:1", None),
        ('["\\ud83d"]', "half of a surrogate pair", "t.json:1", None),
        ("[1]", "an object with 'data' must stand here, got list", "t.json", None),
        ({"date": []}, "there is no 'data'", "t.json", "Did you mean 'date'?"),
        ({}, "there is no 'data'", "t.json", None),
        ({"data": {}}, "'data' must be a list, got dict", "t.json", None),
        ({"data": []}, "the file has no questions", "t.json", None),
        (nested(), "the file has no questions", "t.json", None),
        ({"data": [{"title": "x"}]}, "there is no 'paragraphs'", "t.json:data[0]", "Known: title."),
        ({"data": [{"paragraphs": ["x"]}]}, LIKE, AT, None),
        ({"data": [{"paragraphs": [{"context": "x"}]}]}, "there is no 'qas'", AT, "Known: context."),
        (nested(context=None), "'context' must be text, got NoneType", AT, None),
        (nested(qa(), context=" \n"), "the context is empty", "t.json:q1", None),
        (nested(qa(question="")), "the question is empty", "t.json:q1", None),
        (nested(qa(question=5)), "'question' must be text, got int", "t.json:q1", None),
        (nested("x"), "an object with 'id' must stand here, got str", f"{AT}.qas[0]", None),
        (nested(qa(), without(qa(), "id")), "there is no 'id'", f"{AT}.qas[1]", "Known: answers, question."),
        (nested(qa(None)), "'id' must be text, got NoneType", f"{AT}.qas[0]", None),
        (nested(qa(True)), "'id' must be text, got bool", f"{AT}.qas[0]", None),
        (nested(qa("")), "the id is empty", f"{AT}.qas[0]", None),
        (nested(qa(), qa("q2"), qa()), "the id 'q1' stands twice", "t.json:q1", UNIQUE),
        (nested(without(qa(), "answers")), "there is no 'answers'", "t.json:q1", "Known: id, question."),
        (nested({**qa(), "answers": []}), "the question has no answer", "t.json:q1", "write is_impossible: true"),
        (nested(qa(is_impossible=True)), "the question is impossible and has answers", "t.json:q1", "Remove one"),
        (nested(qa(is_impossible="no")), "'is_impossible' must be true or false, got 'no'", "t.json:q1", None),
        (nested(qa("q1", ("", 0))), "an answer of question 'q1' is empty", "t.json:q1", None),
        (nested(qa("q1", ("Germany", "20"))), "'answer_start' must be a whole number, got str", "t.json:q1", None),
        (nested(qa("q1", ("The", False))), "'answer_start' must be a whole number, got bool", "t.json:q1", None),
        (nested({**qa(), "answers": [{"text": "x"}]}), "there is no 'answer_start'", "t.json:q1", "Known: text."),
        ([row(), "x"], "each line must be a JSON object, got str", "t.jsonl:2", None),
        ([row(), row("q2"), row()], "the id 'q1' stands at t.jsonl:1 too", "t.jsonl:3", UNIQUE),
        ([row(), row("q2", starts=[20, 3])], "there are 1 answers and 2 offsets", "t.jsonl:2", None),
        ([row(), row("q2", [3])], "'text' must be text, got int", "t.jsonl:2", None),
        ([row(answers=[])], "'answers' must be an object, got list", "t.jsonl:1", None),
        ([row(answers={"text": []})], "there is no 'answer_start'", "t.jsonl:1", "Known: text."),
        ([row(context="")], "the context is empty", "t.jsonl:1", None),
        ([row(is_impossible=True)], "the question is impossible and has answers", "t.jsonl:1", "Remove one"),
        ([row(texts=[], starts=[], is_impossible=False)], "the question has no answer", "t.jsonl:1", "is_impossible"),
        ([without(row(), "question")], "there is no 'question'", "t.jsonl:1", "Known: answers, context, id."),
        ([without(row(), "id")], "there is no 'id'", "t.jsonl:1", "Known: answers, context, question."),
    ],
)
def test_malformed_files_are_refused_with_their_place(
    tmp_path: Path, content: Any, what: str, where: str, fix: str | None
) -> None:
    with refused(DataError, what, where=where, fix=fix):
        read(tmp_path, content)


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_missing_files_and_other_encodings_are_refused(tmp_path: Path, ending: str) -> None:
    with refused(DataError, "there is no such file", where=f"data:t{ending}"):
        read_squad(tmp_path / f"none{ending}", f"data:t{ending}")
    (tmp_path / f"t{ending}").write_bytes(b'"\xff"')
    with refused(DataError, "byte 2 of the line is not UTF-8", where=f"t{ending}:1", fix="UTF-8"):
        read_squad(tmp_path / f"t{ending}", f"t{ending}")


@pytest.mark.shared
def test_xquad_is_read_whole(shared: Path) -> None:
    found = read_squad(shared / "data/xquad_en/xquad.en.json", "xquad")
    assert (len(found), len({q.context for q in found})) == (1190, 240)
    assert {(len(q.answers), q.is_impossible) for q in found} == {(1, False)}
    assert found[0].answers == (("308", 34),)
    assert found[0].source == "xquad:56beb4343aeaaa14008c925b"
    assert max(len(q.context.split()) for q in found) == 509
