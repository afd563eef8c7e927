"""What every request passes first: is there room, is its body small enough, may it do that; and a line in the journal.

Bodies are read here, whole and with a limit, before anything looks at them, so no route has to think of it.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final

from trimtab.errors import TrimtabError
from trimtab.serving.counters import Counters
from trimtab.serving.journal import tell
from trimtab.serving.problems import headers_of, problem, status_of
from trimtab.serving.refusals import OverloadedError, Refusal, TooLargeError
from trimtab.serving.settings import Settings
from trimtab.serving.uploads import check_token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ALWAYS = ("/healthz", "/metrics")
"""Answered however many requests are under way."""
GONE = 499
"""The status in journal and metrics of a client that did not wait."""


@final
class Guard:
    """Wraps the application (ASGI 3)."""

    def __init__(self, app: App, settings: Settings, counters: Counters) -> None:
        self._app, self._settings, self._counters = app, settings, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, path = time.monotonic(), str(scope["path"])
        scope["trimtab_id"] = name = uuid.uuid4().hex[:16]
        answer = _Answer(send, name)
        self._counters.in_flight += 1
        try:
            self._check_room(path)
            self._check_right(scope, path)
            body = await self._body(scope, receive, path)
            await self._app(scope, _again(body, receive), answer)
        except TrimtabError as error:
            await answer.refuse(error)
        except _GoneError:
            answer.status = GONE
        finally:
            self._counters.in_flight -= 1
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", "other")
            self._counters.count(str(route), answer.status, seconds)
            facts = {"request": name, "method": scope["method"], "path": path, "status": answer.status}
            tell("request", **facts, seconds=round(seconds, 6), **scope.get("trimtab_facts", {}))

    def _check_room(self, path: str) -> None:
        if self._counters.in_flight > self._settings.in_flight and path not in ALWAYS:
            raise OverloadedError(
                f"{self._settings.in_flight} requests are under way, and no more are taken.",
                where="server",
                fix="Come back in a second, see Retry-After.",
            )

    def _check_right(self, scope: Scope, path: str) -> None:
        if path.startswith("/bundles") and scope["method"] in ("PUT", "POST", "DELETE", "PATCH"):
            given = dict(scope["headers"]).get(b"authorization")
            check_token(None if given is None else given.decode("latin-1"), self._settings.token)

    async def _body(self, scope: Scope, receive: Receive, path: str) -> bytes:
        most = self._settings.bundle_bytes if path.startswith("/bundles") else self._settings.body_bytes
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > most:
            raise _too_large(most)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            what = f"the body was not there after {self._settings.body_seconds:g} seconds."
            raise SlowError(what, where="body", fix="Send it faster, or less.") from None


@final
class SlowError(Refusal):
    """A body that does not come."""

    status = 408


class _GoneError(Exception):
    """The client has gone."""


@final
class _Answer:
    """What is sent, and with which status."""

    def __init__(self, send: Send, name: str) -> None:
        self._send, self._name = send, name
        self.status = GONE

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self._name.encode())]
        await self._send(message)

    async def refuse(self, error: TrimtabError) -> None:
        """Say no, and take no more of what may still come."""
        head = {"content-type": "application/json", "connection": "close", **headers_of(error)}
        headers = [(k.lower().encode(), v.encode()) for k, v in head.items()]
        await self({"type": "http.response.start", "status": status_of(error), "headers": headers})
        await self._send({"type": "http.response.body", "body": json.dumps(problem(error)).encode()})


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read again; behind it what else comes."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {most:,} bytes.", where="body", fix="Send less at once.")
