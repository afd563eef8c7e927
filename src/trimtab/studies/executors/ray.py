"""A Ray cluster (extra `ray`): every pack is a task that asks for its CPUs and its GPU.

Run folders lie on storage that all machines share. A task whose machine is lost is given to another one, which goes on
from the pack's last checkpoint; outcomes come back to the one process that holds the study's folder.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, final

from trimtab.errors import ConfigError, StorageError
from trimtab.studies.work import Fit, Job, Outcome, fit, train

RETRIES = 5
"""How often a task is given to another machine."""

PATIENCE = 10.0
"""Seconds to wait for an address to answer."""


@final
class Ray:
    """Trains packs as tasks of a Ray cluster.

    Args:
        address: `host:port` of the cluster's head, `auto` for one that is running here, None to start one of this
            machine alone.
        cpus: that a pack asks for.
        gpus: likewise; by default one, if the cluster has any.
        retries: how often a pack is tried again when its machine is lost.

    Raises:
        ConfigError: Ray is not installed, or nothing answers at the address.
    """

    def __init__(
        self, address: str | None = None, cpus: float = 1.0, gpus: float | None = None, retries: int = RETRIES
    ) -> None:
        try:
            import ray
        except ImportError:
            fix = "Install it: pip install 'trimtab[ray]'."
            raise ConfigError("Ray is not installed.", where="--on ray", fix=fix) from None
        self._ray: Any = ray
        self.address, self.cpus, self.gpus, self.retries = address, cpus, gpus, retries
        self._is_mine = False
        self.slots = 1

    def __enter__(self) -> Ray:
        if not self._ray.is_initialized():
            _check_reachable(self.address)
            # uploading the working directory would copy models and data: paths are on shared storage
            os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
            try:
                self._ray.init(address=self.address, log_to_driver=False, configure_logging=False)
            except Exception as error:
                raise ConfigError(
                    f"no Ray cluster answers ({str(error).splitlines()[0]}).",
                    where=f"--address {self.address}",
                    fix="Start one with `ray start --head`, or leave --address out for this machine alone.",
                ) from None
            self._is_mine = True
        there = self._ray.cluster_resources()
        if self.gpus is None:
            self.gpus = 1.0 if there.get("GPU") else 0.0
        if self.cpus > there.get("CPU", 0) or self.gpus > there.get("GPU", 0):
            raise ConfigError(
                f"a pack asks for {self.cpus:g} CPUs and {self.gpus:g} GPUs, and the whole cluster has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}: it would wait for ever.",
                where="--on ray",
                fix="Lower pack.cpus or pack.gpus.",
            )
        shares = [there.get(name, 0) // asked for name, asked in (("CPU", self.cpus), ("GPU", self.gpus)) if asked]
        self.slots = int(min(shares, default=1))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._is_mine:
            self._ray.shutdown()

    def fit(self, job: Job, limit: int | None) -> Fit:
        found: Fit = self._get(self._task(fit).remote(job, limit))
        return found

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Outcome]]]:
        task = self._task(train)
        running = {task.remote(job): i for i, job in enumerate(jobs)}
        while running:
            done, _ = self._ray.wait(list(running))
            for reference in done:
                yield running.pop(reference), self._get(reference)

    def _task(self, function: Any) -> Any:
        """A function as a task with its resources; tried again if its machine is lost, not if it raises."""
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": self.retries, "retry_exceptions": False}
        return self._ray.remote(**options)(function)

    def _get(self, reference: Any) -> Any:
        """A task's result; what it raised is raised here as itself."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from None
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
            raise StorageError(
                f"the machine of a pack was lost {self.retries + 1} times ({type(error).__name__}).",
                where="--on ray",
                fix="Look at the cluster, then start the study again: it goes on where it stopped.",
            ) from None


def _check_reachable(address: str | None) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    if address is None or address in ("auto", "local") or "://" in address:
        return
    host, _, port = address.rpartition(":")
    fix = "Give the address that `ray start --head` has printed, such as 10.0.0.5:6379."
    if not host or not port.isdigit():
        raise ConfigError(f"an address is written host:port, got {address!r}.", where="--address", fix=fix)
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        what = f"nothing answers at {address} ({error.strerror or error})."
        raise ConfigError(what, where="--address", fix=fix) from None
