"""Weights & Biases (extra `wandb`). Log in once with `wandb login`, or set `mode: offline` and `wandb sync` later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from trimtab.registry import trackers
from trimtab.trackers import TrackedRun, Tracker


@final
@trackers.register("wandb")
class WandB(Tracker):
    """Runs in a project of Weights & Biases, those of a study in one group.

    The runs of a pack are open side by side. A run that goes on is taken up again; the service keeps what it has seen
    before, and the same numbers, sent again, are passed over.

    Args:
        project: in which the runs are.
        entity: user or team; by default your own.
        mode: online, or offline; by default WANDB_MODE decides.
        folder: for the library's own files; by default WANDB_DIR, or `wandb` where the command is given.
    """

    module = extra = "wandb"

    def __init__(
        self,
        run: TrackedRun,
        *,
        project: str = "trimtab",
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        folder: str | None = None,
    ) -> None:
        wandb, known = self.library(), run.known_as("wandb")
        self._run = wandb.init(
            project=project,
            entity=entity,
            mode=mode,
            dir=folder,
            group=run.group,
            name=run.id,
            id=known,
            resume="allow" if known else None,
            config=dict(run.config),
            allow_val_change=True,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        run.remember("wandb", self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step, commit=True)  # or it is held back until the next

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        self._run.summary.update({**summary, "status": status})
        self._run.finish(exit_code=0 if status in ("done", "diverged") else 1)
