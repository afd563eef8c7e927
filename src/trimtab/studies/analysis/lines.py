"""Runs of a study as the report sees them: lines (what is compared), settings (what is tuned), a score for every run.

No run is dropped. One without a result counts as the constant answer, and as collapsed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from trimtab.config import Seeds
from trimtab.studies.definition import STREAMS, StudyConfig
from trimtab.studies.folder import StudyRun
from trimtab.studies.plan import lines as line_cells
from trimtab.studies.plan import show_value

TASK_AXES = ("task", "task.kind", "task.relation")
"""Axes whose values are tasks: scores of different tasks are not compared with each other, but averaged over tasks."""

RULE = (
    "For each line, the setting is the one with the best mean dev score over seeds; of equal ones that with the lower "
    "mean dev loss, then the first. Settings whose runs have not all ended yield to those whose have."
)
RULE_SEARCH = (
    "For each line, a search on the dev split has chosen the setting, with as many trials for every line; its trials "
    "ran on other seeds and are counted only. What is reported are runs of the chosen setting on fresh seeds."
)
RULE_REST = (
    "The scores reported are those of the test split, which chooses nothing: not the setting, and not the checkpoint.",
    "A run that failed, or diverged before its first evaluation, counts as the constant answer (the majority baseline) "
    "in every mean and as collapsed; none is dropped. A run that diverged later counts with its last good checkpoint.",
    "A run has collapsed when its test score is at or under the majority baseline.",
)


@dataclass(frozen=True)
class Scored:
    """A run that has ended, with the scores that stand for it.

    Attributes:
        majority: test score of the constant answer; None where the task has none.
        imputed: the run has no result, so the constant answer stands for it.
        seed: its seeds in words, the same for the same seeds.
    """

    run: StudyRun
    seed: str
    dev: float
    test: float
    dev_loss: float | None
    majority: float | None
    imputed: bool

    @property
    def collapsed(self) -> bool:
        """No better than the constant answer."""
        return self.imputed or self.test <= (self.majority or 0.0) + 1e-9


@dataclass(frozen=True)
class Setting:
    """A combination of tuned axes within a line; `missing` runs have not ended."""

    cell: Mapping[str, Any]
    label: str
    runs: tuple[Scored, ...]
    missing: int

    @property
    def dev_mean(self) -> float | None:
        """Mean dev score over seeds."""
        return fmean(r.dev for r in self.runs) if self.runs else None

    @property
    def dev_loss(self) -> float:
        """Mean dev loss over the runs that have one; infinite where none has."""
        losses = [r.dev_loss for r in self.runs if r.dev_loss is not None]
        return fmean(losses) if losses else math.inf

    def tests(self) -> list[float]:
        """Test scores, in the order of seeds."""
        return [r.test for r in self.runs]

    def by_seed(self) -> dict[str, float]:
        """Seed -> test score."""
        return {r.seed: r.test for r in self.runs}


@dataclass(frozen=True)
class Line:
    """A line of the report.

    Attributes:
        cell: compared axis -> value.
        task: the value of the axis that spans tasks, in words; empty where none does.
        metric: that stands for its runs.
        settings: all that were tried on the seeds of the study.
        chosen: the one that is reported; None where no run has ended.
        trials: runs of a search.
    """

    cell: Mapping[str, Any]
    label: str
    task: str
    metric: str
    settings: tuple[Setting, ...]
    chosen: Setting | None
    trials: tuple[StudyRun, ...]

    @property
    def reported(self) -> tuple[Scored, ...]:
        """The runs of the chosen setting."""
        return self.chosen.runs if self.chosen else ()

    @property
    def all_runs(self) -> list[StudyRun]:
        """Every run that has ended, trials included."""
        return [r.run for s in self.settings for r in s.runs] + [t for t in self.trials if t.status != "missing"]


def build_lines(study: StudyConfig, runs: Sequence[StudyRun]) -> list[Line]:
    """The lines of a study in its order, with their settings and the scores of their runs."""
    score = _scorer(study, runs)
    cells = line_cells(study)
    labels = labels_of(cells, study.compared)
    expected = len(study.seed_sets(Seeds(**dict.fromkeys(STREAMS, 0))))
    found = []
    for cell, label in zip(cells, labels, strict=True):
        mine = [r for r in runs if same(part(r.cell, study.compared), cell)]
        reported = [r for r in mine if r.stage != "trial"]
        settings = _settings(study, reported, expected, score)
        metrics = [str(r.record["metric"]) for r in mine if r.record.get("metric")]
        found.append(
            Line(
                cell=cell,
                label=label,
                task=", ".join(show_value(cell[a]) for a in TASK_AXES if a in cell),
                metric=metrics[0] if metrics else "",
                settings=settings,
                chosen=choose(settings),
                trials=tuple(r for r in mine if r.stage == "trial"),
            )
        )
    return found


def _settings(
    study: StudyConfig, runs: Sequence[StudyRun], expected: int, score: Callable[[StudyRun], Scored]
) -> tuple[Setting, ...]:
    groups: dict[str, list[StudyRun]] = {}
    for run in runs:
        groups.setdefault(fixed(part(run.cell, study.tuned)), []).append(run)
    cells = [part(its[0].cell, study.tuned) for its in groups.values()]
    settings = []
    for cell, its in zip(cells, groups.values(), strict=True):
        ended = tuple(score(r) for r in its if r.status != "missing")
        label = ", ".join(f"{short(a, study.tuned)} {show_value(v)}" for a, v in cell.items())
        settings.append(Setting(cell, label, ended, max(expected, len(its)) - len(ended)))
    return tuple(settings)


def choose(settings: Sequence[Setting]) -> Setting | None:
    """The setting that is reported, see `RULE`."""
    most = max((len(s.runs) for s in settings), default=0)
    ready = [s for s in settings if s.runs and len(s.runs) == most]
    return min(ready, key=lambda s: (-round(s.dev_mean or 0.0, 12), s.dev_loss), default=None)


def _scorer(study: StudyConfig, runs: Sequence[StudyRun]) -> Callable[[StudyRun], Scored]:
    """A function run -> Scored that knows the constant answer of runs without one."""
    constants: dict[str, list[float]] = {}
    for run in runs:
        if (its := _constant(run)) is not None:
            for place in _places(study, run):
                constants.setdefault(place, []).append(its)

    def score(run: StudyRun) -> Scored:
        seed = seed_label(run.seeds, study.factors)
        metrics, metric = run.record.get("metrics") or {}, run.record.get("metric")
        test, dev = (_number((metrics.get(split) or {}).get(metric)) for split in ("test", "dev"))
        among = next((constants[p] for p in _places(study, run) if p in constants), [])
        constant = _constant(run)
        constant = median(among) if constant is None and among else constant
        if test is None or dev is None:
            return Scored(run, seed, constant or 0.0, constant or 0.0, None, constant, imputed=True)
        return Scored(run, seed, dev, test, _number(metrics["dev"].get("loss")), constant, imputed=False)

    return score


def _constant(run: StudyRun) -> float | None:
    return _number((run.record.get("baselines") or {}).get("majority"))


def _places(study: StudyConfig, run: StudyRun) -> list[str]:
    """Where to look for the constant answer of a run without one: its line, its task, anywhere if all share a task."""
    tasks = [a for a in study.compared if a.split(".")[0] == "task"]
    return [fixed(part(run.cell, study.compared)), fixed(part(run.cell, tasks))]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def part(cell: Mapping[str, Any], axes: Sequence[str]) -> dict[str, Any]:
    """Some axes of a cell, in their order."""
    return {a: cell[a] for a in axes if a in cell}


def fixed(cell: Any) -> str:
    """A cell as text that is equal for equal values."""
    return json.dumps(cell, sort_keys=True, default=str)


def same(one: Any, other: Any) -> bool:
    """Whether two cells or values are the same."""
    return fixed(one) == fixed(other)


def short(axis: str, axes: Sequence[str]) -> str:
    """The last word of an axis where it tells it from the others; of a rate, whose it is.

    >>> short("training.learning_rate", ["training.learning_rate"]), short("a.length", ["a.length", "b.length"])
    ('learning rate', 'a.length')
    >>> short("training.learning_rates.backbone", ["training.learning_rates.backbone"])
    'backbone learning rate'
    """
    rest, _, last = axis.rpartition(".")
    if rest.endswith("learning_rates"):
        return f"{last} learning rate"
    return last.replace("_", " ") if sum(a.rpartition(".")[2] == last for a in axes) == 1 else axis


def labels_of(cells: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> list[str]:
    """Names of lines: values that speak for themselves alone, others with their axis; with all axes if that is not
    enough to tell them apart.

    >>> labels_of([{"prompt.kind": "residual", "prompt.length": 10}], ["prompt.kind", "prompt.length"])
    ['residual, length 10']
    """
    if not axes:
        return ["all runs"] * len(cells)
    brief = [", ".join(_said(a, v, axes) for a, v in cell.items()) for cell in cells]
    if len(set(brief)) == len(brief):
        return brief
    return [", ".join(f"{a} {json.dumps(v, sort_keys=True, default=str)}" for a, v in cell.items()) for cell in cells]


def _said(axis: str, value: Any, axes: Sequence[str]) -> str:
    text = show_value(value)
    speaks = isinstance(value, str | Mapping) and bool(text)
    return text if speaks else f"{short(axis, axes)} {text}"


def seed_label(seeds: Mapping[str, int], factors: Sequence[str] = ()) -> str:
    """Seeds in words: of the factors that are crossed, else one number where all streams share it.

    >>> seed_label({"init": 3, "noise": 3}), seed_label({"init": 0, "data_order": 1, "noise": 7}, ["data_order"])
    ('3', 'data order 1')
    """
    if not factors and len(set(seeds.values())) == 1:
        return str(next(iter(seeds.values())))
    return ", ".join(f"{s.replace('_', ' ')} {n}" for s, n in seeds.items() if not factors or s in factors)
