"""Where the packs of a study are trained. The same study gives the same runs on either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, runtime_checkable

from trimtab.studies.work import Fit, Job, Outcome


@runtime_checkable
class Executor(Protocol):
    """Trains jobs. Entered before use; leaving it ends what it has started."""

    def __enter__(self) -> Executor: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None: ...

    @property
    def slots(self) -> int:
        """How many packs are trained at once."""
        ...

    def fit(self, job: Job, limit: int | None) -> Fit:
        """Find out how many of a job's runs fit into memory; see `trimtab.studies.work.fit`."""
        ...

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Outcome]]]:
        """Train jobs, in any order; yields the position of each that has ended, and its outcomes.

        Raises:
            StorageError: no run can be written any more. Jobs that have ended were yielded before.
        """
        ...
