"""A StudyConfig -> the plan: every run of it, in an order that never changes, each with its resolved config.

A **line** of the report is a combination of the compared axes, a **setting** one of the tuned axes within a line, and a
run is a setting with seeds. A run's key is the hash of its resolved config, so the same study always has the same keys.
Runs with one `pack_key` may train together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

from trimtab.config import Resolution, RunConfig, Seeds, resolve
from trimtab.errors import ConfigError
from trimtab.storage import SCHEMA_VERSION
from trimtab.studies.definition import ARM, STREAMS, StudyConfig

Stage = Literal["grid", "trial", "final"]
"""`grid`: a run of the axes. `trial`: of a search, on its own seeds. `final`: of the setting that the search chose."""

TRIAL_SEEDS = 10_000
"""Where the seeds of trials begin."""


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be.

    Attributes:
        key: ten hexadecimal digits over the resolved config.
        cell: axis -> value, the compared axes and the tuned ones.
        seeds: stream -> seed.
        dropped: options that a changed `kind` made meaningless.
    """

    key: str
    stage: Stage
    cell: Mapping[str, Any]
    seeds: Mapping[str, int]
    config: RunConfig
    dropped: tuple[str, ...] = ()

    @cached_property
    def pack_key(self) -> str:
        """Equal for runs that may train together."""
        return self.config.pack_key

    def as_json(self) -> dict[str, Any]:
        """What the plan's file says of it; the config follows from study and cell."""
        return {
            "key": self.key,
            "stage": self.stage,
            "cell": dict(self.cell),
            "seeds": dict(self.seeds),
            "pack_key": self.pack_key,
        }


def grid_runs(study: StudyConfig) -> tuple[PlannedRun, ...]:
    """All runs of a study without a search: lines outside, settings in them, seeds inside.

    Raises:
        ConfigError: an axis names what no recipe has, a value does not fit, or two runs would be the same.
    """
    seeds = planned_seeds(study)
    return _distinct(planned(study, "grid", c, s) for c in _cells(study, study.compared + study.tuned) for s in seeds)


def lines(study: StudyConfig) -> list[dict[str, Any]]:
    """The combinations of the compared axes."""
    return _cells(study, study.compared)


def _cells(study: StudyConfig, axes: Sequence[str]) -> list[dict[str, Any]]:
    """The combinations of some axes, the last one innermost."""
    return [dict(zip(axes, values, strict=True)) for values in product(*(study.grid[a] for a in axes))]


def trial_runs(study: StudyConfig, line: Mapping[str, Any], setting: Mapping[str, Any]) -> tuple[PlannedRun, ...]:
    """The runs of one trial of a search; their seeds are none of the study's."""
    assert study.search is not None
    seeds = [dict.fromkeys(STREAMS, TRIAL_SEEDS + i) for i in range(study.search.seeds)]
    return _distinct(planned(study, "trial", {**line, **setting}, s) for s in seeds)


def final_runs(study: StudyConfig, line: Mapping[str, Any], setting: Mapping[str, Any]) -> tuple[PlannedRun, ...]:
    """The runs of the setting that a search has chosen for a line, on the seeds of the study."""
    return _distinct(planned(study, "final", {**line, **setting}, s) for s in planned_seeds(study))


def planned_seeds(study: StudyConfig) -> list[dict[str, int]]:
    """The seeds of every setting that is reported."""
    return study.seed_sets(base_seeds(study))


def base_seeds(study: StudyConfig) -> Seeds:
    """The seeds of the recipe, for streams that a study does not cross."""
    first = {a: study.grid[a][0] for a in study.compared}
    return _resolved(study, first, {}).config.seeds


def planned(study: StudyConfig, stage: Stage, cell: Mapping[str, Any], seeds: Mapping[str, int]) -> PlannedRun:
    """One run with its config resolved."""
    resolution = _resolved(study, cell, {"seeds": dict(seeds)})
    key = resolution.config.digest(str(SCHEMA_VERSION))
    return PlannedRun(key, stage, dict(cell), dict(seeds), resolution.config, resolution.dropped)


def _resolved(study: StudyConfig, cell: Mapping[str, Any], more: Mapping[str, Any]) -> Resolution:
    """The recipe with a cell's values; what is wrong with it names the cell."""
    try:
        return resolve(study.recipe, {**_overrides(study, cell), **more})
    except ConfigError as error:
        at = show_cell(cell)
        raise ConfigError(error.what, where=f"{error.where} ({at})" if at else error.where, fix=error.fix) from None


def plan_digest(study: StudyConfig, runs: Sequence[PlannedRun]) -> str:
    """Of everything in a study that decides its outcome; packs, names and verdicts do not."""
    facts: list[Any] = [study.compared, study.tuned, [run.key for run in runs]]
    if study.search is not None:
        own = set() if study.search.spaces else {"spaces"}  # so that digests are what they were before there were any
        facts += [study.search.model_dump(exclude=own), study.recipe, lines(study), planned_seeds(study)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:10]


def show_value(value: Any) -> str:
    """A value of an axis for people; a component that has a name, such as a task, goes by it.

    >>> show_value(0.001), show_value({"kind": "residual", "length": 10}), show_value(True), show_value([1, 2])
    ('0.001', 'residual (length 10)', 'true', '[1, 2]')
    >>> show_value({"kind": "tagged", "name": "news", "train": "news/train.conll"})
    'news'
    """
    if isinstance(value, Mapping):
        if value.get("name"):
            return str(value["name"])
        rest = [f"{k} {show_value(v)}" for k, v in value.items() if k != "kind"]
        kind = str(value.get("kind", ""))
        return f"{kind} ({', '.join(rest)})".strip() if rest else kind
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, bool | list) or value is None else str(value)


def show_cell(cell: Mapping[str, Any]) -> str:
    """A cell for people.

    >>> show_cell({"prompt.kind": "deep", "training.learning_rate": 0.01})
    'prompt.kind=deep, training.learning_rate=0.01'
    """
    return ", ".join(f"{key}={show_value(value)}" for key, value in cell.items())


def _overrides(study: StudyConfig, cell: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the recipe that a cell sets. An axis wins over the same key in an arm."""
    arm = study.arms[cell[ARM]] if ARM in cell and study.arms else {}
    return {**arm, **{k: v for k, v in cell.items() if not (k == ARM and study.arms)}}


def _distinct(runs: Iterable[PlannedRun]) -> tuple[PlannedRun, ...]:
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        if (twin := seen.get(run.key)) is not None:
            its, others = show_cell(twin.cell), show_cell(run.cell)
            raise ConfigError(
                f"two runs of the plan are the same: {its} and {others}.", where="axes", fix="Leave one of them out."
            )
        seen[run.key] = run
    return tuple(seen.values())
