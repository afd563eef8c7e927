"""Stand-ins for wandb, trackio and MLflow: as much of their documented interface as the adapters use, strict about
arguments, and what they were told.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@dataclass
class Record:
    """A run as its service shows it."""

    name: str
    group: str | None
    place: str
    config: dict[str, Any] = field(default_factory=dict)
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    status: Any = "open"


class Service(ModuleType):
    """A module that keeps records by id."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.records: dict[str, Record] = {}

    def latest(self, name: str) -> Record | None:
        """The run of this name that was begun last."""
        return next((r for r in reversed(self.records.values()) if r.name == name), None)


class WandB(Service):
    """`wandb.init` as of 0.31, and the run that it returns."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.open: set[str] = set()

    def Settings(self, *, console: str, silent: bool) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(console=console, silent=silent)

    def init(
        self, *, entity: str | None, project: str, dir: str | None, id: str | None, name: str, config: dict[str, Any],
        allow_val_change: bool, group: str | None, mode: str | None, reinit: str, resume: str | None, settings: Any,
    ) -> Any:  # fmt: skip
        assert reinit == "create_new", "else the other runs of the pack are finished"
        assert id is None or resume == "allow"
        assert settings.console == "off", "else stdout is wrapped"
        key = id or f"w{len(self.records)}"
        record = self.records.setdefault(key, Record(name, group, project, config))
        record.status = "open"

        def log(data: dict[str, float], step: int | None = None, commit: bool | None = None) -> None:
            assert commit, "else it is sent with the next step"
            if not record.points or step > record.points[-1][0]:  # an earlier step is passed over with a warning
                record.points.append((step, data))

        def finish(exit_code: int | None = None) -> None:
            record.status = record.summary.pop("status"), exit_code

        return SimpleNamespace(id=key, log=log, finish=finish, summary=record.summary)


class Trackio(Service):
    """`trackio.init` as of 0.43: it finishes the current run of its context."""

    def __init__(self) -> None:
        from contextvars import ContextVar

        super().__init__("trackio")
        self.current: Any = ContextVar("current_run", default=None)

    def init(
        self, project: str, *, name: str, group: str | None, space_id: str | None, config: dict[str, Any], resume: str,
        embed: bool, auto_log_gpu: bool, auto_log_cpu: bool,
    ) -> Any:  # fmt: skip
        print("* Trackio project initialized")
        if self.current.get() is not None:
            self.current.get().finish()
        assert not any(key.startswith("_") for key in config), "reserved"
        record = self.latest(name) if resume == "allow" else None
        if record is None:
            record = self.records[f"t{len(self.records)}"] = Record(name, group, project, config)
        record.status = "open"

        def log(metrics: dict[str, float], step: int | None = None) -> None:
            assert record.status == "open", "this run is finished"
            record.points.append((step, metrics))

        def finish() -> None:
            print("* Run finished")
            record.status = "finished"

        run = SimpleNamespace(log=log, finish=finish)
        self.current.set(run)
        return run


class MLflow(Service):
    """`mlflow.MlflowClient` as of 3.18."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: dict[str, str] = {}
        self.entities = SimpleNamespace(
            Param=lambda key, value: (key, value),
            Metric=lambda key, value, timestamp, step: (key, value, timestamp, step),
        )

    def MlflowClient(self, *, tracking_uri: str | None) -> MLflow:  # noqa: N802
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        assert name not in self.experiments, "must be unique"
        self.experiments[name] = name
        return name

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, Any]) -> Any:
        key = f"m{len(self.records)}"
        self.records[key] = Record(run_name, tags.get("study"), experiment_id)
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def update_run(self, run_id: str, *, status: str) -> None:
        self.records[run_id].status = status

    def log_batch(self, run_id: str, *, metrics: Sequence[Any] = (), params: Sequence[Any] = ()) -> None:
        assert len(params) <= 100
        record = self.records[run_id]
        for key, value in params:
            assert key not in record.config, "a parameter is said once"
            record.config[key] = value
        for key, value, timestamp, step in metrics:
            assert isinstance(value, float)
            assert timestamp > 1e12, "milliseconds"
            (record.summary if key.startswith("final/") else self._at(record, step))[key] = value

    def _at(self, record: Record, step: int) -> dict[str, float]:
        for known, values in record.points:
            if known == step:
                return values
        record.points.append((step, {}))
        return record.points[-1][1]

    def set_tag(self, run_id: str, key: str, value: Any) -> None:
        self.records[run_id].summary[key] = value

    def set_terminated(self, run_id: str, *, status: str) -> None:
        record = self.records[run_id]
        record.status = record.summary.pop("status"), status


FAKES: Mapping[str, type[Service]] = {"wandb": WandB, "trackio": Trackio, "mlflow": MLflow}


def pretend(monkeypatch: pytest.MonkeyPatch, kind: str) -> Service:
    """Put a stand-in where the library would be imported from."""
    fake = FAKES[kind]()  # type: ignore[call-arg]
    monkeypatch.setitem(sys.modules, kind, fake)
    return fake
