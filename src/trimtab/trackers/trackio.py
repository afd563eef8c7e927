"""Trackio (extra `trackio`), Hugging Face's local tracker: `trackio show --project trimtab`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from contextvars import Context
from io import StringIO
from typing import Any, final

from trimtab.registry import trackers
from trimtab.trackers import TrackedRun, Tracker, flattened


@final
@trackers.register("trackio")
class Trackio(Tracker):
    """Runs in a project of Trackio, those of a study in one group.

    The library finishes its current run when another begins; each run is begun in a context of its own, so that those
    of a pack stay open side by side. It has no room for a summary: the final scores stand at the last step.

    Args:
        project: in which the runs are.
        space_id: a Hugging Face Space that keeps them; by default this machine does.
    """

    module = extra = "trackio"

    def __init__(self, run: TrackedRun, *, project: str = "trimtab", space_id: str | None = None) -> None:
        self._step = run.since or 0
        self._run = _quietly(
            self.library().init,
            project=project,
            name=run.id,
            group=run.group,
            space_id=space_id,
            config=flattened(run.config),
            resume="never" if run.since is None else "allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)
        self._step = step

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        if summary:
            self._run.log(dict(summary), step=self._step)
        _quietly(self._run.finish)


def _quietly(do: Callable[..., Any], **options: Any) -> Any:
    """Call in a fresh context, without the library's words on stdout, where `--json` has its own."""
    with redirect_stdout(StringIO()):
        return Context().run(do, **options)
