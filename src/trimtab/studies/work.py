"""What a worker does for a study, in whatever process or machine: try how many runs fit, train a pack.

A job is plain data, so it can travel; what it leaves are run folders and outcomes. A pack that runs out of memory, or
that one of its runs brings down, is trained again by halves: only a run that fails alone has failed.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trimtab.config import BackboneConfig, RunConfig
from trimtab.errors import BusyError, StorageError, TrimtabError
from trimtab.registry import validated
from trimtab.storage import RunFolder
from trimtab.tasks.reading import Places
from trimtab.training.memory import free_memory, is_out_of_memory
from trimtab.training.packs import rehearse
from trimtab.training.preparing import Prepared, Preparer, open_backbone
from trimtab.training.runs import run_pack

SHARES = {"cuda": 0.8, "cpu": 0.5}
"""Of the free memory, that a pack may take where no limit is given."""

PATIENCE = 60.0
"""Seconds to wait for run folders that another process holds."""

Events = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """A pack to be trained.

    Attributes:
        keys: of the runs.
        configs: their resolved configs, as plain data.
        base: where relative paths start, absolute.
        runs_dir: where run folders go; for workers on other machines on storage that all of them share.
        data_dir: where `data:` paths start.
        device: `auto`, `cpu` or `cuda`.
        study: name of the study, for trackers.
        trackers: that follow the runs, resolved.
    """

    keys: tuple[str, ...]
    configs: tuple[Mapping[str, Any], ...]
    base: str
    runs_dir: str
    data_dir: str | None
    device: str
    study: str | None = None
    trackers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a run has ended: `done`, `diverged` or `failed`, its folder's name, and what went wrong.

    `notes` are those of its trackers that nobody has received as events.
    """

    key: str
    status: str
    run: str | None
    error: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """How many runs of a job fit into memory at once, and what they take.

    Attributes:
        size: runs in a pack.
        bytes: at the peak, above what was taken before; None where the system does not tell.
        seconds: for a pack of this size. A guess from a few steps.
        limit: bytes that were allowed; None where the system does not tell.
    """

    size: int
    bytes: int | None
    seconds: float
    limit: int | None


def fit(job: Job, limit: int | None) -> Fit:
    """Find out by trying how many of a job's runs may train together.

    Args:
        limit: bytes that a pack may take; None for a share of what is free.

    Raises:
        TrimtabError: a run cannot be prepared, so the study would be in vain.
    """
    with chdir(job.base):
        bench = _bench(job)
        pack = [bench.prepare(_config(c)) for c in job.configs]
    if limit is None:
        free = free_memory(bench.backbone.device)
        limit = None if free is None else int(free * SHARES[bench.backbone.device.type])
    size = len(pack)
    while True:
        try:
            found = rehearse(pack[:size])
        except Exception as error:
            if not is_out_of_memory(error) or size == 1:
                raise
        else:
            if size == 1 or limit is None or found.bytes is None or found.bytes <= limit:
                return Fit(size, found.bytes, found.seconds, limit)
        _let_go()
        size = (size + 1) // 2


def train(job: Job, report: Events | None = None) -> list[Outcome]:
    """Train what is not finished of a pack; one outcome per run, in the order of the job.

    Args:
        report: receives the events of the loop, with the `key` of the run.

    Raises:
        StorageError: the disk is full or a folder is in use; what is finished is kept.
    """
    outcomes: dict[str, Outcome] = {}
    ready: list[tuple[str, Prepared]] = []
    with chdir(job.base):
        for key, config in zip(job.keys, job.configs, strict=True):
            try:
                ready.append((key, _bench(job).prepare(_config(config))))
            except StorageError:
                raise
            except Exception as error:
                outcomes[key] = _failed(key, error)
        for outcome in _train(job, ready, report) if ready else ():
            outcomes[outcome.key] = outcome
    return [outcomes[key] for key in job.keys]


def _train(job: Job, pack: Sequence[tuple[str, Prepared]], report: Events | None) -> list[Outcome]:
    """Train a pack, or its halves."""
    keys, runs_dir, notes = [key for key, _ in pack], Path(job.runs_dir), list[tuple[int, str]]()

    def told(event: Mapping[str, Any]) -> None:
        if report is not None:
            report({**event, "key": keys[event["run"]]})
        elif event["event"] == "note":
            notes.append((event["run"], event["text"]))

    try:
        records = _run_pack(job, [p for _, p in pack], told)
    except StorageError:
        raise
    except Exception as error:
        if len(pack) == 1:
            return [_failed(keys[0], error, runs_dir / pack[0][1].id)]
        cause = error.with_traceback(None)  # lets go of the tensors in its frames
    else:
        said = [tuple(text for r, text in notes if r == i) for i in range(len(pack))]
        ends = zip(keys, records, said, strict=True)
        return [Outcome(k, r["status"], Path(r["run"]).name, notes=its) for k, r, its in ends]
    if report is not None:
        report({"event": "halved", "runs": len(pack), "because": f"{type(cause).__name__}: {cause}"})
    _let_go()
    middle = (len(pack) + 1) // 2
    return _train(job, pack[:middle], report) + _train(job, pack[middle:], report)


def _run_pack(job: Job, pack: Sequence[Prepared], report: Events) -> list[dict[str, Any]]:
    """Train a pack; where its folders are held, by a worker that was lost and has not died yet, wait for them."""
    begun = time.monotonic()
    while True:
        try:
            return run_pack(pack, Path(job.runs_dir), report=report, track=job.trackers, group=job.study)
        except BusyError:
            if time.monotonic() - begun > PATIENCE:
                raise
        time.sleep(1)


def _failed(key: str, error: Exception, folder: Path | None = None) -> Outcome:
    """Keep a failed run with its error; its folder, if it was begun, says so too."""
    trace = "" if isinstance(error, TrimtabError) else "".join(traceback.format_exception(error))
    what = {"type": type(error).__name__, "message": str(error), "traceback": trace}
    if folder is None or not (folder / "run.json").exists():
        return Outcome(key, "failed", None, what)
    run = RunFolder(folder)
    run.clear()
    run.finish({**run.record, "error": what}, "failed")
    return Outcome(key, "failed", folder.name, what)


def _bench(job: Job) -> Preparer:
    """The backbone of a job, with what was prepared on it; a process keeps the last."""
    section = _config(job.configs[0]).backbone
    return _opened(section.model_dump_json(), job.device, job.data_dir)


@lru_cache(maxsize=1)
def _opened(section: str, device: str, data_dir: str | None) -> Preparer:
    backbone = open_backbone(BackboneConfig.model_validate_json(section), device)
    return Preparer(backbone, Places(Path(data_dir) if data_dir else None))


def _config(raw: Mapping[str, Any]) -> RunConfig:
    return validated(RunConfig, raw, "")


def _let_go() -> None:
    """Give memory back that failed work has held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
