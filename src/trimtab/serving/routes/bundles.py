"""Prompts that come and go while the server runs, for whoever knows the token."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from trimtab.serving.journal import tell
from trimtab.serving.routes import refusals, service_of, settings_of
from trimtab.serving.uploads import bundle_from
from trimtab.serving.wire import Task

router = APIRouter(prefix="/bundles", tags=["bundles"])
BEARER = Depends(HTTPBearer(auto_error=False, description="The server's token; see --uploads."))
"""Tells the schema of the token. The guard looks at it, before it reads a body."""


_BYTES = {"schema": {"type": "string", "format": "binary"}}
ARCHIVE = {"requestBody": {"required": True, "content": {"application/zip": _BYTES}}}


@router.put(
    "/{name}",
    status_code=201,
    response_model=Task,
    dependencies=[BEARER],
    responses=refusals(400, 401, 403, 409, 422, 507),
    openapi_extra=ARCHIVE,
)
async def add(request: Request, name: str) -> dict[str, Any]:
    """Serve a prompt: the body is a zip archive of its `bundle.json` and `prompt.safetensors`."""
    service, archive = service_of(request), await request.body()

    def added() -> dict[str, Any]:
        service.catalog.check_name(name)
        service.add(name, bundle_from(archive, settings_of(request).bundle_bytes), f"the bundle {name!r}")
        return service.describe(name)

    found = await run_in_threadpool(added)
    tell("prompt added", prompt=name)
    return found


@router.delete("/{name}", status_code=204, dependencies=[BEARER], responses=refusals(401, 403, 404, 422))
async def remove(request: Request, name: str) -> None:
    """Serve a prompt no longer. Returns when no row uses it any more."""
    await run_in_threadpool(service_of(request).remove, name)
    tell("prompt removed", prompt=name)
