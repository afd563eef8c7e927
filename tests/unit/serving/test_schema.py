"""Schemathesis on the OpenAPI schema: whatever fits it, or does not, is answered as the schema says, and never by a
defect. Bounded: a few requests of both sorts for each operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.checks import CHECKS, FailureGroup

from tests.unit.serving.conftest import TOKEN, Running

NAMES = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
OPERATIONS = 11
EXAMPLES = 12
BOUNDED = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@schemathesis.serializer("application/zip")
def _archive(context: Any, value: Any) -> Any:
    """Bodies of uploads are bytes as they are."""
    return value if isinstance(value, bytes) else bytes(getattr(value, "data", b""))


def checks() -> list[Callable[..., bool | None]]:
    return [CHECKS.get_one(name) for name in NAMES]


def operations(running: Running) -> list[APIOperation]:
    schema: BaseSchema = schemathesis.openapi.from_url(running.url + "/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


def answers(operation: APIOperation, mode: GenerationMode) -> list[int]:
    """The statuses of some requests, each checked against the schema."""
    found: list[int] = []

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        found.append(answer.status_code)
        case.validate_response(answer, checks=checks())

    ask()
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
def test_every_operation_answers_as_the_schema_says(running: Running, mode: GenerationMode) -> None:
    asked: dict[str, list[int]] = {}
    its = operations(running)
    assert len(its) == OPERATIONS
    for operation in its:
        if mode is GenerationMode.POSITIVE or operation.method.upper() == "POST":
            asked[operation.label] = answers(operation, mode)
    codes = {code for its in asked.values() for code in its}
    assert codes & ({200, 404} if mode is GenerationMode.POSITIVE else {422, 400})
    assert running.get("/healthz").json()["status"] == "ok"


def test_an_answer_that_the_schema_does_not_know_is_found(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.serving.service import Service

    def broken(self: Service, name: str) -> dict[str, str]:
        return {"name": name}

    monkeypatch.setattr(Service, "describe", broken)
    operation = next(o for o in operations(running) if o.label == "GET /tasks")
    case = operation.Case()
    with pytest.raises(FailureGroup, match="Server error"):
        case.validate_response(case.call(timeout=30), checks=checks())
