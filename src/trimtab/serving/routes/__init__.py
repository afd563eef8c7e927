"""The routes of the server, one file for each sort. They share the `Service`, which they find in the application."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import Request

from trimtab.serving.problems import Problem
from trimtab.serving.service import Service
from trimtab.serving.settings import Settings


class GoneError(Exception):
    """The client did not wait for its answer."""


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the OpenAPI schema; those that every route has included."""
    told = {
        400: "The request cannot be answered as it is", 401: "No token, or a wrong one", 403: "Not on this server",
        404: "There is nothing of that name", 408: "The body did not come", 409: "The name is taken",
        413: "Too large", 422: "Not what the route takes", 429: "Too many requests; see Retry-After",
        503: "The server is going down", 507: "The server's disk refuses",
    }  # fmt: skip
    return {code: {"model": Problem, "description": told[code]} for code in sorted({408, 413, 429, 503, *codes})}


def service_of(request: Request) -> Service:
    """The service of the application."""
    service: Service = request.app.state.service
    return service


def settings_of(request: Request) -> Settings:
    """What the application was started with."""
    settings: Settings = request.app.state.settings
    return settings


async def results(request: Request, futures: Sequence[Future[Any]]) -> list[Any]:
    """Wait for the engine, as long as the client does.

    Raises:
        GoneError: it went; what it asked is cancelled.
    """
    waiting: asyncio.Future[list[Any]] = asyncio.gather(*map(asyncio.wrap_future, futures))
    waiting.add_done_callback(lambda its: its.cancelled() or its.exception())  # nobody may be there to look at it
    leaving: asyncio.Future[None] = asyncio.ensure_future(_gone(request))
    try:
        both: set[asyncio.Future[Any]] = {waiting, leaving}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise GoneError
        return list(waiting.result())
    finally:
        leaving.cancel()
        if not waiting.done():
            waiting.cancel()
        for future in futures:
            future.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
