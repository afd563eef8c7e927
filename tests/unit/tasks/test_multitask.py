"""Several tasks as one: their examples, names and shares, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tagged_task, toy_task
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.registry import tasks
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places


def built(folder: Path, **options: Any) -> Any:
    few = {**toy_task(folder, 16), "name": "few", "shots": 2, "dev_shots": 2}
    section = {"kind": "multitask", "tasks": [toy_task(folder, 16), few, tagged_task(folder, 8)], **options}
    return tasks.build(tasks.resolve(section, "task"))


def loaded(folder: Path, subset: int = 0, **options: Any) -> Task:
    found: Task = built(folder, **options).load(subset, Places())
    return found


def test_all_examples_stand_task_by_task(tmp_path: Path) -> None:
    whole = loaded(tmp_path)
    assert (whole.name, list(whole.parts)) == ("toy+few+names", ["toy", "few", "names"])
    assert [len(part.splits["train"]) for part in whole.parts.values()] == [16, 4, 8]
    for split in SPLITS:
        assert whole.splits[split] == tuple(e for part in whole.each for e in part.splits[split])
    assert loaded(tmp_path, name="all").name == "all"
    alone = whole.parts["toy"]
    assert alone.each == (alone,)


def test_each_task_is_as_if_it_were_alone(tmp_path: Path) -> None:
    alone: Task = tasks.build(tasks.resolve(toy_task(tmp_path, 16), "task")).load(0, Places())
    assert loaded(tmp_path).parts["toy"] == alone


def test_the_fingerprint_is_of_all_tasks_and_their_names(tmp_path: Path) -> None:
    one, again, other = loaded(tmp_path), loaded(tmp_path), loaded(tmp_path, subset=1)
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint, "the shots are others"
    renamed = built(tmp_path)
    renamed._tasks[0].name = "other"
    assert renamed.load(0, Places()).fingerprint != one.fingerprint


def test_notes_say_their_task(tmp_path: Path) -> None:
    part = loaded(tmp_path).parts["toy"]
    both = Task.together("x", {"a": part, "b": Task(part.name, part.splits, "", (), part.verbalizer, notes=("odd.",))})
    assert both.notes == ("b: odd.",)


def test_files_are_those_of_all_tasks(tmp_path: Path) -> None:
    files = built(tmp_path).files
    assert len(files) == 9
    assert all(Path(path).is_file() for path in files.values())


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, ()),
        ({"mixing": "equal"}, (1 / 3, 1 / 3, 1 / 3)),
        ({"mixing": {"few": 1, "toy": 2, "names": 5}}, (0.25, 0.125, 0.625)),
        ({"temperature": 2}, (4 / 8.8284271, 2 / 8.8284271, 8**0.5 / 8.8284271)),
    ],
)
def test_shares_of_an_epoch(options: dict[str, Any], shares: tuple[float, ...], tmp_path: Path) -> None:
    assert loaded(tmp_path, **options).shares == pytest.approx(shares)


def test_two_tasks_need_two_names(tmp_path: Path) -> None:
    same = [toy_task(tmp_path, 4), toy_task(tmp_path, 4)]
    fix = "task.tasks.1.name=OTHER"
    with refused(ConfigError, "two tasks are called 'toy'", where="task.tasks.1", fix=fix):
        loaded(tmp_path, tasks=same)


@pytest.mark.parametrize(
    ("mixing", "what", "fix"),
    [
        ({"toy": 1, "fwe": 1, "names": 1}, "there is no task 'fwe'", "Did you mean 'few'?"),
        ({"toy": 1, "few": 1}, "the task 'names' has no weight", "Give one to every task."),
    ],
)
def test_weights_name_the_tasks(mixing: Any, what: str, fix: str, tmp_path: Path) -> None:
    with refused(ConfigError, what, where="task.mixing", fix=fix):
        loaded(tmp_path, mixing=mixing)


def test_one_task_is_not_several(tmp_path: Path) -> None:
    with refused(ConfigError, "name at least two tasks, got 1", where="task.tasks"):
        built(tmp_path, tasks=[toy_task(tmp_path, 4)])
    nested = {"kind": "multitask", "tasks": [toy_task(tmp_path, 4), tagged_task(tmp_path, 4)]}
    with refused(ConfigError, "a task of several cannot be one of several", where="task.tasks", fix="one list"):
        built(tmp_path, tasks=[toy_task(tmp_path, 4), nested])


def test_a_temperature_is_of_proportions(tmp_path: Path) -> None:
    with refused(ConfigError, "a temperature flattens proportions", where="task.temperature", fix="Leave it out"):
        built(tmp_path, mixing="equal", temperature=2)


def test_the_tasks_are_a_list_of_known_kinds() -> None:
    with refused(ConfigError, "this key is required", where="task.tasks"):
        tasks.resolve({"kind": "multitask"}, "task")
    with refused(ConfigError, "there is no task 'sst3'", where="task.tasks.1.kind", fix="Did you mean 'sst2'?"):
        tasks.resolve({"kind": "multitask", "tasks": ["trec", "sst3"]}, "task")
    with refused(ConfigError, "there is no such key", where="task.tasks.0.shoots", fix="Did you mean 'shots'?"):
        tasks.resolve({"kind": "multitask", "tasks": [{"kind": "trec", "shoots": 1}, "sst2"]}, "task")
