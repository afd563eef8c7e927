"""The `table` task: labels, splits, shots, and what is refused."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny import write_jsonl
from tests.unit.refusals import refused
from trimtab.config import resolve
from trimtab.errors import ConfigError, DataError
from trimtab.registry import tasks
from trimtab.stored import StoredFields
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places
from trimtab.templates import Template

WORDS = {"pos": "good", "neg": "bad"}


def rows(n: int, labels: tuple[str, ...] = ("pos", "neg"), start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"row {start + i}", "label": labels[i % len(labels)]} for i in range(n)]


def load(folder: Path, seed: int = 0, **options: Any) -> Task:
    """Load through the registry, as a run does; file names are relative to `folder`."""
    options = {"label_words": WORDS, **options}
    built = tasks.build(tasks.resolve({"kind": "table", **options}, "task"))
    task: Task = built.load(seed, Places(root=folder))
    return task


def ids(task: Task, split: str) -> list[str]:
    return [e.id for e in task.splits[split]]


def labels(task: Task, split: str) -> Counter[str | None]:
    return Counter(e.label for e in task.splits[split])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for i, split in enumerate(SPLITS):
        write_jsonl(tmp_path / f"{split}.jsonl", rows(12, start=100 * i))
    return tmp_path


FILES = {s: f"{s}.jsonl" for s in SPLITS}


def test_files_per_split_are_taken_as_they_are(files: Path) -> None:
    task = load(files, **FILES)
    assert {s: len(task.splits[s]) for s in SPLITS} == {"train": 12, "dev": 12, "test": 12}
    first = task.splits["dev"][0]
    assert (first.id, dict(first.fields), first.label) == ("dev-1", {"text": "row 100"}, "pos")
    assert first.source == f"{files / 'dev.jsonl'}:1"
    assert task.columns == ["text"]
    assert task.verbalizer.classes == ("pos", "neg")


def test_labels_may_be_numbers_booleans_or_padded_text(tmp_path: Path) -> None:
    given_rows = [{"text": "x", "label": v} for v in (1, True, " 1 ", "true") for _ in range(6)]
    write_jsonl(tmp_path / "t.jsonl", given_rows)
    task = load(tmp_path, path="t.jsonl", label_words={"1": "one", "true": "yes"})
    assert sum((labels(task, s) for s in SPLITS), Counter()) == {"1": 12, "true": 12}


def test_several_columns_numbers_and_lists_become_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"a": 1.5, "b": None, "c": ["x"], **r} for r in rows(30)])
    fields = load(tmp_path, path="t.jsonl", template="{prompt}{a}{answer}").splits["train"][0].fields
    assert (fields["a"], fields["b"], fields["c"]) == ("1.5", "", '["x"]')


def test_ids_come_from_the_id_column_or_the_position(files: Path) -> None:
    write_jsonl(files / "ids.jsonl", [{"key": f"k{i}", **r} for i, r in enumerate(rows(12))])
    assert (
        ids(
            load(files, train="ids.jsonl", dev="dev.jsonl", test="test.jsonl", template="{prompt}{text}{answer}"),
            "train",
        )[0]
        == "train-1"
    )
    with_key = load(files, train="ids.jsonl", id_column="key", template="{prompt}{text}{answer}")
    assert {i[0] for s in SPLITS for i in ids(with_key, s)} == {"k"}


def test_a_column_called_id_is_used_and_its_gaps_are_filled(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"id": "" if i == 3 else 70 + i, **r} for i, r in enumerate(rows(12))])
    task = load(tmp_path, path="t.jsonl")
    assert sorted(i for s in SPLITS for i in ids(task, s)) == sorted(
        ["train-4", *(str(70 + i) for i in range(12) if i != 3)]
    )


# Templates made for simple tables


def test_auto_template_puts_the_prompt_before_the_only_text_column(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "t.jsonl", [{"id": i, "Customer message": "x", "label": r["label"]} for i, r in enumerate(rows(12))]
    )
    task = load(tmp_path, path="t.jsonl")
    assert task.template == "{prompt} {field:Customer message} {answer}"
    assert Template.parse(task.template, 3).fields == ["Customer message"]


def test_auto_template_prefers_a_column_called_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"topic": "x", **r} for r in rows(12)])
    assert load(tmp_path, path="t.jsonl").template == "{prompt} {field:text} {answer}"


def test_several_columns_without_a_template_are_refused_with_an_example(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"a": "x", "b": "y", "label": r["label"]} for r in rows(12)])
    what = "a template is needed, as there are several columns (a, b)"
    with refused(ConfigError, what, where="task.template", fix="{prompt} {a} {answer}"):
        load(tmp_path, path="t.jsonl")


# Drawn splits


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(4, 60), min_size=2, max_size=4), st.integers(0, 3), st.integers(0, 10**6))
def test_drawn_splits_are_disjoint_complete_stratified_and_independent_of_training_seeds(
    tmp_path: Path, counts: list[int], split_seed: int, seed: int
) -> None:
    names = [f"c{i}" for i in range(len(counts))]
    write_jsonl(
        tmp_path / "t.jsonl",
        [{"text": f"{c} {i}", "label": c} for c, n in zip(names, counts, strict=True) for i in range(n)],
    )
    options: dict[str, Any] = {"path": "t.jsonl", "label_words": {c: f"w{c}" for c in names}, "split_seed": split_seed}
    task = load(tmp_path, seed, **options)
    drawn = {s: ids(task, s) for s in SPLITS}
    everything = [i for s in SPLITS for i in drawn[s]]
    assert len(everything) == len(set(everything)) == sum(counts)
    total = sum(counts)
    rest = total - len(drawn["test"])
    dev_share = max(0.1, min(50, rest // 3) / rest)
    for c, n in zip(names, counts, strict=True):
        here = {s: labels(task, s)[c] for s in SPLITS}
        assert min(here.values()) >= 1
        assert abs(here["test"] - 0.2 * n) <= 1
        assert abs(here["dev"] - dev_share * (n - here["test"])) <= 1
    other = load(tmp_path, seed + 1, **options)
    assert {s: ids(other, s) for s in SPLITS} == drawn
    assert other.fingerprint == task.fingerprint


def test_another_split_seed_draws_other_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", rows(60))
    a, b = (load(tmp_path, path="t.jsonl", split_seed=s) for s in (0, 1))
    assert ids(a, "test") != ids(b, "test")
    assert a.fingerprint != b.fingerprint


def test_the_test_split_does_not_depend_on_how_dev_is_drawn(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", rows(90))
    tests = [
        ids(load(tmp_path, path="t.jsonl", dev_fraction=f, shots=k), "test") for f, k in ((0.1, 0), (0.6, 0), (0.1, 4))
    ]
    assert tests[0] == tests[1] == tests[2]


def test_dev_has_at_least_fifty_rows_where_a_third_allows_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", rows(300))
    assert len(load(tmp_path, path="t.jsonl").splits["dev"]) == 50
    assert len(load(tmp_path, path="t.jsonl", dev_fraction=0.5).splits["dev"]) == 120


def test_only_missing_splits_are_drawn(files: Path) -> None:
    task = load(files, train="train.jsonl", test="test.jsonl")
    assert [e.fields["text"] for e in task.splits["test"]] == [f"row {i}" for i in range(200, 212)]
    assert len(task.splits["train"]) + len(task.splits["dev"]) == 12


def test_a_split_column_assigns_rows_and_is_no_field(tmp_path: Path) -> None:
    names = ["train", "Training", "dev", "VALIDATION", "val", "valid", " test "]
    write_jsonl(tmp_path / "t.jsonl", [{"part": names[i // 2], **r} for i, r in enumerate(rows(14))])
    task = load(tmp_path, path="t.jsonl", split_column="part")
    assert {s: len(task.splits[s]) for s in SPLITS} == {"train": 4, "dev": 8, "test": 2}
    assert task.columns == ["text"]


# Shots


def test_shots_are_per_class_in_class_order_for_train_and_dev(files: Path) -> None:
    task = load(files, shots=3, **FILES)
    assert [e.label for e in task.splits["train"]] == ["pos"] * 3 + ["neg"] * 3
    assert labels(task, "dev") == {"pos": 3, "neg": 3}
    assert len(task.splits["test"]) == 12


def test_dev_shots_may_differ_or_be_all(files: Path) -> None:
    assert labels(load(files, shots=3, dev_shots=2, **FILES), "dev") == {"pos": 2, "neg": 2}
    assert labels(load(files, shots=3, dev_shots=0, **FILES), "dev") == {"pos": 6, "neg": 6}


def test_test_rows_are_the_same_for_every_seed(files: Path) -> None:
    whole = load(files, **FILES).splits["test"]
    few = [load(files, **FILES, seed=seed, test_rows=3).splits["test"] for seed in (0, 1)]
    assert few[0] == few[1]
    assert [e for e in whole if e in few[0]] == list(few[0])
    assert len(few[0]) == 3
    assert load(files, **FILES, split_seed=1, test_rows=3).splits["test"] != few[0]
    assert load(files, **FILES, test_rows=10_000).splits["test"] == whole


def test_shots_depend_on_the_subset_seed_only(files: Path) -> None:
    def drawn(**seeds: int) -> list[list[str]]:
        config = resolve({"task": {"kind": "table", "label_words": WORDS, **FILES, "shots": 3}, "seeds": seeds}).config
        task: Task = tasks.build(config.task).load(config.seeds.subset, Places(root=files))
        return [ids(task, s) for s in SPLITS]

    base = drawn(init=1, data_order=1, subset=5, noise=1)
    assert drawn(init=2, data_order=3, subset=5, noise=4) == base
    others = [drawn(init=1, data_order=1, subset=s, noise=1) for s in (6, 7, 8)]
    assert all(o[2] == base[2] for o in others)
    assert all(o[0] != base[0] for o in others)


def test_train_and_dev_shots_are_drawn_independently(files: Path) -> None:
    task = load(files, shots=3, **FILES)
    assert [i.split("-")[1] for i in ids(task, "train")] != [i.split("-")[1] for i in ids(task, "dev")]


def test_too_few_rows_for_the_shots_are_refused(files: Path) -> None:
    what = "7 rows of class 'pos' are asked for in train, there are 6"
    with refused(DataError, what, where="task.shots"):
        load(files, shots=7, **FILES)
    with refused(DataError, "9 rows of class 'pos' are asked for in dev, there are 6", where="task.dev_shots"):
        load(files, shots=3, dev_shots=9, **FILES)


# What is refused


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "give either path (one file) or train"),
        ({"path": "a.csv", "train": "b.csv"}, "give either path (one file) or train"),
        ({"path": "a.csv", "dev": "b.csv"}, "path holds all splits"),
        ({"path": "a.csv", "test": "b.csv"}, "path holds all splits"),
    ],
)
def test_contradictory_files_are_refused(tmp_path: Path, options: dict[str, str], what: str) -> None:
    with refused(ConfigError, what, where="task"):
        load(tmp_path, **options)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "there is no such file", where=str(tmp_path / "none.csv")):
        load(tmp_path, path="none.csv")


@pytest.mark.parametrize("option", ["label", "split_column", "id_column"])
def test_a_column_that_does_not_exist_is_refused_with_suggestion(files: Path, option: str) -> None:
    with refused(DataError, "there is no column 'lable'", where="train.jsonl", fix="Did you mean 'label'?"):
        load(files, **FILES, **{option: "lable"})


def write_with(folder: Path, **changes: Any) -> str:
    """Twelve good rows, the third changed."""
    given_rows = rows(12)
    given_rows[2] |= changes
    write_jsonl(folder / "t.jsonl", given_rows)
    return f"{folder / 't.jsonl'}:3"


def test_a_label_without_label_words_is_refused_with_line_and_suggestion(tmp_path: Path) -> None:
    where = write_with(tmp_path, label="poss")
    with refused(DataError, "the label 'poss' has no label words", where=where, fix="Did you mean 'pos'?"):
        load(tmp_path, path="t.jsonl")


@pytest.mark.parametrize("value", ["", "  ", None])
def test_a_row_without_a_label_is_refused(tmp_path: Path, value: Any) -> None:
    where = write_with(tmp_path, label=value)
    with refused(DataError, "the row has no label in the column 'label'", where=where):
        load(tmp_path, path="t.jsonl")


@pytest.mark.parametrize("value", [["pos"], ["pos", "neg"], []])
def test_a_list_of_labels_is_refused_as_multi_label(tmp_path: Path, value: list[str]) -> None:
    where = write_with(tmp_path, label=value)
    what = "tasks with several labels per row are not supported"
    with refused(DataError, what, where=where, fix="one table per label"):
        load(tmp_path, path="t.jsonl")


@pytest.mark.parametrize("value", ["pos|neg", "pos, neg", "neg;pos"])
def test_joined_labels_are_refused_as_multi_label(tmp_path: Path, value: str) -> None:
    where = write_with(tmp_path, label=value)
    with refused(DataError, f"the label {value!r} names several classes", where=where):
        load(tmp_path, path="t.jsonl")


def test_a_label_that_merely_holds_a_comma_is_not_called_multi_label(tmp_path: Path) -> None:
    where = write_with(tmp_path, label="pos, maybe")
    with refused(DataError, "the label 'pos, maybe' has no label words", where=where, fix="Add it to task.label_words"):
        load(tmp_path, path="t.jsonl")


def test_a_label_that_is_a_mapping_is_refused(tmp_path: Path) -> None:
    where = write_with(tmp_path, label={"a": 1})
    with refused(DataError, "the column 'label' must hold text, got dict", where=where):
        load(tmp_path, path="t.jsonl")


def test_a_repeated_id_is_refused_with_both_places(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"id": i % 5, **r} for i, r in enumerate(rows(12))])
    what = f"the id '0' stands at {tmp_path / 't.jsonl'}:1 too"
    with refused(DataError, what, where=f"{tmp_path / 't.jsonl'}:6", fix="task.id_column=false"):
        load(tmp_path, path="t.jsonl")


def test_ids_that_repeat_across_files_are_refused_with_advice_that_works(tmp_path: Path) -> None:
    for split in SPLITS:
        write_jsonl(tmp_path / f"{split}.jsonl", [{"id": i, **r} for i, r in enumerate(rows(6))])
    what = f"the id '0' stands at {tmp_path / 'train.jsonl'}:1 too"
    with refused(DataError, what, where=f"{tmp_path / 'dev.jsonl'}:1", fix="task.id_column=false"):
        load(tmp_path, **FILES)
    task = load(tmp_path, id_column=False, **FILES)
    assert [ids(task, s)[0] for s in SPLITS] == ["train-1", "dev-1", "test-1"]
    assert task.splits["dev"][3].fields["id"] == "3"
    assert task.template == "{prompt} {field:text} {answer}"


@pytest.mark.parametrize(("given", "column"), [(0, "0"), ("false", "false"), (None, None), (False, False)])
def test_only_false_itself_stands_for_no_id_column(given: Any, column: Any) -> None:
    resolved = tasks.resolve({"kind": "table", "train": "t.csv", "label_words": WORDS, "id_column": given}, "task")
    assert resolved["id_column"] == column
    assert type(resolved["id_column"]) is type(column)


def test_true_is_no_id_column() -> None:
    with refused(ConfigError, "got True", where="task.id_column.str"):
        tasks.resolve({"kind": "table", "train": "t.csv", "label_words": WORDS, "id_column": True}, "task")


def test_an_unknown_split_name_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"part": "trian", **r} for r in rows(12)])
    with refused(DataError, "the split must be train, dev or test, got 'trian'", where=f"{tmp_path / 't.jsonl'}:1"):
        load(tmp_path, path="t.jsonl", split_column="part")


@pytest.mark.parametrize("part", ["dev", "test"])
def test_a_split_column_without_train_rows_is_refused(tmp_path: Path, part: str) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"part": part, **r} for r in rows(12)])
    with refused(DataError, "the train split is empty", where="task", fix="Give more rows"):
        load(tmp_path, path="t.jsonl", split_column="part", template="{prompt}{text}{answer}")


def test_a_table_too_small_to_split_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", rows(2))
    with refused(DataError, "the dev split is empty", where="task", fix="Give more rows"):
        load(tmp_path, path="t.jsonl")


def test_an_empty_file_of_a_split_is_refused(files: Path) -> None:
    (files / "dev.jsonl").write_text("")
    with refused(DataError, "the table has no rows", where=str(files / "dev.jsonl")):
        load(files, **FILES)


def test_a_class_without_a_row_in_train_is_refused(files: Path) -> None:
    write_jsonl(files / "train.jsonl", rows(12, ("pos",)))
    what = "the class 'neg' has label words but no row in train"
    with refused(DataError, what, where="task.label_words.neg", fix="Remove the class or add rows"):
        load(files, **FILES)


def test_label_words_are_checked(files: Path) -> None:
    with refused(ConfigError, "at least two classes are needed", where="task.label_words"):
        load(files, label_words={"pos": "good"}, **FILES)


def test_the_fingerprint_changes_with_any_row(files: Path) -> None:
    before = load(files, **FILES).fingerprint
    assert load(files, **FILES).fingerprint == before
    write_jsonl(files / "test.jsonl", [*rows(11, start=200), {"text": "row 211!", "label": "neg"}])
    assert load(files, **FILES).fingerprint != before


@pytest.mark.parametrize("preset", ["support_desk", "product_reviews"])
def test_bundled_tasks_load_and_no_text_stands_in_two_splits(preset: str) -> None:
    task: Task = tasks.build(tasks.resolve(preset, "task")).load(0, Places())
    texts = [e.fields["text"] for s in SPLITS for e in task.splits[s]]
    assert len(texts) == len(set(texts))
    assert all(set(labels(task, s)) == set(task.verbalizer.classes) for s in SPLITS)
    Template.parse(task.template, 5).check_fields(task.columns)


def test_a_missing_few_shot_dev_is_drawn_beside_the_shots(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": f"row {i}", "label": ("a", "b")[i % 2]} for i in range(20)]
    for name in ("train", "test"):
        named = [{**r, "id": f"{name}{r['id']}"} for r in rows]
        write_jsonl(tmp_path / f"{name}.jsonl", named)
    files = {s: str(tmp_path / f"{s}.jsonl") for s in ("train", "test")}
    task = tasks.build(
        tasks.resolve({"kind": "table", **files, "label_words": {"a": "yes", "b": "no"}, "shots": 4}, "task")
    ).load(3, Places())
    assert [len(task.splits[s]) for s in ("train", "dev", "test")] == [8, 8, 20]
    ids = [e.id for s in ("train", "dev") for e in task.splits[s]]
    assert len(set(ids)) == 16
    assert all(i.startswith("train") for i in ids)


# Free text ----------------------------------------------------------------------------------------------------------


def free(folder: Path, seed: int = 0, **options: Any) -> Task:
    return load(folder, seed, label_words=None, target="answer", **options)


def answers(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"row {start + i}", "answer": f" It is {start + i}.\n"} for i in range(n)]


def test_a_target_column_holds_answers_and_is_no_field(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", answers(60))
    task = free(tmp_path, path="t.jsonl")
    assert task.verbalizer.is_free
    assert task.columns == ["text"]
    assert task.template == "{prompt} {field:text} {answer}"
    assert {s: len(task.splits[s]) for s in SPLITS} == {"train": 32, "dev": 16, "test": 12}
    rows = [e for s in SPLITS for e in task.splits[s]]
    assert all(e.label == f"It is {e.fields['text'].split()[1]}." for e in rows)
    assert [e.id for e in free(tmp_path, 7, path="t.jsonl").splits["test"]] == ids(task, "test")


def test_shots_of_free_text_are_rows_drawn_by_the_subset_seed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", answers(60))
    one, other = (free(tmp_path, seed, path="t.jsonl", shots=8, dev_shots=5) for seed in (0, 1))
    assert {s: len(one.splits[s]) for s in SPLITS} == {"train": 8, "dev": 5, "test": 12}
    assert not {*ids(one, "train")} & {*ids(one, "dev")}
    assert ids(one, "train") != ids(other, "train")
    assert ids(one, "test") == ids(other, "test")
    with refused(DataError, "99 rows are asked for in train, there are 48", where="task.shots"):
        free(tmp_path, path="t.jsonl", shots=99)


def test_numbers_and_answers_of_any_length_are_text(tmp_path: Path) -> None:
    values = [7, True, "a " * 300] * 8
    write_jsonl(tmp_path / "t.jsonl", [{"text": "x", "answer": v} for v in values])
    task = free(tmp_path, path="t.jsonl")
    assert {e.label for s in SPLITS for e in task.splits[s]} == {"7", "true", ("a " * 300).strip()}


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_answer_is_refused_with_its_line(value: str | None, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [*answers(3), {"text": "x", "answer": value}])
    with refused(DataError, "the row has no answer in the column 'answer'", where=f"{tmp_path / 't.jsonl'}:4"):
        free(tmp_path, path="t.jsonl")


def test_a_list_of_answers_is_refused_with_its_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"text": "x", "answer": ["a", "b"]}])
    with refused(DataError, "the answer is a list", where=f"{tmp_path / 't.jsonl'}:1", fix="Choose one answer"):
        free(tmp_path, path="t.jsonl")


def test_a_target_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"text": "x", "anwser": "y"}])
    with refused(DataError, "there is no column 'answer'", where="t.jsonl", fix="'anwser'"):
        free(tmp_path, path="t.jsonl")


@pytest.mark.parametrize("options", [{"label_words": None}, {"label_words": WORDS, "target": "answer"}])
def test_classes_and_free_text_exclude_each_other(options: dict[str, Any], tmp_path: Path) -> None:
    with refused(ConfigError, "give either label_words (classes and their words), target", where="task"):
        load(tmp_path, path="t.jsonl", **options)


@pytest.mark.parametrize(
    "options", [{}, {"shots": 3}, {"rename": {"text": "body"}, "template": "{prompt} {body} {answer}"}]
)
@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv"])
def test_rows_in_a_scratch_file_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, options: dict[str, Any]
) -> None:
    many = [{**row, "text": f'a "quoted", {row["text"]}' if i % 5 else f"ä {i}"} for i, row in enumerate(rows(40))]
    path = tmp_path / f"t.{ending}"
    if ending == "jsonl":
        write_jsonl(path, [{**row, "more": 1} if i > 30 else row for i, row in enumerate(many)])
    else:
        delimiter = {"csv": ",", "tsv": "\t"}[ending]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
            writer.writeheader()
            writer.writerows(many)
    options = {"path": path.name, "template": "{prompt} {text} {answer}", **options}
    held = load(tmp_path, **options)
    monkeypatch.setattr("trimtab.stored.HELD", 4)
    stored = load(tmp_path, **options)
    assert isinstance(stored.splits["train"][-1].fields, StoredFields)
    assert stored.splits == held.splits
    assert stored.fingerprint == held.fingerprint


def test_what_is_wrong_behind_the_rows_in_memory_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.stored.HELD", 4)
    given_rows = rows(20)
    given_rows[14]["label"] = "neutral"
    write_jsonl(tmp_path / "t.jsonl", given_rows)
    where = f"{tmp_path / 't.jsonl'}:15"
    with refused(DataError, "the label 'neutral' has no label words", where=where, fix="Add it to task.label_words."):
        load(tmp_path, path="t.jsonl")
