"""What of a config is settled when task and backbone are known: readouts, and the metric that selects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from trimtab.benchmark_metrics import MEAN
from trimtab.config import RunConfig
from trimtab.errors import ConfigError, TrimtabError
from trimtab.grading import Grader, Graders
from trimtab.readouts.by_task import readouts_of
from trimtab.registry import readouts
from trimtab.tasks import Task


def settled(config: RunConfig, task: Task, possible: Sequence[str]) -> tuple[RunConfig, tuple[RunConfig, ...]]:
    """The config made concrete, and that of each of its tasks alone; of one task it is the same.

    Raises:
        ConfigError: as `concrete`; of several tasks, with the name of the task.
    """
    if not task.parts:
        own = concrete(config, task, possible)
        return own, (own,)
    given = {n: _resolved(spec, n) for n, spec in readouts_of(config.readout, list(task.parts)).items()}
    alone = []
    for (name, part), options in zip(task.parts.items(), config.task["tasks"], strict=True):
        with naming(name):
            training = config.training.model_copy(update={"select": "auto"})
            its = {"task": options, "readout": given[name], "training": training}
            alone.append(concrete(config.model_copy(update=its), part, possible))
    metrics = [readouts.get(c.readout["kind"]).metrics for c in alone]  # type: ignore[attr-defined]
    known = graders_of(alone, task).names(metrics)
    readout = {"kind": "by_task", "readouts": {n: c.readout for n, c in zip(task.parts, alone, strict=True)}}
    select = _selected(config.training.select, known, "a run on several tasks")
    training = config.training.model_copy(update={"select": select})
    return config.model_copy(update={"readout": readout, "training": training}), tuple(alone)


@contextmanager
def naming(task: str) -> Iterator[None]:
    """What is wrong with one of several tasks names it."""
    try:
        yield
    except TrimtabError as error:
        at = f"the task {task!r}"
        raise type(error)(error.what, where=f"{error.where} ({at})" if error.where else at, fix=error.fix) from None


def graders_of(alone: Sequence[RunConfig], task: Task) -> Graders:
    """How the answers of several tasks are scored.

    Args:
        alone: the config of each.
    """
    pairs = zip(task.parts.items(), alone, strict=True)
    return Graders({name: replace(_grader(part), headline=headline(config, part)) for (name, part), config in pairs})


def headline(config: RunConfig, task: Task) -> str:
    """The metric that stands for a run: the task's, accuracy where there are classes, else the one that selects the
    checkpoint; of several tasks the mean."""
    select, readout = config.training.select, readouts.get(config.readout["kind"])
    if task.parts:
        return MEAN
    if task.headline is not None:
        return task.headline
    if task.verbalizer.classes and task.answer != "tags":
        return "accuracy"
    return str(readout.metrics[0]) if select == "loss" else select  # type: ignore[attr-defined]


def _resolved(spec: Mapping[str, Any] | str, task: str) -> dict[str, Any]:
    """The readout of one of several tasks."""
    given = {"kind": spec} if isinstance(spec, str) else dict(spec)
    return given if given == {"kind": "auto"} else readouts.resolve(given, f"readout.readouts.{task}")


def _grader(task: Task) -> Grader:
    return Grader(task.verbalizer, task.metrics, task.headline, task.candidate, task.nothing_matches)


def _selected(select: str, known: Sequence[str], of: str) -> str:
    """The metric that selects."""
    if select not in ("auto", "loss", *known):
        raise ConfigError(
            f"{of} has no metric {select!r}.", where="training.select", fix=f"Use auto, {', '.join(known)} or loss."
        )
    return known[0] if select == "auto" else select


def concrete(config: RunConfig, task: Task, possible: Sequence[str]) -> RunConfig:
    """A config whose readout, and what selects the checkpoint, are no longer `auto`.

    Args:
        possible: the readouts of the backbone's family, the default first. A task of free text needs one that writes.

    Raises:
        ConfigError: the family or the task cannot be read so, none of the family's readouts writes, or the readout has
            no such metric.
    """
    spec, model = config.readout, config.backbone.model
    fitting = [k for k in possible if task.answer in readouts.get(k).kinds]  # type: ignore[attr-defined]
    if not fitting and task.answer != "text":
        raise ConfigError(f"{model!r} has no readout for answers of the sort {task.answer!r}.", where="backbone.model")
    if not fitting:
        raise ConfigError(
            f"the task's answers are free text, and {model!r} cannot write.",
            where="backbone.model",
            fix="Use a causal or encoder-decoder model, such as nano-causal, or give label words.",
        )
    if spec["kind"] == "auto":
        spec = readouts.resolve({**spec, "kind": fitting[0]}, "readout")
    if spec["kind"] not in possible:
        raise ConfigError(
            f"{model!r} cannot be read by {spec['kind']!r}.",
            where="readout.kind",
            fix=f"Use {' or '.join(fitting)}, or leave it out.",
        )
    if spec["kind"] not in fitting:
        raise ConfigError(
            f"the readout {spec['kind']!r} gives no answers of the sort that the task {task.name!r} has "
            f"({task.answer}).",
            where="readout.kind",
            fix=f"Use {' or '.join(fitting)}, or leave it out.",
        )
    known = _grader(task).names(readouts.get(spec["kind"]).metrics)  # type: ignore[attr-defined]
    select = _selected(config.training.select, known, f"the readout {spec['kind']!r}")
    training = config.training.model_copy(update={"select": select})
    return config.model_copy(update={"readout": spec, "training": training})
