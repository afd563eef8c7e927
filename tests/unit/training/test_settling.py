"""What is settled when the tasks of a run are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.test_multitask import READ, tasks_of
from tests.tiny import toy_task
from tests.unit.refusals import refused
from trimtab.config import RunConfig, resolve
from trimtab.errors import ConfigError
from trimtab.registry import tasks
from trimtab.tasks import Task
from trimtab.tasks.reading import Places
from trimtab.training.settling import headline, naming, settled

POSSIBLE = ("cloze", "head", "tokens")


def given(folder: Path, *overrides: str) -> tuple[RunConfig, Task]:
    config = resolve({"task": tasks_of(folder), "readout": READ, "prompt": {"length": 3}}, overrides).config
    return config, tasks.build(config.task).load(0, Places())


def test_each_task_is_settled_as_if_it_were_alone(tmp_path: Path) -> None:
    config, task = given(tmp_path)
    whole, alone = settled(config, task, POSSIBLE)
    assert [its.readout["kind"] for its in alone] == ["cloze", "head", "tokens"]
    assert [its.task["name"] for its in alone] == ["toy", "twin", "names"]
    assert [its.training.select for its in alone] == ["accuracy", "accuracy", "entity_f1"]
    assert [headline(its, part) for its, part in zip(alone, task.each, strict=True)] == [
        "accuracy", "accuracy", "entity_f1"
    ]  # fmt: skip
    assert whole.readout == {
        "kind": "by_task",
        "readouts": {n: c.readout for n, c in zip(task.parts, alone, strict=True)},
    }
    assert (whole.training.select, headline(whole, task)) == ("score", "score")
    assert settled(whole, task, POSSIBLE) == (whole, alone), "what is settled stays as it is"


def test_one_task_is_settled_alone(tmp_path: Path) -> None:
    config = resolve({"task": toy_task(tmp_path, 4), "prompt": {"length": 3}}).config
    task = tasks.build(config.task).load(0, Places())
    whole, alone = settled(config, task, POSSIBLE)
    assert alone == (whole,)
    assert whole.readout["kind"] == "cloze"


@pytest.mark.parametrize(
    ("where", "shown"), [("task.template", "task.template (the task 'a')"), (None, "the task 'a'")]
)
def test_an_error_names_its_task(where: str | None, shown: str) -> None:
    with refused(ConfigError, "wrong", where=shown, fix="do"), naming("a"):
        raise ConfigError("wrong", where=where, fix="do")
