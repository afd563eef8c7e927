"""Use the prompt of a finished run: score it, label with it, take it apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.api.inputs import (
    check_split,
    config_of,
    named_task,
    other_task,
    places_of,
    split_again,
    task_again,
    tasks_of,
)
from trimtab.errors import ConfigError
from trimtab.grading import judged
from trimtab.loading import load, load_tasks
from trimtab.predictions import Evaluation, OfTask, Records
from trimtab.storage import find_run, read_bundle, write_bundle
from trimtab.submission import check_task, file_name, submission
from trimtab.tasks.forms import Reading
from trimtab.types import Example


def evaluate(
    run: str | Path,
    split: str = "test",
    *,
    task: str | Mapping[str, Any] | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    data_dir: str | Path | None = None,
) -> Evaluation:
    """Score the prompt of a finished run on one split of its own task, or of another one with the same classes.

    Args:
        run: a run folder, or an id under `runs_dir`.
        split: train, dev or test.
        task: another task, whose rows and metrics are taken: a preset such as `superglue/ax_b`, or its options, such
            as `{"kind": "tagged", "test": "other.conll"}`. The template and the classes are those of the run. Of a run
            on several tasks, the name of one of them; all by default.

    Raises:
        BundleError, DataError, BackboneError: see `load` and the task.
    """
    check_split(split)
    folder = find_run(str(run), Path(runs_dir))
    if names := tasks_of(folder):
        return _evaluate_tasks(folder, split, named_task(task, names), device, data_dir)
    if task is not None:
        other = other_task(task)
        examples = other.examples(split, places_of(data_dir))
        predictor = load(folder, device=device)
        rendering = replace(predictor.rendering, metrics=other.metrics, headline=other.headline)
        return replace(predictor, rendering=rendering).evaluate(examples)
    return load(folder, device=device).evaluate(split_again(folder, split, data_dir))


def _evaluate_tasks(folder: Path, split: str, task: str | None, device: str, data_dir: str | Path | None) -> Evaluation:
    """Score a run on several tasks on all of them, or on one."""
    of, parts = load_tasks(folder, device=device), task_again(config_of(folder), folder, data_dir).parts
    if task is not None:
        return of.parts[task].evaluate(parts[task].splits[split])
    return of.evaluate({name: part.splits[split] for name, part in parts.items()})


def predict(
    run_or_bundle: str | Path,
    inputs: Sequence[Example | Mapping[str, Any] | str],
    *,
    task: str | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Records | list[OfTask]:
    """Label texts with a trained prompt, or let it write, where it was trained on free text.

    Args:
        run_or_bundle: a folder, or a run id under `runs_dir`.
        inputs: examples, mappings field -> text (with an optional `id`), or plain texts if the template has one field.
        task: of a prompt for several tasks, which one all inputs are of; without it each says so in its field `task`,
            and so do the predictions.
        trust_remote_code: let a bundle that asks for it run the code that comes with its model.

    Returns:
        One prediction per input, in order.
    """
    folder = find_run(str(run_or_bundle), Path(runs_dir))
    if task is None and tasks_of(folder):
        return load_tasks(folder, device=device, trust_remote_code=trust_remote_code).predict(inputs)
    return load(folder, task=task, device=device, trust_remote_code=trust_remote_code).predict(inputs)


def take_task(
    run_or_bundle: str | Path, task: str, output: str | Path, *, runs_dir: str | Path = "runs"
) -> dict[str, Any]:
    """Write the bundle of one task, taken out of that of several: the shared prompt with what belongs to the task.

    Args:
        output: the folder of the new bundle.

    Returns:
        The content of its bundle.json.

    Raises:
        BundleError: there is no such task.
        ConfigError: the folder holds a bundle already.
    """
    bundle = read_bundle(find_run(str(run_or_bundle), Path(runs_dir))).of_task(task)
    if (Path(output) / "bundle.json").exists():
        raise ConfigError("the folder holds a bundle already.", where=str(output), fix="Give another -o.")
    return write_bundle(Path(output), bundle)


def reading_of(
    run_or_bundle: str | Path, *, task: str | Mapping[str, Any] | None = None, runs_dir: str | Path = "runs"
) -> Reading:
    """How files of the task that a prompt was trained on are read, or those of another task. Where it was trained on
    several and none is named, a line is a row."""
    if task is not None and not tasks_of(find_run(str(run_or_bundle), Path(runs_dir))):
        return other_task(task).reading
    bundle = read_bundle(find_run(str(run_or_bundle), Path(runs_dir)))
    if bundle.tasks and task is None:
        return Reading()
    if bundle.tasks:
        bundle = bundle.of_task(str(named_task(task, bundle.tasks)))
    stated = bundle.metadata["task"]
    return Reading(stated.get("form"), stated.get("rename", {}))


def submit(
    run_or_bundle: str | Path,
    examples: Sequence[Example],
    *,
    task: str | Mapping[str, Any] | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[str, str, int]:
    """Predictions in the format of SuperGLUE's server.

    Args:
        run_or_bundle, trust_remote_code: as `predict`.
        examples: all rows of the official file, read as `reading_of` says.
        task: another task than that of the run, such as `superglue/ax_b` with a run of RTE; or which one of several.

    Returns:
        The name of the file, its content, and how many rows got the first class because what was written names none.

    Raises:
        ConfigError: the task is none of SuperGLUE's.
        DataError: a row without its number.
    """
    folder = find_run(str(run_or_bundle), Path(runs_dir))
    own = named_task(task, names) if (names := tasks_of(folder)) else None
    predictor = load(folder, task=own, device=device, trust_remote_code=trust_remote_code)
    name: Any = predictor.metadata["task"].get("submission")
    if task is not None and own is None:
        name = other_task(task).submission
    check_task(name)
    records = predictor.predict(list(examples))
    content, unnamed = submission(name, judged(examples, records), predictor.classes)
    return file_name(name), content, unnamed
