"""A study from its plan to its last run: what is missing is packed, trained, and entered into the ledger.

The process that drives a study holds its folder and alone writes plan, packs and ledger. Who trains together is written
down before it starts, so a study that was killed continues with the same packs, and its end is the end that it would
have had.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError
from trimtab.files import hold, sha256_of, sweep
from trimtab.registry import tasks
from trimtab.studies.definition import PackLimits, StudyConfig
from trimtab.studies.executors import Executor
from trimtab.studies.folder import StudyFolder
from trimtab.studies.plan import PlannedRun, final_runs, grid_runs, lines, plan_digest, planned_seeds, show_value
from trimtab.studies.search import Searcher, score_of
from trimtab.studies.work import Events, Fit, Job
from trimtab.tasks.reading import Places, resolve_path


@dataclass(frozen=True)
class Course:
    """How a study is carried out; nothing of it changes a result.

    Attributes:
        data_dir: where `data:` paths start.
        device: `auto`, `cpu` or `cuda`.
        retry: train failed runs again.
        trackers: that follow the runs, resolved.
    """

    data_dir: str | None = None
    device: str = "auto"
    retry: bool = False
    trackers: tuple[Mapping[str, Any], ...] = ()


class Driver:
    """Carries out one study in its folder, on an executor that has been entered.

    Args:
        events: receives what happens: the loop's events with a `key`, and `plan`, `adopted`, `pack`, `run`, `halved`,
            `note`.
    """

    def __init__(
        self,
        study: StudyConfig,
        folder: StudyFolder,
        executor: Executor,
        course: Course = Course(),
        events: Events = lambda event: None,
    ) -> None:
        self.study, self.folder, self.executor, self.course, self.events = study, folder, executor, course, events
        self.base = str(Path.cwd())

    def run(self, *, extend: bool = False, results: Path | None = None) -> None:
        """Train every run of the study that has not ended.

        Args:
            extend: as of `StudyFolder.begin` and `StudyFolder.adopt`.
            results: a file of runs that have ended elsewhere.

        Raises:
            ConfigError: the folder or the file holds another plan, or a run cannot be prepared.
            BundleError: a run folder was changed by hand, or the file is damaged.
            DataError: the data has changed since the study began.
            StorageError: the disk is full, or another process drives this study. What has ended is kept.
        """
        runs = planned_runs(self.study)
        with hold([self.folder.path], "running this study", "--name"):
            sweep(self.folder.path)
            definition = self.study.model_dump(mode="json", exclude_none=True)
            plan = {
                **plan_of(self.study, runs, self.folder.path.name),
                "sources": self._sources(runs or self._first_trials()),
            }
            self.folder.begin(definition, plan, extend=extend)
            if results is not None:
                self.events({"event": "adopted", "runs": self.folder.adopt(results, extend=extend)})
            if self.study.search is None:
                self.complete(runs)
            else:
                self._search()

    def complete(self, runs: Sequence[PlannedRun]) -> None:
        """Train those of some runs that have not ended: packs that were begun first, then new ones."""
        self.folder.place({run.key: run.cell for run in runs})
        todo = self._todo(runs)
        cells = {key: dict(run.cell) for key, run in todo.items()}
        self.events({"event": "plan", "runs": len(runs), "ended": len(runs) - len(todo), "todo": cells})
        if not todo:
            return
        adopted = self.folder.adopted()  # of these, one that trains again with its pack has a folder here from then on
        packs = self._begun(runs, todo)
        begun = {run.key for _, pack in packs for run in pack}
        for pack in self.packed([run for key, run in todo.items() if key not in begun]):
            packs.append((self.folder.begin_pack([run.key for run in pack]), pack))
        self.events({"event": "pack", "packs": len(packs), "most": max(len(pack) for _, pack in packs)})
        for at, outcomes in self.executor.train([self.job(pack) for _, pack in packs]):
            number, pack = packs[at]
            for run, outcome in zip(pack, outcomes, strict=True):
                if run.key in todo or run.key in adopted:
                    entry = {**run.as_json(), **asdict(outcome), "pack": number}
                    self.folder.enter({k: v for k, v in entry.items() if k not in ("pack_key", "notes")})
                    for text in outcome.notes:
                        self.events({"event": "note", "key": run.key, "text": text})
                    self.events({"event": "run", "key": run.key, "status": outcome.status, "error": outcome.error,
                                 "folder": outcome.run})  # fmt: skip

    def plan(self, name: str) -> dict[str, Any]:
        """What the study would do; fits are tried and kept in the folder."""
        runs = planned_runs(self.study) or self._first_trials()
        facts = plan_of(self.study, runs, name)
        groups = []
        for group in grouped(runs):
            fit = self.fit(group)
            parts = -(-len(group) // fit.size)
            settings = {tuple(sorted((k, show_value(v)) for k, v in run.cell.items())): run.cell for run in group}
            groups.append({
                "cells": [dict(cell) for cell in settings.values()],
                "runs": len(group),
                "pack": -(-len(group) // parts),
                "packs": parts,
                "bytes": fit.bytes,
                "limit": fit.limit,
                "seconds": fit.seconds * len(group) / fit.size,
            })  # fmt: skip
        return {k: facts[k] for k in ("name", "digest", "lines", "expected")} | {
            "groups": groups,
            "slots": self.executor.slots,
        }

    def _first_trials(self) -> list[PlannedRun]:
        searchers = [Searcher(self.study, line) for line in lines(self.study)]
        return [run for s in searchers for trial in s.ask() for run in trial.runs]

    def packed(self, runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
        """Divide runs into packs: those of one pack key together, as many as fit, in equal parts.

        It does not depend on the executor, so that every executor makes the same runs, to the last bit.
        """
        packs: list[list[PlannedRun]] = []
        for group in grouped(runs):
            parts = -(-len(group) // self.fit(group).size)
            bounds = [round(i * len(group) / parts) for i in range(parts + 1)]
            packs += [group[a:b] for a, b in pairwise(bounds)]
        return packs

    def fit(self, group: Sequence[PlannedRun]) -> Fit:
        """How many runs of a group fit; tried once and kept."""
        key = group[0].pack_key
        wanted = min(len(group), self.study.pack.most)
        kept = self.folder.fits().get(key)
        if kept is not None and kept["tried"] >= wanted:
            return Fit(min(kept["size"], wanted), kept["bytes"], kept["seconds"], kept["limit"])
        self.events({"event": "fit", "runs": wanted, "cell": dict(group[0].cell)})
        found = self.executor.fit(self.job(group[:wanted]), self.study.pack.bytes)
        self.folder.keep_fit(key, {**asdict(found), "tried": wanted})
        return found

    def job(self, runs: Sequence[PlannedRun]) -> Job:
        """Runs as plain data for a worker."""
        return Job(
            keys=tuple(run.key for run in runs),
            configs=tuple(run.config.as_dict() for run in runs),
            base=self.base,
            runs_dir=str(self.folder.runs_dir.absolute()),
            data_dir=None if self.course.data_dir is None else str(Path(self.course.data_dir).absolute()),
            device=self.course.device,
            study=self.folder.path.name,
            trackers=self.course.trackers,
        )

    def _sources(self, runs: Sequence[PlannedRun]) -> dict[str, str]:
        """Path as it is given -> SHA-256 of every file of data that the runs read."""
        places = Places(None if self.course.data_dir is None else Path(self.course.data_dir))
        specs = {json.dumps(run.config.task, sort_keys=True): run.config.task for run in runs}
        given = sorted({path for spec in specs.values() for path in tasks.build(spec).files.values()})
        found = {path: resolve_path(path, places) for path in given}
        return {p: sha256_of(at) for p, at in found.items() if at.is_file()}

    def _todo(self, runs: Sequence[PlannedRun]) -> dict[str, PlannedRun]:
        ended = self.folder.ended()
        done = {k for k, line in ended.items() if not (self.course.retry and line["status"] == "failed")}
        return {run.key: run for run in runs if run.key not in done}

    def _begun(self, runs: Sequence[PlannedRun], todo: Mapping[str, PlannedRun]) -> list[tuple[int, list[PlannedRun]]]:
        """The packs that were begun and have runs that have not ended: the same runs in the same order."""
        known = {run.key: run for run in runs}
        statuses = {k: line["status"] for k, line in self.folder.ledger().items()}
        packs: dict[str, tuple[int, list[PlannedRun]]] = {}
        for pack in self.folder.packs():
            mates = [k for k in pack["keys"] if k in known and (k in todo or statuses.get(k) == "done")]
            for key in mates:
                if key in todo:  # the last pack that a run was put into counts
                    packs[key] = pack["number"], [known[k] for k in mates]
        return list({number: (number, mates) for number, mates in packs.values()}.values())

    def _search(self) -> None:
        """Ask and tell in batches, the lines side by side; then the chosen setting of every line on fresh seeds."""
        assert self.study.search is not None
        searchers = [Searcher(self.study, line) for line in lines(self.study)]
        while any(s.left for s in searchers):
            asked = [(s, trial) for s in searchers for trial in s.ask()]
            self.complete([run for _, trial in asked for run in trial.runs])
            found = {run.key: run for run in self.folder.read()}
            for searcher, trial in asked:
                searcher.tell(trial, score_of([found[run.key] for run in trial.runs]))
        self.complete([run for s in searchers for run in final_runs(self.study, s.line, s.best)])


def planned_runs(study: StudyConfig) -> tuple[PlannedRun, ...]:
    """The runs that a plan can name beforehand: all of them, or with a search those of the first setting, checked and
    left out."""
    if study.search is None:
        return grid_runs(study)
    for line in lines(study):
        Searcher(study, line).check()
    return ()


def plan_of(study: StudyConfig, runs: Sequence[PlannedRun], name: str) -> dict[str, Any]:
    """The content of plan.json, its schema version and the hashes of the data aside."""
    expected: dict[str, int] = {"grid": len(runs)}
    if study.search is not None:
        seeds = len(planned_seeds(study))
        tried = sum(study.search.count(study.search.space_of(line)) for line in lines(study))
        expected = {"trial": tried * study.search.seeds, "final": seeds * len(lines(study))}
    return {
        "name": name,
        "digest": plan_digest(study, runs),
        "searched": study.search is not None,
        "compared": list(study.compared),
        "tuned": list(study.tuned),
        "factors": list(study.factors),
        "lines": lines(study),
        "expected": expected,
        "runs": [run.as_json() for run in runs],
    }


def grouped(runs: Iterable[PlannedRun]) -> list[list[PlannedRun]]:
    """Runs that may train together, in the order of the first of each group."""
    order: dict[str, int] = {}
    ranked = sorted(runs, key=lambda run: order.setdefault(run.pack_key, len(order)))
    return [list(group) for _, group in groupby(ranked, key=lambda run: run.pack_key)]


def executor_of(kind: str, course: Course, events: Events, **options: Any) -> Executor:
    """The executor by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    from trimtab.studies.executors.local import Local
    from trimtab.studies.executors.ray import Ray

    if kind == "local":
        return Local(course.device, options.get("workers"), events)
    if kind == "ray":
        limits: PackLimits = options["limits"]
        return Ray(options.get("address"), limits.cpus, limits.gpus)
    raise ConfigError(f"there is no executor {kind!r}.", where="--on", fix="Use local or ray.")
