"""The trackers of a pack: the loop's events go to those of the run that they are about.

A tracker is begun with its run's first event, so that it knows from which step a killed run goes on. One that fails is
left out from then on, and a note says so once (see `trimtab.training.notes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from trimtab.registry import trackers
from trimtab.trackers import ALWAYS, TrackedRun, Tracker
from trimtab.training.loop import Report
from trimtab.training.notes import note


class Following:
    """A context manager that follows the runs of a pack; leaving it ends the trackers that are still open.

    Args:
        runs: by their number in the events. Events of other runs are passed over.
        specs: of trackers, resolved; `jsonl` is added to them.
        report: receives notes.
    """

    def __init__(self, runs: Mapping[int, TrackedRun], specs: Sequence[Mapping[str, Any]], report: Report) -> None:
        self._runs, self._specs, self._report = runs, [{"kind": ALWAYS}, *specs], report
        self._open: dict[int, dict[str, Tracker]] = {}
        self._ended: set[int] = set()
        self._lost: set[str] = set()  # kinds that could not be begun: not tried again for every run of the pack
        self._noted: set[str] = set()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for r in self._open.keys() - self._ended:
            self._end(r, "failed" if kind is None or issubclass(kind, Exception) else "stopped", {})

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Receive one event of the loop."""
        r = event["run"]
        if r not in self._runs:
            return
        if event["event"] == "continue":
            self._begun(r, event["step"])
        elif event["event"] == "evaluation":
            self._each(r, lambda tracker: tracker.log(event["step"], values_of(event)))

    def finished(self, r: int, record: Mapping[str, Any]) -> None:
        """The folder of a run is written, with this record."""
        self._begun(r, record["steps"])  # one that had ended before its pack was killed has had no event here
        self._end(r, record["status"], summary_of(record))

    def _end(self, r: int, status: str, summary: Mapping[str, float]) -> None:
        self._ended.add(r)
        self._each(r, lambda tracker: tracker.end(status, summary))

    def _begun(self, r: int, since: int | None = None) -> dict[str, Tracker]:
        """The trackers of a run, begun if this is the first word of it."""
        if r not in self._open:
            self._open[r] = {}
            run = replace(self._runs[r], since=since)
            for spec in self._specs:
                if spec["kind"] not in self._lost:
                    self._begin(r, run, spec)
        return self._open[r]

    def _begin(self, r: int, run: TrackedRun, spec: Mapping[str, Any]) -> None:
        try:
            self._open[r][spec["kind"]] = trackers.build(spec, run)
        except Exception as error:
            self._lost.add(spec["kind"])
            self._note(r, spec["kind"], error)

    def _each(self, r: int, do: Callable[[Tracker], None]) -> None:
        for kind, tracker in list(self._begun(r).items()):
            try:
                do(tracker)
            except Exception as error:
                del self._open[r][kind]
                self._note(r, kind, error)

    def _note(self, r: int, kind: str, error: Exception) -> None:
        if kind in self._noted:
            return
        self._noted.add(kind)
        reason = (str(error).strip().splitlines() or [""])[0]
        text = f"the tracker {kind} failed and is left out, training goes on ({type(error).__name__}: {reason})"
        self._report(note(r, text))


def values_of(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation, by the names that `trimtab.trackers` lists."""
    loss = {} if event["train_loss"] is None else {"train/loss": event["train_loss"]}
    dev = {f"dev/{name}": value for name, value in event["dev"].items()}
    return {**loss, **dev, "best": float(event["best"])}


def summary_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record (run.json): scores of the best checkpoint, and what the run took."""
    scores = {f"{split}/{name}": v for split, its in record["metrics"].items() for name, v in its.items()}
    facts = {name: record[name] for name in ("best_step", "steps", "seconds")}
    return {f"final/{name}": float(v) for name, v in {**scores, **facts}.items() if isinstance(v, int | float)}
