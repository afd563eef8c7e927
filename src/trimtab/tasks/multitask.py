"""Several tasks with one prompt (P-tuning v2, Liu et al. 2022, arXiv 2110.07602, on multi-task learning; mixing after
T5, Raffel et al. 2020, arXiv 1910.10683, section 3.5.1).

    loss = 1/B sum over the rows of a batch of loss_t(row),    t = the task of the row

    proportional   an epoch has every training row once
    equal          s_t = 1 / K
    {task: w}      s_t = w_t / sum of w                        N s_t rows of task t in an epoch of N = sum of n_t rows
    temperature T  s_t = n_t^(1/T) / sum of n^(1/T)

Symbols: K tasks, n_t training examples of task t. The prompt belongs to all tasks; a template, label words or a head
belong to one. P-tuning v2 optimizes prompts for several tasks together before each task is trained alone: for that,
`prompt.initializer: {kind: from_run, run: ...}` takes the prompt and leaves the heads.

Parameters: those of the prompt, once, and of each head, H + 1 per class as in the readout `head`.

With shares, the rows of a task are dealt from one shuffled pass after the other, so that each is seen equally often to
within one, however large its share. What is dealt in an epoch depends on the seed and the numbers of rows alone, and
its batches on their lengths.

Deviations: P-tuning v2's released code has no multi-task training, so what its paper leaves open (how tasks are mixed,
what selects a checkpoint) is ours. T5 caps n_t at a limit; here weights do that.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, final, runtime_checkable

from pydantic import Field

from trimtab.errors import ConfigError, suggest
from trimtab.registry import tasks
from trimtab.tasks import Task
from trimtab.tasks.reading import Places


@runtime_checkable
class Loads(Protocol):
    """A task before its files are read."""

    files: dict[str, str]

    def load(self, subset_seed: int, places: Places) -> Task:
        """Its examples."""
        ...


Mixing = Literal["proportional", "equal"] | dict[str, Annotated[float, Field(gt=0)]]


@final
@tasks.register("multitask")
class MultiTask:
    """Several tasks that share one prompt; each has its template, its readout and its metrics.

    Every task is given as if it were alone, and is read as its backbone's family does by default, or as the recipe's
    `readout` says: one kind for all, or `{kind: by_task, readouts: {NAME: ...}}`. The run stands for the mean of what
    stands for each task, `score`, which also selects the checkpoint.

    Args:
        tasks: at least two, each a kind or a mapping; their names must differ.
        mixing: how much of an epoch is rows of each: `proportional` to their numbers, `equal`, or weights by name.
        temperature: with `proportional`, 1 or more: the larger, the more nearly equal.
        name: how the whole is called in tables and run ids; the names of the tasks by default.
    """

    def __init__(
        self,
        *,
        tasks: Annotated[list[Loads], tasks],
        mixing: Mixing = "proportional",
        temperature: Annotated[float, Field(ge=1)] = 1.0,
        name: str = "",
    ) -> None:
        if len(tasks) < 2:
            raise ConfigError(f"name at least two tasks, got {len(tasks)}.", where="task.tasks")
        if any(isinstance(its, MultiTask) for its in tasks):
            raise ConfigError(
                "a task of several cannot be one of several.", where="task.tasks", fix="Name all tasks in one list."
            )
        if mixing != "proportional" and temperature != 1.0:
            raise ConfigError(
                "a temperature flattens proportions, and there are none.",
                where="task.temperature",
                fix="Leave it out, or use task.mixing=proportional.",
            )
        self._tasks, self._mixing, self._temperature, self.name = tasks, mixing, temperature, name

    @property
    def files(self) -> dict[str, str]:
        """The files of all tasks."""
        return {f"{i}:{name}": path for i, its in enumerate(self._tasks) for name, path in its.files.items()}

    def load(self, subset_seed: int, places: Places) -> Task:
        """Load every task.

        Raises:
            ConfigError: two tasks have one name, or weights do not name the tasks.
        """
        parts: dict[str, Task] = {}
        for i, its in enumerate(self._tasks):
            part = its.load(subset_seed, places)
            if part.name in parts:
                raise ConfigError(
                    f"two tasks are called {part.name!r}, and answers are kept by name.",
                    where=f"task.tasks.{i}",
                    fix=f"Give one another name: task.tasks.{i}.name=OTHER.",
                )
            parts[part.name] = part
        return Task.together(self.name or "+".join(parts), parts, self._shares(parts))

    def _shares(self, parts: dict[str, Task]) -> tuple[float, ...]:
        """How much of an epoch is rows of each; none where every row is seen once."""
        weights: dict[str, Any] = dict.fromkeys(parts, 1.0)
        if self._mixing == "proportional":
            if self._temperature == 1.0:
                return ()
            weights = {name: len(part.splits["train"]) ** (1 / self._temperature) for name, part in parts.items()}
        elif isinstance(self._mixing, dict):
            weights = self._mixing
            _check_names(weights, parts)
        total = sum(weights.values())
        return tuple(weights[name] / total for name in parts)


def _check_names(weights: dict[str, Any], parts: dict[str, Task]) -> None:
    for name in weights:
        if name not in parts:
            raise ConfigError(f"there is no task {name!r}.", where="task.mixing", fix=suggest(name, parts))
    missing = [name for name in parts if name not in weights]
    if missing:
        raise ConfigError(f"the task {missing[0]!r} has no weight.", where="task.mixing", fix="Give one to every task.")
