"""Errors as the server says them: `{"error": {message, where, fix, type, code}}`, whatever went wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from trimtab.errors import TrimtabError
from trimtab.serving.refusals import OverloadedError, Refusal


class ProblemText(BaseModel):
    """One error: what must hold and what was got, where, what to do about it."""

    message: str
    where: str | None = None
    fix: str | None = None
    type: str
    code: int


class Problem(BaseModel):
    """What is answered in the place of a result."""

    error: ProblemText


def status_of(error: TrimtabError) -> int:
    """The status of HTTP that says what an error is."""
    return error.status if isinstance(error, Refusal) else 400


def problem(error: TrimtabError) -> dict[str, Any]:
    """An error as JSON."""
    name = type(error).__name__.removesuffix("Error")
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return _body(error.what, error.where, error.fix, f"{kind}_error", status_of(error))


def headers_of(error: TrimtabError) -> dict[str, str]:
    """What stands in the head of an answer."""
    if isinstance(error, OverloadedError):
        return {"Retry-After": "1"}
    return {"WWW-Authenticate": "Bearer"} if status_of(error) == 401 else {}


def malformed(first: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a body that is no JSON, or is not what the route takes: the first complaint of pydantic."""
    where = ".".join(str(part) for part in first["loc"] if "[" not in str(part))  # not of pydantic's own parts
    if first["type"] == "json_invalid":
        said = str(first.get("ctx", {}).get("error", first["msg"]))
        return 400, _body(f"this is not JSON ({said}).", where, "Send a JSON object.", "malformed_error", 400)
    if isinstance(first.get("input"), bytes):
        fix = "Send the header Content-Type: application/json."
        return 422, _body("the body does not say that it is JSON.", where, fix, "validation_error", 422)
    given = repr(first.get("input"))
    shown = given if len(given) <= 100 else f"{given[:100]}..."
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    fix = "See /docs for what the route takes."
    return 422, _body(f"{message}, got {shown}.", where, fix, "validation_error", 422)


def plain(status: int, message: str, kind: str = "http_error") -> dict[str, Any]:
    """JSON of an error that is none of ours, such as a route that does not exist."""
    return _body(message, None, "See /docs for the routes." if status in (404, 405) else None, kind, status)


def _body(message: str, where: str | None, fix: str | None, kind: str, code: int) -> dict[str, Any]:
    text = {"message": message, "where": where, "fix": fix, "type": kind}
    safe = {k: v if v is None else v.encode("utf-8", "replace").decode() for k, v in text.items()}
    return {"error": {**safe, "code": code}}
