"""The progress of a study: a live table with bars on a terminal, a line per pack and failed run elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from statistics import mean
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trimtab.cli.console import err
from trimtab.sizes import of_time

_PATIENCE = 30.0
"""Seconds without a word, where there is no live table."""


class StudyProgress:
    """A context manager that turns events of `trimtab.studies.driver.Driver` into progress on stderr.

    Args:
        title: the name of the study.
        quiet: show nothing.
        console: where to show it.
    """

    def __init__(self, title: str, *, quiet: bool, console: Console = err) -> None:
        self.title, self.quiet, self.console = title, quiet, console
        self.began = self.said = time.monotonic()
        self.lines: dict[str, str] = {}  # key of a run -> its line in the table
        self.statuses: dict[str, str] = {}
        self.fractions: dict[str, float] = {}
        self.dev: dict[str, float] = {}
        self.doing = ""
        self.notes: list[str] = []
        self.live = Live(console=console, refresh_per_second=4, transient=True) if self._shows_table else None

    @property
    def _shows_table(self) -> bool:
        return not self.quiet and self.console.is_interactive

    def __enter__(self) -> StudyProgress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.update(self.table() if kind is None and self.lines else Text(""))
            self.live.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Receive one event."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is None or (self.quiet and event["event"] != "note"):
            return
        handler(event)
        if self.live is not None and self.lines:
            self.live.update(self.table())

    def table(self) -> Group:
        """The state of the study: a row per line of the report."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in ("", "runs", "progress", "best dev so far, mean", "failed"):
            table.add_column(column)
        for line in dict.fromkeys(self.lines.values()):
            keys = [k for k, its in self.lines.items() if its == line]
            statuses = Counter(self.statuses.get(k, "waiting") for k in keys)
            ended = len(keys) - statuses["waiting"]
            share = sum(1.0 if k in self.statuses else self.fractions.get(k, 0.0) for k in keys) / len(keys)
            scores = [self.dev[k] for k in keys if k in self.dev]
            bad = ", ".join(f"{statuses[s]} {s}" for s in ("failed", "diverged") if statuses[s])
            bar = ProgressBar(total=1.0, completed=share, width=24)
            table.add_row(Text(line), f"{ended}/{len(keys)}", bar, f"{mean(scores):.3f}" if scores else "-", Text(bad))
        return Group(Text(f"{self.title}  {self.doing}  {self._left()}".rstrip(), style="bold"), table)

    def _on_plan(self, event: Mapping[str, Any]) -> None:
        new = {key: _line(cell) for key, cell in event["todo"].items()}
        self.lines |= new
        if self.live is None:
            self._say(f"{event['runs']} runs, {event['ended']} of them ended before, {len(new)} to train")

    def _on_adopted(self, event: Mapping[str, Any]) -> None:
        self._say(f"{event['runs']} runs taken over from elsewhere")

    def _on_fit(self, event: Mapping[str, Any]) -> None:
        self.doing = f"trying how many of {event['runs']} runs fit"
        if self.live is None:
            self._say(f"{self.doing} ({_line(event['cell'])})")

    def _on_pack(self, event: Mapping[str, Any]) -> None:
        self.doing = f"{event['packs']} packs"
        if self.live is None:
            self._say(f"{event['packs']} packs of up to {event['most']} runs")

    def _on_step(self, event: Mapping[str, Any]) -> None:
        self.fractions[event["key"]] = event["step"] / event["of"]
        if self.live is None and time.monotonic() - self.said > _PATIENCE:
            done = sum(1.0 if k in self.statuses else self.fractions.get(k, 0.0) for k in self.lines)
            self._say(f"{100 * done / len(self.lines):.0f} %  {self._left()}".rstrip())

    def _on_evaluation(self, event: Mapping[str, Any]) -> None:
        self.fractions[event["key"]] = event["step"] / event["of"]
        self.dev[event["key"]] = event["best_dev"][event["select"]]

    def _on_halved(self, event: Mapping[str, Any]) -> None:
        self._say(f"a pack of {event['runs']} runs failed and is trained by halves ({event['because']})")

    def _on_note(self, event: Mapping[str, Any]) -> None:
        if event["text"] not in self.notes:
            self.notes.append(event["text"])
            self._say(f"note: {event['text']}")

    def _on_run(self, event: Mapping[str, Any]) -> None:
        self.statuses[event["key"]] = event["status"]
        line = self.lines.get(event["key"], "")
        if event["status"] == "failed":
            self._say(f"a run failed ({line}): {event['error']['type']}: {event['error']['message']}")
        elif self.live is None:
            self._say(f"{len(self.statuses)}/{len(self.lines)}  {line}  {event['status']}  {self._left()}".rstrip())

    def _say(self, text: str) -> None:
        self.said = time.monotonic()
        self.console.print(f"{self.title}: {text}", soft_wrap=True, markup=False)

    def _left(self) -> str:
        """At the pace so far."""
        done = sum(1.0 if k in self.statuses else self.fractions.get(k, 0.0) for k in self.lines)
        if not done or done >= len(self.lines):
            return ""
        return f"about {of_time((time.monotonic() - self.began) / done * (len(self.lines) - done))} left"


def _line(cell: Mapping[str, Any]) -> str:
    from trimtab.studies.plan import show_value

    names = {"prompt.kind": "prompt", "task.kind": "task"}
    return ", ".join(f"{names.get(k, k.rpartition('.')[2])} {show_value(v)}" for k, v in cell.items())
