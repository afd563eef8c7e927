"""Search on the dev split with Optuna (extra `search`): ask for a batch, train it, tell what came out.

The sampler is seeded and is told the same in the same order, so a study that was killed asks for the same trials again
and finds them finished: nothing of Optuna's needs to be stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from trimtab.errors import ConfigError
from trimtab.studies.definition import Range, StudyConfig
from trimtab.studies.folder import StudyRun
from trimtab.studies.plan import PlannedRun, trial_runs

Score = tuple[float, float]
"""Mean dev score and minus the mean dev loss: larger is better, ties go to the lower loss."""


@dataclass(frozen=True)
class Trial:
    """A setting that is tried: its number, its values and its runs."""

    number: int
    setting: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]


class Searcher:
    """The search for one line of a report.

    Args:
        line: the values of the compared axes.

    Raises:
        ConfigError: Optuna is not installed.
    """

    def __init__(self, study: StudyConfig, line: Mapping[str, Any]) -> None:
        assert study.search is not None
        try:
            import optuna
        except ImportError:
            fix = "Install it: pip install 'trimtab[search]'."
            raise ConfigError("a search needs Optuna, which is not installed.", where="search", fix=fix) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study, self.search, self.line = study, study.search, dict(line)
        self.space = study.search.space_of(line)
        samplers = {"tpe": optuna.samplers.TPESampler}  # a grid is asked for by hand, so its sampler has no say
        options = {"constant_liar": True} if self.search.sampler == "tpe" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = samplers.get(self.search.sampler, optuna.samplers.RandomSampler)(seed=self.search.seed, **options)
        self._optuna = optuna.create_study(direction="maximize", sampler=sampler)
        self._distributions = {key: _distribution(optuna, values) for key, values in self.space.items()}
        for setting in self.search.settings(self.space) if self.search.sampler == "grid" else ():
            self._optuna.enqueue_trial(setting)
        self._asked: dict[int, Any] = {}
        self.scores: dict[int, tuple[Score, Mapping[str, Any]]] = {}

    @property
    def left(self) -> int:
        """Trials that have not been asked for."""
        return self.search.count(self.space) - len(self._asked)

    def check(self) -> None:
        """Resolve the corners of the space.

        Raises:
            ConfigError: a key that no recipe has, or a value that does not fit.
        """
        for pick in (0, -1):
            trial_runs(self.study, self.line, {k: _ends(values)[pick] for k, values in self.space.items()})

    def ask(self) -> list[Trial]:
        """The next batch; fewer at the end."""
        trials = []
        for _ in range(min(self.search.batch, self.left)):
            asked = self._optuna.ask(self._distributions)
            setting = {key: _value(values, asked.params[key]) for key, values in self.space.items()}
            self._asked[asked.number] = asked
            trials.append(Trial(asked.number, setting, trial_runs(self.study, self.line, setting)))
        return trials

    def tell(self, trial: Trial, score: Score) -> None:
        """What a trial has come to."""
        self._optuna.tell(self._asked[trial.number], score[0])
        self.scores[trial.number] = score, trial.setting

    @property
    def best(self) -> Mapping[str, Any]:
        """The setting with the best score; of equals the first. Empty where there is nothing to tune."""
        if not self.space:
            return {}
        return max(self.scores.items(), key=lambda item: (*item[1][0], -item[0]))[1][1]


def score_of(runs: Sequence[StudyRun]) -> Score:
    """Mean dev score of a setting over its seeds. A run without one counts with the constant answer's score of the
    others, or 0."""
    scored = [r.record for r in runs if r.record.get("metrics")]
    floors = [r["baselines"]["majority"] for r in scored if r["baselines"]["majority"] is not None]
    scores = [r["metrics"]["dev"][r["metric"]] for r in scored]
    scores += [mean(floors) if floors else 0.0] * (len(runs) - len(scored))
    losses = [r["metrics"]["dev"]["loss"] for r in scored]
    return mean(scores), -mean(losses) if losses else float("-inf")


def _distribution(optuna: Any, values: Range | Sequence[Any]) -> Any:
    kinds = optuna.distributions
    if not isinstance(values, Range):
        return kinds.CategoricalDistribution(list(range(len(values))))
    if _is_whole(values):
        return kinds.IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return kinds.FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _is_whole(values: Range) -> bool:
    """Whether a range is of whole numbers: its ends and its step are, and it has a step."""
    return values.step is not None and all(float(n).is_integer() for n in (values.low, values.high, values.step))


def _value(values: Range | Sequence[Any], drawn: Any) -> Any:
    """A drawn number, to six digits; or the value at a drawn position."""
    if not isinstance(values, Range):
        return values[drawn]
    return drawn if isinstance(drawn, int) else float(f"{drawn:.6g}")


def _ends(values: Range | Sequence[Any]) -> list[Any]:
    if not isinstance(values, Range):
        return list(values)
    return [int(n) if _is_whole(values) else n for n in (values.low, values.high)]
