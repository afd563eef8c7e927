"""LAMA's tasks: templates of both directions, splits by subject, frequencies, vocabularies. Facts are made up."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import fact_rows, facts_task, write_jsonl
from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError, TrimtabError
from trimtab.registry import tasks
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.lama import _p_tuning
from trimtab.tasks.reading import Places
from trimtab.types import Example

RELATIONS = [
    {"relation": "P1", "template": "the [X] is in the [Y] .", "label": "place"},
    {"relation": "P2", "template": "[Y] is what the [X] eats .", "label": "food {of}"},
]


def built(section: Mapping[str, Any]) -> Any:
    return tasks.build(tasks.resolve(section, "task"))


def load(section: Mapping[str, Any], places: Places | None = None, subset: int = 0) -> Task:
    task: Task = built(section).load(subset, places or Places())
    return task


def everything(task: Task) -> list[Example]:
    return [e for s in SPLITS for e in task.splits[s]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory as LAMA's: two relations, one without facts, and SQuAD."""
    (tmp_path / "lama" / "TREx").mkdir(parents=True)
    (tmp_path / "lama" / "Squad").mkdir()
    write_jsonl(tmp_path / "lama" / "relations.jsonl", [*RELATIONS, {"relation": "P9", "template": "[X] [Y]"}])
    for relation in ("P1", "P2"):
        write_jsonl(tmp_path / "lama" / "TREx" / f"{relation}.jsonl", fact_rows(60))
    rows = [{"masked_sentences": [f"the {i} [MASK]s shone"], "obj_label": "sun", "id": str(i)} for i in range(40)]
    write_jsonl(tmp_path / "lama" / "Squad" / "test.jsonl", rows)
    return tmp_path


# Splits --------------------------------------------------------------------------------------------------------------


def test_no_subject_is_in_two_splits_and_nothing_is_lost(tmp_path: Path) -> None:
    rows = fact_rows(60)
    section = facts_task(tmp_path)
    write_jsonl(tmp_path / "P1.jsonl", [*rows, *({**r, "obj_label": "red"} for r in rows)])  # each subject twice
    task = load(section)
    subjects = [{e.fields["subject"] for e in task.splits[s]} for s in SPLITS]
    assert not subjects[0] & subjects[1]
    assert not subjects[0] & subjects[2]
    assert not subjects[1] & subjects[2]
    assert len(everything(task)) == 120
    assert [len(task.splits[s]) for s in SPLITS] == [2 * len(its) for its in subjects]
    assert all(task.splits.values())


def test_a_subject_is_in_the_same_split_in_every_relation(data: Path) -> None:
    both = load({"kind": "lama/trex", "relation": ["P1", "P2"]}, Places(data))
    alone = load({"kind": "lama/trex", "relation": "P2"}, Places(data))
    for split in SPLITS:
        mine = [e for e in both.splits[split] if e.fields["relation"] == "P2"]
        assert mine == list(alone.splits[split])
        assert {e.fields["subject"] for e in mine} == {e.fields["subject"] for e in both.splits[split]}


def test_the_hash_of_the_split_is_told_and_depends_on_it_alone(tmp_path: Path) -> None:
    rows = fact_rows(60)
    first = load(facts_task(tmp_path)).notes
    write_jsonl(tmp_path / "P1.jsonl", rows[::-1])
    again = load(facts_task(tmp_path) | {"path": str(write_jsonl(tmp_path / "r.jsonl", rows[::-1]))}).notes
    assert first == again
    assert load(facts_task(tmp_path, split_seed=1)).notes != first
    task = load(facts_task(tmp_path))
    content = sorted([s, "P1", e.fields["subject"], e.label] for s in SPLITS for e in task.splits[s])
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    sizes = ", ".join(f"{s} {len(task.splits[s])}" for s in SPLITS)
    assert task.notes == (
        f"Facts: {sizes}, dev and test drawn by subject with split_seed 0. SHA-256 {digest}. No subject is in two "
        "splits.",
    )


def test_files_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = fact_rows(60)
    files = {s: str(write_jsonl(tmp_path / f"{s}.jsonl", rows[i : i + 22])) for s, i in (("train", 0), ("test", 20))}
    section = {k: v for k, v in facts_task(tmp_path).items() if k != "path"}
    task = load({**section, **files})
    assert len(task.splits["test"]) == 22
    assert len(task.splits["train"]) + len(task.splits["dev"]) == 22
    assert "dev drawn by subject" in task.notes[0]
    assert "2 subjects are in several splits." in task.notes[0]
    given = load({**section, **files, "dev": files["test"]})
    assert len(given.splits["train"]) == 22
    assert ", as given. SHA-256" in given.notes[0]


def test_a_few_training_facts_of_each_relation(data: Path) -> None:
    section = {"kind": "lama/trex", "relation": ["P1", "P2"], "rows": 5}
    one, other = load(section, Places(data)), load(section, Places(data), subset=1)
    assert Counter(e.fields["relation"] for e in one.splits["train"]) == {"P1": 5, "P2": 5}
    assert one.splits["train"] != other.splits["train"]
    assert one.splits["test"] == other.splits["test"]
    whole = load({**section, "rows": 0}, Places(data))
    assert {e.id: e.prior for e in everything(whole)}.items() >= {e.id: e.prior for e in everything(one)}.items()
    with refused(DataError, "500 facts of P1 are asked for in train", where="task.rows"):
        load({**section, "rows": 500}, Places(data))


# Templates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "masked", "causal"),
    [
        ((3, 3, 3), "{prompt:3} {answer} {prompt:3} {subject} {prompt:3}", "{prompt:3} {subject} {prompt:3} {answer}"),
        ((1, 0, 2), "{prompt:1} {answer} {subject} {prompt:2}", "{prompt:1} {subject} {answer}"),
        ((0, 4, 0), "{answer} {prompt:4} {subject}.", "{subject} {prompt:4} {answer}"),
    ],
)
def test_p_tunings_template_in_both_directions(slots: tuple[int, int, int], masked: str, causal: str) -> None:
    assert _p_tuning(*slots) == (masked, causal)


def test_one_relation_has_p_tunings_template_by_default_and_several_the_manual_ones(data: Path) -> None:
    one = load({"kind": "lama/trex", "relation": "P1", "slots": [1, 2, 3]}, Places(data))
    assert one.template_for(False) == "{prompt:1} {answer} {prompt:2} {subject} {prompt:3}"
    assert one.template_for(True) == "{prompt:1} {subject} {prompt:2} {answer}"
    assert one.name == "lama/trex/P1"
    several = load({"kind": "lama/trex"}, Places(data))
    assert several.name == "lama/trex"
    assert several.template_for(False) == "{prompt} {before} {answer} {after}"
    assert several.template_for(True) == "{prompt} {before} {answer}"
    assert {e.fields["relation"] for e in everything(several)} == {"P1", "P2"}
    assert "1 of the 3 relations have no file of facts." in several.notes


def test_a_manual_template_is_literal_where_there_is_one_relation(data: Path) -> None:
    task = load({"kind": "lama/trex", "relation": "P1", "template": "manual"}, Places(data))
    assert task.template_for(False) == "{prompt} the {subject} is in the {answer} ."
    assert task.template_for(True) == "{prompt} the {subject} is in the {answer}"
    first = load({"kind": "lama/trex", "relation": "P2", "template": "manual"}, Places(data))
    assert first.template_for(True) == "{prompt} {answer} is what the {subject} eats .", "refused with such a model"
    own = load(
        {"kind": "lama/trex", "relation": "P1", "template": "{prompt} {label}: {subject} {answer}"}, Places(data)
    )
    assert own.template_for(True) == own.template_for(False) == "{prompt} {label}: {subject} {answer}"


def test_the_bare_model_is_asked_with_the_manual_template(data: Path) -> None:
    task = load({"kind": "lama/trex", "relation": "P1"}, Places(data))
    assert task.manual == ("{before} {answer} {after}", "{before} {answer}")
    example = task.splits["train"][0]
    assert example.fields["before"] == f"the {example.fields['subject']} is in the"
    assert example.fields["after"] == "."
    assert load({"kind": "lama/trex", "relation": "P2"}, Places(data)).manual == ("{before} {answer} {after}", None)


def test_sentences_have_a_gap(data: Path) -> None:
    task = load({"kind": "lama/squad"}, Places(data))
    assert task.template_for(False) == "{prompt} {before} {answer} {after}"
    example = next(e for e in everything(task) if e.id == "7")
    assert (example.fields["before"], example.fields["after"], example.label) == ("the 7", "s shone", "sun")
    assert len(everything(task)) == 40
    with refused(ConfigError, "P-tuning's template has a subject", where="task.template", fix="manual"):
        load({"kind": "lama/squad", "template": "p_tuning"}, Places(data))


# What train says of objects ------------------------------------------------------------------------------------------


def test_priors_are_ranks_of_frequency_in_train(tmp_path: Path) -> None:
    rows = fact_rows(60)
    files = {s: str(write_jsonl(tmp_path / f"{s}.jsonl", its)) for s, its in (
        ("train", [r for r in rows[:40] if r["obj_label"] != "moon"]), ("dev", rows[40:50]), ("test", rows[40:])
    )}  # fmt: skip
    section = {k: v for k, v in facts_task(tmp_path).items() if k != "path"}
    task = load({**section, **files})
    counts = Counter(str(e.label) for e in task.splits["train"])
    order = sorted(counts, key=lambda o: (-counts[o], o))
    assert order[0] == "sea"
    assert {e.label: e.prior for e in task.splits["test"]} == {**{o: i + 1 for i, o in enumerate(order)}, "moon": 0}
    assert all(e.fields["relation"] == "P1" for e in everything(task))


def test_vocabularies(data: Path) -> None:
    section = {"kind": "lama/trex", "relation": ["P1", "P2"]}
    assert load(section, Places(data)).allowed == {}
    own = load({**section, "vocabulary": "relation"}, Places(data)).allowed
    assert set(own) == {"P1", "P2"}
    assert own["P1"][0] == "sea"
    (data / "v.json").write_text(json.dumps({"bert": ["sun", "moon"], "gpt2": ["Ġsun"]}))
    shared = load({**section, "vocabulary": "data:v.json", "vocabulary_entry": "gpt2"}, Places(data))
    assert shared.allowed == {"": ("sun",)}
    full = load(section, Places(data))
    assert (
        len(
            {
                full.fingerprint,
                shared.fingerprint,
                load({**section, "vocabulary": "relation"}, Places(data)).fingerprint,
            }
        )
        == 3
    )


def test_files_are_known_for_studies(data: Path) -> None:
    task = built({"kind": "lama/trex", "relation": ["P1", "P2"], "vocabulary": "data:v.txt"})
    assert task.files == {
        "relations": "data:lama/relations.jsonl",
        "vocabulary": "data:v.txt",
        "train:P1": "data:lama/TREx/P1.jsonl",
        "train:P2": "data:lama/TREx/P2.jsonl",
    }
    assert built({"kind": "lama/trex"}).files == {"relations": "data:lama/relations.jsonl"}
    assert list(built({"kind": "lama/google_re"}).files.values()) == [
        f"data:lama/Google_RE/{r}_test.jsonl" for r in ("place_of_birth", "date_of_birth", "place_of_death")
    ]
    assert len(built({"kind": "lama/trex_splits", "relation": "P19"}).files) == 4


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "kind", "what", "where", "fix"),
    [
        ({"relation": "P8"}, DataError, "there is no relation 'P8'", "task.relation", "P9"),
        ({"relation": []}, ConfigError, "name relations, each once", "task.relation", None),
        ({"relation": ["P1", "P1"]}, ConfigError, "name relations, each once", "task.relation", None),
        ({"relation": "P9"}, DataError, "there is no such file", "data:lama/TREx/P9.jsonl", "P2.jsonl"),
        (
            {"relation": ["P1", "P2"], "path": "data:lama/TREx/P1.jsonl"},
            ConfigError,
            "several relations need a file each",
            "task.path",
            "{relation}",
        ),
        ({"relations": None}, ConfigError, "all relations are those of a file", "task.relation", "task.relations"),
        (
            {"vocabulary_entry": "bert"},
            ConfigError,
            "only a file has entries",
            "task.vocabulary_entry",
            "Leave it out.",
        ),
        ({"templates": {"P1": "[X] is"}}, ConfigError, "relation has [Y] once", "task.templates.P1", "[X] was born"),
        ({"relation": "P1", "test_fraction": 1e-9}, DataError, "the test split is empty", "task", "task.split_seed"),
        ({"slots": [3, 3]}, ConfigError, "List should have at least 3 items", "task.slots", None),
    ],
)
def test_what_cannot_be_is_refused(
    section: dict[str, Any], kind: type[TrimtabError], what: str, where: str, fix: str | None, data: Path
) -> None:
    with refused(kind, what, where=where, fix=fix):
        load({"kind": "lama/trex", **section}, Places(data))


def test_all_relations_need_facts(data: Path, tmp_path: Path) -> None:
    with refused(DataError, "no relation has a file of facts", where="data:nowhere/{relation}.jsonl", fix="--data-dir"):
        load({"kind": "lama/trex", "path": "data:nowhere/{relation}.jsonl"}, Places(data))


@pytest.mark.shared
def test_the_facts_at_hand(shared: Path) -> None:
    task = load({"kind": "lama/trex"}, Places(shared / "data"))
    assert len({e.fields["relation"] for e in everything(task)}) == 20
    assert len(everything(task)) == 14432
    assert "26 of the 46 relations have no file of facts." in task.notes
