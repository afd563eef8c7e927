"""TensorBoard (extra `tensorboard`): `tensorboard --logdir runs`, while the run trains or afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from trimtab.documents import dump_yaml
from trimtab.registry import trackers
from trimtab.trackers import TrackedRun, Tracker


@final
@trackers.register("tensorboard")
class TensorBoard(Tracker):
    """Event files for TensorBoard.

    A run that goes on marks its events beyond the checkpoint as void; one that begins anew removes older event files.

    Args:
        folder: where they go, each run's in a folder of its own; by default `tensorboard` in the run folder.
    """

    module, extra = "torch.utils.tensorboard", "tensorboard"

    def __init__(self, run: TrackedRun, *, folder: str | None = None) -> None:
        place = run.folder / "tensorboard" if folder is None else Path(folder) / run.id
        if run.since is None:
            for old in place.glob("events.out.tfevents.*"):
                old.unlink()
        self._step = run.since or 0
        purge = None if run.since is None else run.since + 1
        self._writer = self.library().SummaryWriter(str(place), purge_step=purge)
        if run.since is None:
            self._writer.add_text("config", f"```yaml\n{dump_yaml(dict(run.config))}```", 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self._step = step

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        for name, value in summary.items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.add_text("status", status, self._step)
        self._writer.close()
