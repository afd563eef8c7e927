"""What the verbs share: how recipes, places and runs are named."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.config import Resolution, RunConfig, read_recipe, resolve
from trimtab.documents import read_yaml
from trimtab.errors import ConfigError, DataError
from trimtab.registry import tasks, validated
from trimtab.storage import RunFolder, read_bundle
from trimtab.tasks import SPLITS, Task
from trimtab.tasks.reading import Places, resolve_path
from trimtab.tasks.splits import FromFiles
from trimtab.types import Example

Recipe = str | Path | Mapping[str, Any]
Overrides = Sequence[str] | Mapping[str, Any]


def resolved(recipe: Recipe, overrides: Overrides) -> Resolution:
    """The config that a recipe and its overrides come to; errors as `trimtab.config.resolve`."""
    return resolve(recipe if isinstance(recipe, Mapping) else read_recipe(Path(recipe)), overrides)


def places_of(data_dir: str | Path | None) -> Places:
    """Where data lies: the folder that is given, or TRIMTAB_DATA."""
    given = data_dir or os.environ.get("TRIMTAB_DATA")
    return Places(Path(given) if given else None)


def other_task(task: str | Mapping[str, Any]) -> FromFiles:
    """A task whose rows a run of another one can be scored on, built.

    Raises:
        ConfigError: its kind takes no files of rows, such as several tasks at once.
    """
    built = tasks.build(tasks.resolve(task, "task"))
    if not isinstance(built, FromFiles):
        raise ConfigError(
            "rows of another task come from a table, from tagged sentences or from questions.",
            where="task",
            fix="Name one of `trimtab ls tasks`, or a file: '{kind: tagged, test: FILE}'.",
        )
    return built


def check_split(split: str) -> None:
    """Refuse what is no split.

    Raises:
        ConfigError: it is none.
    """
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}.", where="split", fix=f"Known: {', '.join(SPLITS)}.")


def split_again(folder: Path, split: str, data_dir: str | Path | None, task: str | None = None) -> Sequence[Example]:
    """The examples of a finished run, or of one of its tasks, where it is on several.

    Raises:
        ConfigError: the run has no such task, or has several and none is named.
        DataError: as of `task_again`.
    """
    names = tasks_of(folder)
    if not names and task is None:
        return task_again(config_of(folder), folder, data_dir).splits[split]
    if not names:
        raise ConfigError("the run is on one task only.", where=f"task = {task}", fix="Leave the name of the task out.")
    if task is None:
        raise ConfigError(
            f"the run is on several tasks ({', '.join(names)}), and none of them is named.",
            where=str(folder),
            fix=f"Say which one: --task {names[0]}.",
        )
    part: Task = task_again(config_of(folder), folder, data_dir).parts[str(named_task(task, names))]
    return part.splits[split]


def task_again(config: RunConfig, folder: Path, data_dir: str | Path | None) -> Task:
    """The task of a finished run; relative paths are tried here, then from where the run was started.

    Raises:
        DataError: the data is not what it was, or not there.
    """
    task = tasks.build(config.task)
    places = places_of(data_dir)
    record = RunFolder(folder).record
    if not all(resolve_path(f, places).exists() for f in task.files.values() if not f.startswith("data:")):
        places = Places(places.data, Path(record["working_directory"]))
    loaded: Task = task.load(config.seeds.subset, places)
    if loaded.fingerprint != record["fingerprints"]["data"]:
        raise DataError(
            "the data has changed since the run, so its splits are other rows now.",
            where=str(folder),
            fix="Restore the data, or use `trimtab predict` on the rows you want scored.",
        )
    return loaded


def tasks_of(folder: Path) -> tuple[str, ...]:
    """The names of a bundle's tasks, where it has several; an unfinished run has none."""
    return read_bundle(folder).tasks if (folder / "bundle.json").exists() else ()


def named_task(task: str | Mapping[str, Any] | None, names: Sequence[str]) -> str | None:
    """The task of several that is meant.

    Raises:
        ConfigError: it is none of them.
    """
    if task is None or (isinstance(task, str) and task in names):
        return task
    raise ConfigError(
        f"the run is on several tasks ({', '.join(names)}), and this is none of them: {task!r}.",
        where="task",
        fix="Name one. To score rows of another table, take its bundle out first: trimtab take RUN TASK -o FOLDER.",
    )


def config_of(folder: Path) -> RunConfig:
    """The config of a finished run."""
    return validated(RunConfig, read_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
