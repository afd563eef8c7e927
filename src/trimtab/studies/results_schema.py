"""What `results.jsonl.gz` must hold for its runs to be taken over, as it may come from anybody. More is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = int | float


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Plan(_Part):
    digest: str
    sources: dict[str, str] = {}


class _Head(_Part):
    schema_: int = Field(alias="schema")
    plan: _Plan
    packs: list[dict[str, Any]] = []
    fits: dict[str, Any] = {}


class _Error(_Part):
    type: str
    message: str


class _Line(_Part):
    key: str
    status: Literal["done", "diverged", "failed"]
    stage: str
    cell: dict[str, Any]
    seeds: dict[str, int]
    run: str | None = None
    error: _Error | None = None
    pack: int | None = None
    files: dict[str, str] = {}


class _Confusion(_Part):
    classes: list[str]
    counts: list[list[int]]

    @model_validator(mode="after")
    def _is_square(self) -> _Confusion:
        sizes = {len(self.counts), *map(len, self.counts)}
        if sizes != {len(self.classes)}:
            raise ValueError("counts must have a row and a column for each class")
        return self


class _Scores(_Part):
    confusion: _Confusion | None = None


class _Record(_Part):
    task: str | None = None
    backbone: str | None = None
    started: str | None = None
    environment: dict[str, Any] | None = None
    fingerprints: dict[str, Any] | None = None
    rows: dict[str, Any] | None = None
    metric: str | None = None
    metrics: dict[str, _Scores] | None = None
    task_metrics: dict[str, str] | None = None
    baselines: dict[str, Any] | None = None
    parameters: dict[str, int] | None = None
    best_step: int | None = None
    steps: int | None = None
    seconds: Number | None = None
    seconds_per_step: Number | None = None


class _Event(_Part):
    step: int
    dev: dict[str, Any] | None = None


class _Run(_Part):
    line: _Line
    record: _Record = _Record()
    events: list[_Event] = []
    sharpness: dict[str, Any] | None = None


def check_results(head: Any, runs: Sequence[Any]) -> None:
    """Hold the lines of a file against what they must be.

    Raises:
        ValueError: one is something else; pydantic says what.
    """
    _Head.model_validate(head)
    for run in runs:
        _Run.model_validate(run)
