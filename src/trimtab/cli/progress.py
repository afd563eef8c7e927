"""Progress that a person can read: a bar on a terminal, a line per evaluation elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from trimtab.cli.console import err
from trimtab.sizes import of_time


class TrainingProgress:
    """A context manager that turns events of the loop into progress on stderr.

    Time left is judged by the steps of this process: a run that continues has taken no time yet.

    Args:
        title: what is being trained.
        quiet: show nothing.
        console: where to show it.
    """

    def __init__(self, title: str, *, quiet: bool, console: Console = err) -> None:
        self.title, self.quiet, self.console = title, quiet, console
        self.began: tuple[float, int] | None = None  # the clock and the step at the first event
        self.loss: float | None = None
        self.notes: list[str] = []  # said already
        self.bar: Progress | None = None
        if not quiet and console.is_interactive:
            columns = (BarColumn(bar_width=24), MofNCompleteColumn())
            facts = TextColumn("loss {task.fields[loss]}  dev {task.fields[dev]}  {task.fields[left]}")
            self.bar = Progress(TextColumn("{task.description}", markup=False), *columns, facts, console=console)
            self.task = self.bar.add_task(title, total=None, loss="-", dev="-", left="")

    def __enter__(self) -> TrainingProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Receive one event of `trimtab.training.runs.run_pack`. Notes are no progress: they are said even if quiet."""
        if event["event"] == "note":
            self.notes.append(event["text"])
            self.console.print(f"note: {event['text']}", soft_wrap=True, markup=False)
        if self.quiet or event["event"] == "note":
            return
        if self.began is None:
            self.began = time.monotonic(), event["step"]
        if event["event"] == "continue":
            self._say(f"continuing at step {event['step']} of {event['of']}")
            self._show(event)
        elif event["event"] == "step":
            self.loss = event["loss"] if self.loss is None else 0.9 * self.loss + 0.1 * event["loss"]
            self._show(event, loss=f"{self.loss:.3f}", left=self._left(event))
        elif event["event"] == "evaluation":
            self._evaluation(event)

    def _evaluation(self, event: Mapping[str, Any]) -> None:
        score, best_score = (f"{dev[event['select']]:.3f}" for dev in (event["dev"], event["best_dev"]))
        self._show(event, dev=f"{score} (best {best_score})", left=self._left(event))
        if self.bar is None:
            loss = "-" if self.loss is None else f"{self.loss:.3f}"
            best = " (best)" if event["best"] else ""
            facts = [f"step {event['step']}/{event['of']}", f"loss {loss}", f"dev {score}{best}", self._left(event)]
            self._say(", ".join(filter(None, facts)))

    def _show(self, event: Mapping[str, Any], **fields: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=event["step"], total=event["of"], **fields)

    def _say(self, line: str) -> None:
        self.console.print(f"{self.title}: {line}", soft_wrap=True, markup=False)

    def _left(self, event: Mapping[str, Any]) -> str:
        """The time that the remaining steps will take at the pace of those taken since the first event."""
        assert self.began is not None
        clock, first = self.began
        taken, ahead = event["step"] - first, event["of"] - event["step"]
        return f"{of_time((time.monotonic() - clock) / taken * ahead)} left" if taken > 0 and ahead > 0 else ""
