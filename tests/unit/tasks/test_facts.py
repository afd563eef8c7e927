"""Reading facts in the formats of LAMA, relations, and lists of words. All content is made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_jsonl
from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.tasks.facts import Relation, read_facts, read_relations, read_words

BORN = Relation("place_of_birth", "[X] was born in [Y] .", "place of birth")
SENTENCES = Relation("squad")

TREX = {
    "uuid": "11-aa", "obj_uri": "Q1", "obj_label": "Moonport", "sub_uri": "Q2", "sub_label": "Ada Vale",
    "predicate_id": "place_of_birth",
    "evidences": [{"sub_surface": "Ada Vale", "obj_surface": "Moonport", "masked_sentence": "Vale of [MASK] sang."}],
}  # fmt: skip
GOOGLE_RE = {
    "pred": "/people/person/place_of_birth", "sub": "/m/01", "obj": "/m/02",
    "evidences": [{"url": "http://example.org", "snippet": "...", "considered_sentences": ["Bo was born in Seaton ."]}],
    "judgments": [{"rater": str(i), "judgment": j} for i, j in enumerate(["yes", "yes", "yes", "no", "skip"])],
    "sub_w": None, "sub_label": "Bo Reed", "sub_aliases": [], "obj_w": "Q3", "obj_label": "Seaton", "obj_aliases": [],
    "uuid": "22-bb", "masked_sentences": ["Bo was born in [MASK] ."],
}  # fmt: skip
SQUAD = {
    "masked_sentences": ["To mark the day the [MASK] color was used."], "obj_label": "gold", "id": "56be_0",
    "sub_label": "Squad",
}  # fmt: skip


def denied(**votes: int) -> dict[str, Any]:
    judgments = [{"rater": "1", "judgment": j} for j, n in votes.items() for _ in range(n)]
    return {**GOOGLE_RE, "sub_label": "Cy Moor", "judgments": judgments}


def test_t_rex(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "P19.jsonl", [TREX, {"sub_label": " Bo Reed ", "obj_label": "Seaton"}])
    facts, left_out = read_facts(path, BORN)
    assert left_out == {"denied": 0, "equal": 0}
    assert [(f.id, f.relation, f.subject, f.object, f.sentence) for f in facts] == [
        ("11-aa", "place_of_birth", "Ada Vale", "Moonport", ""),
        ("place_of_birth-2", "place_of_birth", "Bo Reed", "Seaton", ""),
    ]
    assert facts[1].source == f"{path}:2"
    assert BORN.around(facts[0]) == ("Ada Vale was born in", ".")


def test_google_re_counts_what_raters_deny(tmp_path: Path) -> None:
    rows = [GOOGLE_RE, denied(yes=1, no=2), denied(yes=2, skip=3), denied(yes=2, no=2)]
    facts, left_out = read_facts(write_jsonl(tmp_path / "x_test.jsonl", rows), BORN)
    assert [f.subject for f in facts] == ["Bo Reed", "Cy Moor"]
    assert left_out == {"denied": 2, "equal": 0}
    assert facts[0].sentence == "", "its relation has a template"


def test_squad_has_sentences(tmp_path: Path) -> None:
    (fact,), _ = read_facts(write_jsonl(tmp_path / "test.jsonl", [SQUAD]), SENTENCES)
    assert (fact.id, fact.subject, fact.object) == ("56be_0", "", "gold")
    assert fact.key == "to mark the day the [mask] color was used."
    assert SENTENCES.around(fact) == ("To mark the day the", "color was used.")


def test_equal_facts_count_once_and_ids_are_made_unique(tmp_path: Path) -> None:
    other = {**TREX, "obj_label": "Seaton"}
    facts, left_out = read_facts(write_jsonl(tmp_path / "P19.jsonl", [TREX, TREX, other]), BORN)
    assert [f.id for f in facts] == ["11-aa", "place_of_birth-3"]
    assert left_out["equal"] == 1


def test_the_key_of_a_subject_is_however_it_is_written(tmp_path: Path) -> None:
    rows = [{"sub_label": name, "obj_label": "x"} for name in ("Ada  Vale", "ADA VALE")]
    facts, _ = read_facts(write_jsonl(tmp_path / "P19.jsonl", rows), BORN)
    assert {f.key for f in facts} == {"ada vale"}


@pytest.mark.parametrize(
    ("row", "relation", "what", "fix"),
    [
        ({"sub_lable": "a", "obj_label": "b"}, BORN, "there is no 'sub_label'", "Did you mean 'sub_lable'"),
        ({"sub_label": "a"}, BORN, "there is no 'obj_label'", "sub_label"),
        ({"sub_label": " ", "obj_label": "b"}, BORN, "'sub_label' is empty", None),
        ({"sub_label": ["a"], "obj_label": "b"}, BORN, "must hold text, got list", None),
        ({**TREX, "predicate_id": "P20"}, BORN, "of the relation 'P20', and the file is read as", "file"),
        ({"sub_label": "a", "obj_label": "b"}, SENTENCES, "'squad' has no template, so a fact needs", "task.templates"),
        ({**SQUAD, "masked_sentences": ["no gap"]}, SENTENCES, "[MASK] must stand once in the sentence", None),
        ({**SQUAD, "masked_sentences": ["[MASK]", "[MASK]"]}, SENTENCES, "[MASK] must stand once", None),
        ({**GOOGLE_RE, "judgments": ["yes"]}, BORN, "'judgments' must be a list of objects", None),
    ],
)  # fmt: skip
def test_wrong_lines_name_themselves(
    row: dict[str, Any], relation: Relation, what: str, fix: str | None, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "facts.jsonl", [SQUAD if relation is SENTENCES else TREX, row])
    with refused(DataError, what, where=f"{path}:2", fix=fix):
        read_facts(path, relation)


def test_relations(tmp_path: Path) -> None:
    rows = [
        {"relation": "P19", "template": "[X] was born in [Y] .", "label": "place of birth", "type": "N-1"},
        {"relation": "P36", "template": "The capital of [X] is [Y] ."},
    ]
    found = read_relations(write_jsonl(tmp_path / "relations.jsonl", rows))
    assert found == {
        "P19": Relation("P19", rows[0]["template"], "place of birth"),
        "P36": Relation("P36", rows[1]["template"]),
    }


@pytest.mark.parametrize("template", ["[X] was born", "born in [Y]", "[X] and [X] are [Y]"])
def test_a_template_needs_subject_and_object_once(template: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "relations.jsonl", [{"relation": "P1", "template": template}])
    with refused(DataError, "the template of a relation has [", where=f"{path}:1", fix="[X] was born in [Y] ."):
        read_relations(path)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_lists_of_words(file: Callable[[str, str], Path]) -> None:
    assert read_words(file("v.txt", "Rome\n\nParis \nRome\n"), None) == ("Rome", "Paris")
    assert read_words(file("v.json", json.dumps(["Ġsun", "▁moon", "sun"])), None) == ("sun", "moon")
    by_model = json.dumps({"bert": {"sun": 3}, "gpt2": ["Ġsun", "Ġsea"]})
    assert read_words(file("m.json", by_model), "gpt2") == ("sun", "sea")
    assert read_words(file("m.json", by_model), "bert") == ("sun",)
    assert read_words(file("d.json", json.dumps({"sun": 3})), None) == ("sun",)


@pytest.mark.parametrize(
    ("name", "text", "entry", "what", "fix"),
    [
        ("v.txt", "sun", "bert", "only a JSON file has entries", "Leave the entry out."),
        ("v.json", '{"bert": ["sun"]}', "bart", "the file has lists for 1 models", "Did you mean 'bert'?"),
        ("v.json", '{"bert": ["sun"]}', None, "got task.vocabulary_entry=None", "bert"),
        ("v.json", "[3]", None, "a vocabulary is a list of words", None),
        ("v.json", "[]", None, "a vocabulary is a list of words", None),
        ("v.txt", "", None, "a vocabulary is a list of words", None),
    ],
)
def test_wrong_lists_are_refused(
    name: str, text: str, entry: str | None, what: str, fix: str | None, file: Callable[[str, str], Path]
) -> None:
    path = file(name, text)
    with refused(DataError, what, where=str(path), fix=fix):
        read_words(path, entry)
