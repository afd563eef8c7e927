"""The progress of a landscape: a bar per view and run on a terminal, a line for each elsewhere, nothing when quiet."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trimtab.cli.console import err


class LandscapeProgress:
    """A context manager that turns events of `trimtab.landscape.survey.survey` into progress on stderr.

    Args:
        quiet: show nothing.
        console: where to show it.
    """

    def __init__(self, *, quiet: bool, console: Console = err) -> None:
        self.quiet, self.console = quiet, console
        self.tasks: dict[str, TaskID] = {}
        self.bar: Progress | None = None
        if not quiet and console.is_interactive:
            columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("points"), TimeRemainingColumn())
            self.bar = Progress(TextColumn("{task.description}", markup=False), *columns, console=console)

    def __enter__(self) -> LandscapeProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Receive one event."""
        if self.quiet or event["event"] != "points":
            return
        name = f"{event['view']}, {event['run']}"
        if self.bar is None:
            if name not in self.tasks:
                self.tasks[name] = TaskID(len(self.tasks))
                self.console.print(
                    f"{name}: {event['of']:,} {event.get('what', 'points')}", soft_wrap=True, markup=False
                )
            return
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(name, total=event["of"])
        self.bar.advance(self.tasks[name], event["count"])
