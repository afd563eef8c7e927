"""Reading tagged sentences: columns, rows, rows with a predicate, and file:line of what cannot be read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.tagged import Tagged, read_conll, read_rows

TABS = "separate them by tabs where words hold spaces"


def conll(folder: Path, content: str | bytes, **options: Any) -> Tagged:
    path = folder / "t.conll"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_conll(path, "t.conll", **options)


def rows(folder: Path, *cells: Any, **options: Any) -> Tagged:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(c) + "\n" for c in cells), encoding="utf-8")
    return read_rows(path, "t.jsonl", **options)


def content(found: Tagged) -> list[tuple[str, str]]:
    return [("|".join(s.words), " ".join(s.tags)) for s in found.sentences]


# Columns


@pytest.mark.parametrize(
    "text",
    [
        "Ann\tB-person\nsleeps\tO\n\nHi\tO\n",
        "Ann\tB-person\nsleeps\tO\n\t\nHi\tO",
        "\n \nAnn\tB-person\r\nsleeps\tO\r\n\r\n\t \t\r\nHi\tO\r\n\r\n",
        "\ufeffAnn\tB-person\nsleeps\tO \n\nHi\tO\n",
        "Ann B-person\nsleeps O\n\nHi O\n",
        "  Ann  B-person\nsleeps \t O  \n\nHi O\n",
        "-DOCSTART-\tO\n\nAnn\tB-person\nsleeps\tO\n\nHi\tO\n",
        "-DOCSTART- -X- -X- O\nAnn\tB-person\nsleeps\tO\n-DOCSTART- -X- -X- O\nHi\tO\n",
        "Ann\tNNP\tB-NP\tB-person\nsleeps\tVB\tB-VP\tO\n\nHi\tUH\tO\tO\n",
    ],
)
def test_usual_dialects_of_columns(tmp_path: Path, text: str) -> None:
    found = conll(tmp_path, text)
    assert content(found) == [("Ann|sleeps", "B-person O"), ("Hi", "O")]
    assert [s.id for s in found.sentences] == ["sentence-1", "sentence-2"]
    assert (found.scheme, found.repaired, found.types, found.remark) == ("BIO2", 0, ("person",), "")


def test_columns_are_chosen_by_position(tmp_path: Path) -> None:
    text = "1 B-x Ann O\n2 I-x Lee O\n"
    assert content(conll(tmp_path, text, word_column=2, tag_column=1)) == [("Ann|Lee", "B-x I-x")]
    assert content(conll(tmp_path, text, word_column=-2, tag_column=-3)) == [("Ann|Lee", "B-x I-x")]


def test_odd_words_survive(tmp_path: Path) -> None:
    odd = ["New  York", "watched\u200bwas", "Dubbz\ufeff", "\u00a0", "a\u2028b", "#", "\u3000", "\x85", " x ", '"', "-"]
    assert conll(tmp_path, "x\tO\n" + "".join(f"{w}\tO\n" for w in odd)).sentences[0].words == ("x", *odd)
    found = conll(tmp_path, " a\u00a0b O\n\u200b O\n\u3000 O\n").sentences[0]
    assert found.words == ("a\u00a0b", "\u200b", "\u3000")


def test_sources_are_the_lines_of_first_words_and_ids_have_a_stem(tmp_path: Path) -> None:
    found = conll(tmp_path, "\n-DOCSTART- O\n\na O\nb O\n\n\nc O\n", stem="dev").sentences
    assert [(s.id, s.source) for s in found] == [("dev-1", "t.conll:4"), ("dev-2", "t.conll:8")]
    (tmp_path / "u.conll").write_text("a O\n")
    assert read_conll(tmp_path / "u.conll").sentences[0].source == f"{tmp_path / 'u.conll'}:1"


@pytest.mark.parametrize(
    ("text", "what", "where", "fix"),
    [
        ("", "the file has no words", "t.conll", None),
        ("\n\t\n \n", "the file has no words", "t.conll", None),
        ("-DOCSTART- O\n\n", "the file has no words", "t.conll", None),
        ("\nAnn\nsleeps\n", "the line has one column; a word needs a tag", "t.conll:2", "its tag behind it"),
        ("a O\nb X O\n", "the first line has 2 columns, this line has 3", "t.conll:2", TABS),
        ("a\tO\n\nNew York B-x\n", "the first line has 2 columns, this line has 1", "t.conll:3", TABS),
        ("a O\nb\n", "the first line has 2 columns, this line has 1", "t.conll:2", TABS),
        ("a\tO\n\tO\n", "the word is empty", "t.conll:2", "let it end the sentence"),
        ("a\tO\nb\t\n", "the word has no tag", "t.conll:2", "Write B-type"),
        ("a\tO\nb\tperson\n", "'person' is no tag of an entity", "t.conll:2", "Write B-type"),
        ("a\tO\n\nb\tB-x,B-y\n", "names several entities", "t.conll:3", "emerging.test.annotated"),
        ("a\tO\rb\tO\r", "a carriage return stands within the line", "t.conll:1", "End lines with"),
        ("a\tB-x\nb\tL-x\nc\tS-x\n", "begin with B, L, S, which no scheme does", "t.conll", "Write B-"),
        (b"a\tO\n\xff\tO\n", "byte 1 of the line is not UTF-8", "t.conll:2", "Save the file as UTF-8"),
        (b"a\tO\n\x00\tO\n", "this is a binary file", "t.conll:2", None),
    ],
)
def test_malformed_columns_are_refused_with_their_line(
    tmp_path: Path, text: str | bytes, what: str, where: str, fix: str | None
) -> None:
    with refused(DataError, what, where=where, fix=fix):
        conll(tmp_path, text)


def test_a_missing_file_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    with refused(DataError, "there is no such file", where="data:none.conll"):
        read_conll(tmp_path / "none.conll", "data:none.conll")
    with refused(DataError, "there is no column 2 for the words; the line has 2 columns", where="t.conll:1"):
        conll(tmp_path, "a O\n", word_column=2)
    with refused(DataError, "there is no column -3 for the tags; the line has 2 columns", where="t.conll:1"):
        conll(tmp_path, "a O\n", tag_column=-3)


def test_what_was_changed_is_said_once(tmp_path: Path) -> None:
    found = conll(tmp_path, "a B-x\nb I-y\n\nc I-x\n")
    assert content(found) == [("a|b", "B-x B-y"), ("c", "B-x")]
    assert (found.scheme, found.repaired, found.types) == ("BIO2", 2, ("x", "y"))
    assert found.remark == "2 tags continue no entity and are read as beginnings, as in seqeval."
    assert conll(tmp_path, "a I-x\n").remark == "The tags are IOB1 and were read as BIO2."
    assert conll(tmp_path, "a S-x\nb I-x\n").remark == (
        "The tags are IOBES and were read as BIO2. 1 tag continues no entity and is read as a beginning, as in seqeval."
    )


WORDS = st.text(st.characters(exclude_characters="\t\n\r\0", codec="utf-8"), min_size=1, max_size=6)
PLAIN = WORDS.filter(lambda w: not w.startswith(("-DOCSTART-", "\ufeff")))
TAGS = st.sampled_from(["O", "B-x", "B-y-z"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(PLAIN, TAGS), min_size=1, max_size=5), min_size=1, max_size=5), st.booleans())
def test_what_is_written_in_columns_is_read_back(
    tmp_path: Path, sentences: list[list[tuple[str, str]]], tab: bool
) -> None:
    end = "\t\n" if tab else "\n"
    text = end.join("".join(f"{word}\t{tag}\n" for word, tag in s) for s in sentences)
    found = conll(tmp_path, text)
    assert [list(zip(s.words, s.tags, strict=True)) for s in found.sentences] == sentences
    lines = text.split("\n")
    for s in found.sentences:
        assert lines[int(s.source.rpartition(":")[2]) - 1] == f"{s.words[0]}\t{s.tags[0]}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=40), st.text("aO\t\n\r -BIx,", max_size=40)))
def test_any_file_is_sentences_or_refused_as_ours(tmp_path: Path, text: bytes | str) -> None:
    place = "t.conll"
    try:
        found = conll(tmp_path, text)
    except DataError as error:
        place = str(error.where)
    else:
        assert all(s.words and len(s.words) == len(s.tags) for s in found.sentences)
    assert place.startswith("t.conll")


# Rows


def test_rows_of_words_and_tags_and_other_cells(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        {"id": 7, "tokens": ["Ann", "\u200b"], "tags": ["B-x", "O"], "topic": "sleep", "n": 3},
        {"tokens": ["Hi"], "tags": ["I-x"]},
        stem="train",
    )
    assert content(found) == [("Ann|\u200b", "B-x O"), ("Hi", "B-x")]
    assert [(s.id, s.source) for s in found.sentences] == [("7", "t.jsonl:1"), ("train-2", "t.jsonl:2")]
    assert [dict(s.extra) for s in found.sentences] == [{"topic": "sleep", "n": "3"}, {"topic": "", "n": ""}]
    assert (found.scheme, found.repaired) == ("BIO2", 1)


def test_columns_of_rows_have_names_of_choice(tmp_path: Path) -> None:
    found = rows(tmp_path, {"words": ["a"], "ner": ["S-x"]}, words="words", tags="ner")
    assert (content(found), found.scheme) == ([("a", "B-x")], "IOBES")


def test_a_predicate_is_given_by_position_or_as_text_one_a_row(tmp_path: Path) -> None:
    words = ["She", "wants", "to", "sleep"]
    found = rows(
        tmp_path,
        {"tokens": words, "tags": ["B-ARG0", "B-V", "B-ARG1", "I-ARG1"], "index": 1},
        {"tokens": words, "tags": ["B-ARG0", "O", "O", "B-V"], "index": "sleep"},
        predicate="index",
    )
    assert [dict(s.extra) for s in found.sentences] == [{"predicate": "wants"}, {"predicate": "sleep"}]
    assert [s.words for s in found.sentences] == [tuple(words)] * 2


WIDE = {"tokens": ["a", "b"], "tags": ["O", "O"]}


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "the sentence has 1 words and 2 tags", None),
        ({"tokens": "a b", "tags": ["O"]}, "the column 'tokens' must hold a list of words, got str", None),
        ({"tokens": None, "tags": ["O"]}, "the column 'tokens' must hold a list of words, got NoneType", None),
        ({"tokens": ["a"], "tags": "O"}, "the column 'tags' must hold a list of tags, got str", None),
        ({"tokens": ["a"], "tags": [3]}, "tags must be texts, got 3 in the column 'tags'", "not their numbers"),
        ({"tokens": ["a", None], "tags": ["O"]}, "words must be texts, got None in the column 'tokens'", None),
        (
            {"tokens": ["a", ""], "tags": ["O", "O"]},
            "position 1 of the column 'tokens', counted from 0,",
            None,
        ),
        ({"tokens": [], "tags": []}, "the column 'tokens' holds no words", None),
        ({"tokens": ["a"], "tags": ["x"]}, "'x' is no tag of an entity", "Write B-type"),
        ({**WIDE, "p": "a", "id": "one"}, "the id 'one' stands at t.jsonl:1 too", "Make the ids unique"),
        ({**WIDE, "p": "a", "id": [1]}, "the column 'id' must hold text, got list", None),
        ({**WIDE, "p": 2}, "the predicate is word 2, counted from 0; there are 2 words", None),
        ({**WIDE, "p": -1}, "the predicate is word -1, counted from 0; there are 2 words", None),
        ({**WIDE, "p": [0, 1]}, "must hold the position of a word or its text, got [0, 1]", "a row for each predicate"),
        ({**WIDE, "p": True}, "the position of a word or its text, got True", "a row for each predicate"),
        ({**WIDE, "p": " "}, "the column 'p' must hold the position of a word or its text, got ' '", "a row for each"),
        (WIDE, "the column 'p' must hold the position of a word or its text, got None", "a row for each"),
    ],
)
def test_malformed_rows_are_refused_with_their_line(tmp_path: Path, row: Any, what: str, fix: str | None) -> None:
    with refused(DataError, what, where="t.jsonl:2", fix=fix):
        rows(tmp_path, {**WIDE, "id": "one", "p": 0}, row, predicate="p")


@pytest.mark.parametrize("option", ["words", "tags", "predicate"])
def test_a_missing_column_is_refused_with_the_nearest(tmp_path: Path, option: str) -> None:
    with refused(DataError, "there is no column 'token'", where="t.jsonl", fix="Did you mean 'tokens'?"):
        rows(tmp_path, WIDE, **{option: "token"})


def test_a_file_that_is_no_table_is_refused_as_tables_are(tmp_path: Path) -> None:
    with refused(DataError, "there is no such file", where="data:x.jsonl"):
        read_rows(tmp_path / "x.jsonl", "data:x.jsonl")
    (tmp_path / "x.json").write_text("{}")
    with refused(DataError, "the format '.json' is not supported", where="x.json", fix=".jsonl"):
        read_rows(tmp_path / "x.json", "x.json")


# The files of WNUT-17


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "sentences", "words", "entities"),
    [
        ("wnut17train.conll", 3394, 62730, (221, 140, 264, 548, 660, 142)),
        ("emerging.dev.conll", 1009, 15733, (34, 105, 39, 74, 470, 114)),
        ("emerging.test.annotated", 1287, 23394, (66, 142, 165, 150, 429, 127)),
    ],
)
def test_wnut17_is_read_whole(shared: Path, name: str, sentences: int, words: int, entities: tuple[int, ...]) -> None:
    found = read_conll(shared / "data/wnut17" / name, name)
    assert (len(found.sentences), sum(len(s.words) for s in found.sentences)) == (sentences, words)
    assert (found.scheme, found.repaired, found.remark) == ("BIO2", 0, "")
    assert found.types == ("corporation", "creative-work", "group", "location", "person", "product")
    counts = Counter(t[2:] for s in found.sentences for t in s.tags if t[0] == "B")
    assert tuple(counts[t] for t in found.types) == entities


@pytest.mark.shared
def test_the_test_file_of_wnut17_whose_annotations_disagree_is_refused(shared: Path) -> None:
    with refused(DataError, "names several entities", where="test:212", fix="emerging.test.annotated"):
        read_conll(shared / "data/wnut17/emerging.test.conll", "test")
