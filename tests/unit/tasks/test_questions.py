from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.registry import tasks
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places


def write(folder: Path, name: str, n: int, per_context: int = 3, unanswerable: int = 0) -> str:
    """Questions about contexts, `per_context` each; the first `unanswerable` have no answer."""
    rows = []
    for i in range(n):
        answers = {"text": [], "answer_start": []} if i < unanswerable else {"text": ["it"], "answer_start": [0]}
        context = f"it is text {i // per_context} of {name}"
        rows.append({"id": f"{name}{i}", "question": "what?", "context": context, "answers": answers})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def load(subset: int = 0, **options: Any) -> Task:
    task: Task = tasks.build(tasks.resolve({"kind": "squad", **options}, "task")).load(subset, Places())
    return task


def ids(task: Task, split: str) -> list[str]:
    return [e.id for e in task.splits[split]]


def test_questions_about_a_context_stay_together(tmp_path: Path) -> None:
    task = load(path=write(tmp_path, "a", 60), test_fraction=0.25, dev_fraction=0.2)
    contexts = {s: {e.fields["context"] for e in task.splits[s]} for s in SPLITS}
    assert {s: len(c) for s, c in contexts.items()} == {"train": 12, "dev": 3, "test": 5}
    assert sum(len(task.splits[s]) for s in SPLITS) == 60
    assert len(set.union(*contexts.values())) == 20
    again = load(subset=5, path=write(tmp_path, "a", 60), test_fraction=0.25, dev_fraction=0.2)
    assert task.fingerprint == again.fingerprint
    other = load(path=write(tmp_path, "a", 60), test_fraction=0.25, dev_fraction=0.2, split_seed=1)
    assert ids(other, "test") != ids(task, "test")


def test_files_are_splits(tmp_path: Path) -> None:
    names = ("train", "dev", "test")
    task = load(**{s: write(tmp_path, s, n) for s, n in zip(names, (5, 4, 3), strict=True)})
    assert {s: len(task.splits[s]) for s in SPLITS} == {"train": 5, "dev": 4, "test": 3}
    first = task.splits["train"][0]
    assert (first.label, first.answers, first.source) == ("it", (("it", 0),), f"{tmp_path}/train.jsonl:1")
    assert (task.answer, task.columns, task.max_length, task.most) == ("span", ["question", "context"], None, 384)
    assert load(train=write(tmp_path, "train", 9), max_length=50).max_length == 50


def test_answers_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "a", 12))
    before = load(path=str(path)).fingerprint
    path.write_text(
        path.read_text().replace("it is text", "it it is text").replace('"answer_start": [0]', '"answer_start": [3]')
    )
    moved = load(path=str(path)).fingerprint
    path.write_text(path.read_text().replace('"answer_start": [3]', '"answer_start": [0]'))
    assert len({before, moved, load(path=str(path)).fingerprint}) == 3


def test_questions_without_an_answer_may_be_left_out(tmp_path: Path) -> None:
    files = {"train": write(tmp_path, "train", 9, unanswerable=4), "dev": write(tmp_path, "dev", 3)}
    files["test"] = write(tmp_path, "test", 3, unanswerable=1)
    task = load(**files)
    assert [e.label for e in task.splits["train"]] == [""] * 4 + ["it"] * 5
    dropped = load(**files, unanswerable="drop")
    assert {s: len(dropped.splits[s]) for s in SPLITS} == {"train": 5, "dev": 3, "test": 2}


def test_subsets_depend_on_the_subset_seed(tmp_path: Path) -> None:
    files = {s: write(tmp_path, s, 30) for s in SPLITS}
    one, other = (load(seed, **files, rows=8, dev_rows=5) for seed in (0, 1))
    assert (len(one.splits["train"]), len(one.splits["dev"]), len(one.splits["test"])) == (8, 5, 30)
    assert ids(one, "train") != ids(other, "train")
    assert ids(one, "train") == ids(load(0, **files, rows=8), "train")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "give either path"),
        ({"path": "a", "train": "b"}, "give either path"),
        ({"path": "a", "dev": "b"}, "path holds all splits"),
    ],
)
def test_files_must_be_given_one_way(options: dict[str, str], what: str) -> None:
    with refused(ConfigError, what, where="task"):
        load(**options)


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a", 3)
    with refused(DataError, "there are 1 contexts, too few to draw the test split", where=path, fix="task.test"):
        load(path=path)
    with refused(DataError, "the dev split is empty", where="task", fix="Give more"):
        load(train=path, dev=write(tmp_path, "d", 3, unanswerable=3), test=write(tmp_path, "t", 3), unanswerable="drop")
    with refused(DataError, "the id 'a0' stands at", where=f"{path}:1", fix="unique over all files"):
        load(train=path, dev=path, test=write(tmp_path, "t", 3))


@pytest.mark.parametrize(("option", "where"), [("rows", "task.rows"), ("dev_rows", "task.dev_rows")])
def test_more_rows_than_there_are_is_refused(option: str, where: str, tmp_path: Path) -> None:
    split = "train" if option == "rows" else "dev"
    with refused(DataError, f"9 questions are asked for in {split}, there are 3", where=where):
        load(**{s: write(tmp_path, s, 3) for s in SPLITS}, **{option: 9})


def test_offsets_may_be_repaired(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "a", 12))
    path.write_text(path.read_text().replace('"answer_start": [0]', '"answer_start": [1]'))
    with refused(DataError, "does not stand at character 1", where=f"{path}:1", fix="repair offsets"):
        load(path=str(path))
    assert load(path=str(path), repair_offsets=True).splits["train"][0].answers == (("it", 0),)


def test_a_test_file_alone_is_to_score_runs_on(tmp_path: Path) -> None:
    built = tasks.build(tasks.resolve({"kind": "squad", "test": write(tmp_path, "b", 3)}, "task"))
    files = {"train": write(tmp_path, "a", 9), "dev": write(tmp_path, "c", 3), "test": built.files["test"]}
    assert built.examples("test", Places()) == load(**files).splits["test"]
    with refused(DataError, "the task has a test file only", where="task", fix="trimtab evaluate RUN --task"):
        built.load(0, Places())
    with refused(DataError, "the task 'squad' has no file of the dev split", where="split", fix="test."):
        built.examples("dev", Places())
