"""Progress that a person can read: a bar on a terminal, a line per evaluation elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trimtab.cli.console import err


class TrainingProgress:
    """A context manager that turns events of the loop into progress on stderr.

    Args:
        title: what is being trained.
        quiet: show nothing.
    """

    def __init__(self, title: str, *, quiet: bool) -> None:
        self.title, self.quiet = title, quiet
        self.begun, self.dev = time.monotonic(), 0.0
        self.loss: float | None = None
        self.bar: Progress | None = None
        if not quiet and err.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  dev {task.fields[dev]}"),
                TimeRemainingColumn(),
                console=err,
            )
            self.task = self.bar.add_task(title, total=None, loss="-", dev="-")

    def __enter__(self) -> TrainingProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Receive one event of `trimtab.training.loop.Loop`."""
        if self.quiet:
            return
        if event["event"] == "step":
            self._step(event)
        elif event["event"] == "evaluation":
            self._evaluation(event)

    def _step(self, event: Mapping[str, Any]) -> None:
        self.loss = event["loss"] if self.loss is None else 0.9 * self.loss + 0.1 * event["loss"]
        if self.bar is not None:
            self.bar.update(self.task, completed=event["step"], total=event["of"], loss=f"{self.loss:.3f}")

    def _evaluation(self, event: Mapping[str, Any]) -> None:
        score = event["dev"][event["select"]]
        self.dev = score if event["best"] else self.dev
        if self.bar is not None:
            self.bar.update(self.task, total=event["of"], dev=f"{score:.3f} (best {self.dev:.3f})")
            return
        seconds = time.monotonic() - self.begun
        left = seconds / event["step"] * (event["of"] - event["step"]) if event["step"] else None
        loss = "-" if self.loss is None else f"{self.loss:.3f}"
        ahead = "" if left is None else f", {left:.0f} s left"
        err.print(
            f"{self.title}: step {event['step']}/{event['of']}, loss {loss}, dev {score:.3f}"
            f"{' (best)' if event['best'] else ''}{ahead}",
            soft_wrap=True,
            markup=False,
        )
