"""Whether the server works, and what it has done."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from trimtab.serving.routes import service_of
from trimtab.serving.wire import Health

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_model=Health, responses={503: {"model": Health, "description": "Going down"}})
async def health(request: Request) -> Any:
    """Whether the engine takes work."""
    service = service_of(request)
    is_open = service.engine.is_open
    found = Health(
        status="ok" if is_open else "closing",
        backbone=service.name,
        prompts=len(service.catalog),
        waiting=service.engine.waiting,
    )
    return JSONResponse(found.model_dump(), 200 if is_open else 503)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """Numbers for Prometheus."""
    text = request.app.state.counters.text(service_of(request))
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")
