"""The web application around a `Service` (FastAPI, extra `serve`): routes, errors, the guard before them, the page."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from trimtab.errors import ConfigError, TrimtabError

try:
    import fastapi
except ImportError:
    raise ConfigError(
        "FastAPI is not installed, which the server is made with.",
        where="trimtab serve",
        fix="Install it: pip install 'trimtab[serve]'.",
    ) from None

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from trimtab.serving.counters import Counters
from trimtab.serving.guard import GONE, Guard
from trimtab.serving.journal import tell
from trimtab.serving.problems import headers_of, malformed, plain, problem, status_of
from trimtab.serving.routes import GoneError, bundles, completions, operation, pages, tasks
from trimtab.serving.service import Service
from trimtab.serving.settings import Settings

ABOUT = "One frozen language model, many soft prompts. Rows of all tasks share batches."


def application(service: Service, settings: Settings = Settings()) -> FastAPI:  # noqa: B008 - frozen
    """The application; when it ends, what was asked is answered and the engine stops."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await fastapi.concurrency.run_in_threadpool(service.close, settings.drain_seconds)

    app = FastAPI(
        title="trimtab", version=version("trimtab"), description=ABOUT, lifespan=life, docs_url=None, redoc_url=None
    )
    app.state.service, app.state.settings, app.state.counters = service, settings, Counters()
    app.state.began = int(time.time())
    for routes in (tasks, completions, bundles, operation, pages):
        app.include_router(routes.router)
    app.add_exception_handler(TrimtabError, _refuse)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(GoneError, _gone)
    app.add_exception_handler(Exception, _defect)
    app.add_middleware(Guard, settings=settings, counters=app.state.counters)
    return app


async def _refuse(request: Request, error: Any) -> JSONResponse:
    return JSONResponse(problem(error), status_of(error), headers_of(error))


async def _malformed(request: Request, error: Any) -> JSONResponse:
    status, body = malformed(error.errors()[0])
    return JSONResponse(body, status)


async def _plain(request: Request, error: Any) -> JSONResponse:
    return JSONResponse(plain(error.status_code, str(error.detail)), error.status_code, error.headers)


async def _gone(request: Request, error: Any) -> Response:
    return Response(status_code=GONE)


async def _defect(request: Request, error: Any) -> JSONResponse:
    """What went wrong here is told in the journal, not to whoever asked."""
    tell("defect", 40, path=request.url.path, error=f"{type(error).__name__}: {error}")
    what = "the server has a defect, which its journal tells of; other requests go on."
    return JSONResponse(plain(500, what, "defect"), 500)
