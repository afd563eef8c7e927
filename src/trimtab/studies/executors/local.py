"""This machine: one process, or one for every GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from queue import SimpleQueue
from types import TracebackType
from typing import final

import torch

from trimtab.errors import ConfigError
from trimtab.studies.work import Events, Fit, Job, Outcome, fit, train


@final
class Local:
    """Trains pack after pack in this process; of several GPUs, each has a process of its own that trains its packs.

    Args:
        device: `auto`, `cpu` or `cuda`; with `auto` and `cuda`, all GPUs there are.
        workers: processes; by default one per GPU. Several on one device share its memory and its cores.
        report: receives events of the loop, if a single process trains.

    Raises:
        ConfigError: fewer than one worker.
    """

    def __init__(self, device: str = "auto", workers: int | None = None, report: Events | None = None) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"there must be at least one worker, got {workers}.", where="--workers")
        gpus = torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0
        names = [f"cuda:{i}" for i in range(gpus)] if gpus > 1 or (gpus and workers) else [device]
        self.devices = [names[i % len(names)] for i in range(workers or len(names))]
        self.report = report
        self._pool: ProcessPoolExecutor | None = None

    @property
    def slots(self) -> int:
        return len(self.devices)

    def __enter__(self) -> Local:
        if self.slots > 1:
            self._pool = ProcessPoolExecutor(self.slots, mp_context=get_context("spawn"))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            if kind is not None:  # nobody waits for what is under way
                for process in self._pool._processes.values():
                    process.terminate()
            self._pool.shutdown(cancel_futures=True)

    def fit(self, job: Job, limit: int | None) -> Fit:
        job = replace(job, device=self.devices[0])
        return fit(job, limit) if self._pool is None else self._pool.submit(fit, job, limit).result()

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Outcome]]]:
        if self._pool is None:
            for i, job in enumerate(jobs):
                yield i, train(replace(job, device=self.devices[0]), self.report)
            return
        free: SimpleQueue[str] = SimpleQueue()
        for device in self.devices:
            free.put(device)
        waiting, running = list(enumerate(jobs)), dict[Future[list[Outcome]], tuple[int, str]]()
        while waiting or running:
            while waiting and not free.empty():
                i, job = waiting.pop(0)
                device = free.get()
                running[self._pool.submit(train, replace(job, device=device))] = i, device
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                i, device = running.pop(future)
                free.put(device)
                yield i, future.result()
