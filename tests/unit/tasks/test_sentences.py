"""Tasks of tagged sentences: splits, tags, what is noted, and what is refused before training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError, TemplateError
from trimtab.registry import tasks
from trimtab.tasks import Task
from trimtab.tasks.reading import Places

ANN = "Ann\tB-person\nLee\tI-person\nsleeps\tO\n"
BERN = "in\tO\nBern\tB-place\n"


def conll(folder: Path, name: str, *sentences: str) -> str:
    path = folder / f"{name}.conll"
    path.write_text("\n".join(sentences), encoding="utf-8")
    return str(path)


def rows(folder: Path, name: str, *cells: Any) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(c) + "\n" for c in cells), encoding="utf-8")
    return str(path)


def load(subset_seed: int = 0, **options: Any) -> Task:
    task: Task = tasks.build(tasks.resolve({"kind": "tagged", **options}, "task")).load(subset_seed, Places())
    return task


def three(folder: Path, **changes: str) -> dict[str, str]:
    files = {"train": ANN + "\n" + BERN, "dev": ANN, "test": BERN, **changes}
    return {split: conll(folder, split, text) for split, text in files.items()}


def ids(task: Task, split: str) -> list[str]:
    return [e.id for e in task.splits[split]]


def test_words_become_a_text_and_tags_become_classes(tmp_path: Path) -> None:
    task = load(**three(tmp_path))
    assert (task.answer, task.name, task.template, task.notes) == ("tags", "tagged", "{prompt} {text}", ())
    assert task.verbalizer.classes == ("O", "B-person", "B-place", "I-person")
    first, second = task.splits["train"]
    assert (first.id, first.label, first.fields) == ("train-1", None, {"text": "Ann Lee sleeps"})
    assert (first.words, first.tags) == (("Ann", "Lee", "sleeps"), ("B-person", "I-person", "O"))
    assert second.source.endswith("train.conll:5")
    assert [ids(task, s) for s in ("dev", "test")] == [["dev-1"], ["test-1"]]


def test_rows_of_json_and_the_columns_of_both_formats(tmp_path: Path) -> None:
    cells = {"words": ["Ann", "New York"], "ner": ["B-person", "B-place"], "id": "x", "lang": "en"}
    train = rows(tmp_path, "train", cells)
    dev = conll(tmp_path, "dev", "x\tAnn\tB-person\tO\n")
    with refused(ConfigError, "have no names, got 'words'", where="task.token_column", fix="0 is the first"):
        load(train=train, dev=dev, test=dev, token_column="words", tag_column="ner")
    task = load(train=train, dev=train, test=train, token_column="words", tag_column="ner")
    (only,) = task.splits["train"]
    assert (only.id, only.words, only.fields) == ("x", ("Ann", "New York"), {"lang": "en", "text": "Ann New York"})
    task = load(train=dev, dev=dev, test=dev, token_column=1, tag_column="2")
    assert (task.splits["dev"][0].words, task.splits["dev"][0].tags) == (("Ann",), ("B-person",))


def test_a_predicate_stands_behind_the_text(tmp_path: Path) -> None:
    train = rows(tmp_path, "train", {"tokens": ["Ann", "eats"], "tags": ["B-A0", "B-V"], "verb": 1})
    task = load(train=train, dev=train, test=train, predicate_column="verb")
    assert task.template == "{prompt} {text} {sep} {predicate}"
    assert task.splits["train"][0].fields == {"predicate": "eats", "text": "Ann eats"}
    with refused(ConfigError, "needs a sentence a row", where="task.predicate_column", fix=".jsonl"):
        load(**three(tmp_path), predicate_column="verb")


def test_missing_splits_are_drawn_and_stay_the_same(tmp_path: Path) -> None:
    path = conll(tmp_path, "all", *[f"w{i}\tB-x\n" for i in range(40)])
    task = load(path=path)
    parts = [ids(task, s) for s in ("train", "dev", "test")]
    assert [len(p) for p in parts] == [22, 10, 8]  # 8 of 40, then a third of 32
    assert len({i for part in parts for i in part}) == 40
    again, other = load(7, path=path), load(path=path, split_seed=1)
    assert ids(again, "dev") == parts[1] != ids(other, "dev")
    assert len(ids(load(path=path, dev_fraction=0.5), "dev")) == 16


def test_a_subset_keeps_dev_and_tags(tmp_path: Path) -> None:
    files = three(tmp_path) | {"train": conll(tmp_path, "many", *[f"w{i}\tB-{i % 9}\n" for i in range(30)], ANN)}
    few = [load(seed, **files, train_rows=4) for seed in (0, 0, 1)]
    assert [len(t.splits["train"]) for t in few] == [4, 4, 4]
    assert ids(few[0], "train") == ids(few[1], "train") != ids(few[2], "train")
    assert {t.verbalizer.classes for t in few} == {load(**files).verbalizer.classes}
    assert any("No training sentence has" in note for note in few[0].notes)
    with refused(DataError, "99 sentences are asked for in train, there are 31", where="task.train_rows"):
        load(**files, train_rows=99)


def test_tags_that_train_lacks_are_counted(tmp_path: Path) -> None:
    task = load(**three(tmp_path, dev=ANN + "X\tB-ship\nY\tI-ship\n", test=BERN + "\nZ\tB-ship\n"))
    assert task.verbalizer.classes == ("O", "B-person", "B-place", "I-person")
    assert task.notes == (
        "In dev 2 words have tags that train lacks, which cannot be learned: B-ship, I-ship.",
        "In test 1 word has a tag that train lacks, which cannot be learned: B-ship.",
    )


def test_repaired_tags_and_other_schemes_are_noted_once_per_file(tmp_path: Path) -> None:
    files = three(tmp_path, dev=ANN + "\nLee\tI-person\n", test="Ann\tS-person\n")
    dev, test = load(**files).notes
    assert dev.startswith(f"{files['dev']}: 1 tag continues no entity")
    assert test.startswith(f"{files['test']}: The tags are IOBES")


def test_the_order_of_tags_can_be_given(tmp_path: Path) -> None:
    files = three(tmp_path)
    order = ["B-place", "O", "B-person", "I-person", "I-place"]
    task = load(**files, tags=order)
    assert task.verbalizer.classes == tuple(order)
    assert task.notes == ("No training sentence has I-place.",)
    with refused(
        DataError, "tag 'I-person', which is not among", where=f"{files['train']}:1", fix="Did you mean 'B-person'"
    ):
        load(**files, tags=order[:3])


@pytest.mark.parametrize(
    ("tags", "what", "where", "fix"),
    [
        (["O", "B-x", "B-x"], "stands twice", "task.tags.2", None),
        (["B-x", "I-x"], "the tag O is missing", "task.tags", None),
        (["O", "S-x"], "is not BIO2", "task.tags.1", "read as BIO2"),
    ],
)
def test_orders_that_are_refused(tmp_path: Path, tags: list[str], what: str, where: str, fix: str | None) -> None:
    with refused(ConfigError, what, where=where, fix=fix):
        load(**three(tmp_path), tags=tags)
    with refused(DataError, "is no tag of an entity", where="task.tags.0", fix="B-type"):
        load(**three(tmp_path), tags=["person"])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "give either path"),
        ({"path": "a", "train": "b"}, "give either path"),
        ({"path": "a", "dev": "b"}, "path holds all splits"),
    ],
)
def test_files_are_one_or_several(options: dict[str, str], what: str) -> None:
    with refused(ConfigError, what, where="task"):
        load(**options)


def test_nothing_to_learn_and_nothing_left(tmp_path: Path) -> None:
    files = three(tmp_path, train="in\tO\nBern\tO\n")
    with refused(DataError, "all tags of train are O", where=files["train"], fix="task.tag_column"):
        load(**files)
    with refused(DataError, "the dev split is empty", where="task", fix="files per split"):
        load(path=conll(tmp_path, "one", ANN))


def test_other_numbers_of_tags_than_of_words_are_refused(tmp_path: Path) -> None:
    bad = rows(tmp_path, "bad", {"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O"]})
    with refused(DataError, "2 words and 1 tags", where=f"{bad}:2"):
        load(train=bad, dev=bad, test=bad)


def test_the_fingerprint_knows_the_tags(tmp_path: Path) -> None:
    prints = {load(**three(tmp_path, test=t)).fingerprint for t in (BERN, BERN.replace("\tO", "\tB-place"), BERN)}
    assert len(prints) == 2


def sections(files: dict[str, str], backbone: str, **task: Any) -> dict[str, Any]:
    return {
        "task": {"kind": "tagged", **files, **task},
        "backbone": {"model": backbone, "dtype": "float32"},
        "prompt": {"kind": "prompt_tuning", "length": 3},
    }


@pytest.mark.parametrize(
    ("task", "changes", "error", "what", "where", "fix"),
    [
        ({}, ["readout.kind=cloze"], ConfigError, "no answers of the sort", "readout.kind", "Use tokens"),
        ({}, ["prompt.length=80"], TemplateError, "needs at least 8", "{train}:1", "Shorten the prompt"),
        ({"template": "{prompt} {title}"}, [], TemplateError, "no such column", "task.template", "Known"),
        ({"max_length": 99}, [], ConfigError, "has 64 positions", "task.max_length", None),
        ({}, ["training.select=accuracy"], ConfigError, "no metric", "training.select", "entity_f1, token_accuracy"),
    ],
)
def test_runs_that_are_refused_before_training(
    tmp_path: Path,
    tiny_folder: Path,
    task: dict[str, Any],
    changes: Sequence[str],
    error: type[Any],
    what: str,
    where: str,
    fix: str | None,
) -> None:
    from trimtab import api

    files = three(tmp_path)
    with refused(error, what, where=where.format(**files), fix=fix):
        api.run(sections(files, str(tiny_folder), **task), changes, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_text_must_be_in_the_template(tmp_path: Path, tiny_folder: Path) -> None:
    from trimtab import api

    train = rows(tmp_path, "train", {"tokens": ["Ann"], "tags": ["B-A0"], "topic": "names"})
    recipe = sections(dict.fromkeys(("train", "dev", "test"), train), str(tiny_folder), template="{prompt} {topic}")
    with refused(TemplateError, "reads the field {text}", where="task.template", fix="Write {text}"):
        api.validate(recipe)


def test_a_test_file_alone_is_to_score_runs_on(tmp_path: Path) -> None:
    built = tasks.build(tasks.resolve({"kind": "tagged", "test": three(tmp_path)["test"]}, "task"))
    files = three(tmp_path)
    assert built.examples("test", Places()) == load(**files).splits["test"]
    with refused(DataError, "the task has a test file only", where="task", fix="trimtab evaluate RUN --task"):
        built.load(0, Places())
    with refused(DataError, "the task 'tagged' has no file of the dev split", where="split", fix="test."):
        built.examples("dev", Places())
