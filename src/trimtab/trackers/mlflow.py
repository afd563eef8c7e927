"""MLflow (extra `mlflow`): a server by `uri` or MLFLOW_TRACKING_URI, else what the library makes here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, final

from trimtab.registry import trackers
from trimtab.trackers import TrackedRun, Tracker, flattened

_LONGEST = 500
"""Characters of a parameter that every store takes."""

_STATUSES = {"done": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@final
@trackers.register("mlflow")
class MLflow(Tracker):
    """Runs in an experiment of MLflow, those of a study with the tag `study`.

    A run that goes on is taken up again; points beyond its checkpoint are there twice, with the same values.

    Args:
        experiment: in which the runs are; made if there is none of the name.
        uri: of the tracking server or store.
    """

    module = extra = "mlflow"

    def __init__(self, run: TrackedRun, *, experiment: str = "trimtab", uri: str | None = None) -> None:
        library = self.library()
        self._entities = library.entities
        self._client = library.MlflowClient(tracking_uri=uri)
        known = run.known_as("mlflow")
        if known is not None:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            return
        there = self._client.get_experiment_by_name(experiment)
        where = self._client.create_experiment(experiment) if there is None else there.experiment_id
        tags = {"trimtab.run": run.id} | ({"study": run.group} if run.group else {})
        self._id = self._client.create_run(where, run_name=run.id, tags=tags).info.run_id
        run.remember("mlflow", self._id)
        config = flattened(run.config)
        params = [self._entities.Param(key, str(value)[:_LONGEST]) for key, value in config.items()]
        for at in range(0, len(params), 100):  # as many as a request may have
            self._client.log_batch(self._id, params=params[at : at + 100])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._client.log_batch(self._id, metrics=self._metrics(values, step))

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        if summary:
            self._client.log_batch(self._id, metrics=self._metrics(summary, 0))
        self._client.set_tag(self._id, "status", status)
        self._client.set_terminated(self._id, status=_STATUSES.get(status, "FAILED"))

    def _metrics(self, values: Mapping[str, float], step: int) -> list[Any]:
        now = int(time.time() * 1000)
        return [self._entities.Metric(name, float(value), now, step) for name, value in values.items()]
