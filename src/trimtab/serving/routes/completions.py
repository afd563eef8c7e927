"""Texts that are written on, as OpenAI's API has it: `model` names a prompt, or the backbone.

A prompt's template is filled with the text (with the content of the one message), and the model writes in place of the
answer; the backbone reads a text as it is, and messages as its chat template writes them.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from trimtab.errors import ConfigError, TrimtabError
from trimtab.serving.choosing import Choice
from trimtab.serving.problems import plain, problem
from trimtab.serving.refusals import TooLargeError
from trimtab.serving.routes import refusals, results, service_of
from trimtab.serving.service import Message, Service
from trimtab.serving.streaming import GrowingText
from trimtab.serving.tickets import Ended, Writing
from trimtab.serving.wire import ChatCompletion, Completion, Models, Usage

router = APIRouter(prefix="/v1", tags=["OpenAI"])
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The text, or a stream of its pieces"}
}
WRITES: dict[int | str, dict[str, Any]] = {**STREAM, **refusals(400, 404, 422)}


class Shape:
    """How a completion is told: as a text."""

    prefix, whole, piece = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """One text."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    def first(self) -> list[dict[str, Any]]:
        """What a stream begins with."""
        return []

    def delta(self, text: str, reason: str | None) -> dict[str, Any]:
        """One piece of it."""
        return self.choice(0, text, reason)


class ChatShape(Shape):
    """As a message."""

    prefix, whole, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    def first(self) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]

    def delta(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}


@router.get("/models", response_model=Models, responses=refusals())
async def models(request: Request) -> Any:
    """The backbone and all prompts."""
    service, began = service_of(request), request.app.state.began
    names = [service.name, *service.catalog.names]
    return {"object": "list", "data": [{"id": name, "created": began} for name in names]}


@router.post("/completions", response_model=None, responses=WRITES)
async def complete(request: Request, body: Completion) -> Any:
    """Write a text on."""
    texts: list[str | Sequence[Message]] = [body.prompt] if isinstance(body.prompt, str) else list(body.prompt)
    return await _answer(request, body, texts, body.max_tokens, Shape())


@router.post("/chat/completions", response_model=None, responses=WRITES)
async def chat(request: Request, body: ChatCompletion) -> Any:
    """Answer messages."""
    messages = [(m.role, m.content) for m in body.messages]
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return await _answer(request, body, [messages], most, ChatShape())


async def _answer(
    request: Request,
    body: Completion | ChatCompletion,
    texts: Sequence[str | Sequence[Message]],
    new_tokens: int | None,
    shape: Shape,
) -> Any:
    service = service_of(request)
    request.scope["trimtab_facts"] = {"model": body.model, "texts": len(texts), "stream": bool(body.stream)}
    if len(texts) > service.limits.inputs:
        what = f"a request has at most {service.limits.inputs} texts, got {len(texts)}."
        raise TooLargeError(what, where="prompt", fix="Send several requests.")
    choice = Choice(body.temperature or 0.0, 1.0 if body.top_p is None else body.top_p, body.seed)
    head = {"id": f"{shape.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    if body.stream:
        if len(texts) > 1:
            raise ConfigError("a stream has one text.", where="prompt", fix="Send one text, or set stream: false.")
        return await _stream(service, body, texts[0], new_tokens, choice, shape, head)
    begun: list[tuple[Writing, int]] = []
    try:
        for text in texts:
            begun += [await run_in_threadpool(service.write, body.model, text, new_tokens, choice)]
        if body.stops:
            ended = [await _stopped(request, service, writing, body.stops) for writing, _ in begun]
        else:
            values: list[Ended] = await results(request, [writing.future for writing, _ in begun])
            ended = [(service.text(e.ids).strip(), e.reason, len(e.ids)) for e in values]
    finally:
        for writing, _ in begun:
            writing.cancel()
    choices = [shape.choice(i, text, reason) for i, (text, reason, _) in enumerate(ended)]
    usage = _usage(sum(read for _, read in begun), sum(n for _, _, n in ended))
    return {**head, "object": shape.whole, "choices": choices, "usage": usage}


async def _stopped(request: Request, service: Service, writing: Writing, stops: Sequence[str]) -> tuple[str, str, int]:
    """A text up to the first of the stop texts, its reason to end, and how many tokens were written."""
    (ended,) = await results(request, [writing.future])
    growing = GrowingText(service.text, stops)
    for n, token in enumerate(ended.ids, 1):
        growing.grow(token)
        if growing.is_stopped:
            return growing.said, "stop", n
    growing.finish()
    return growing.said, ended.reason, len(ended.ids)


async def _stream(
    service: Service,
    body: Completion | ChatCompletion,
    text: str | Sequence[Message],
    new_tokens: int | None,
    choice: Choice,
    shape: Shape,
    head: dict[str, Any],
) -> StreamingResponse:
    """Pieces as they come, as server-sent events. What is wrong with the request is said before the first."""
    loop, tokens = asyncio.get_running_loop(), asyncio.Queue[int | None]()

    def tell(token: int | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tokens.put_nowait, token)

    writing, read = await run_in_threadpool(partial(service.write, body.model, text, new_tokens, choice, tell))
    writing.future.add_done_callback(lambda _: tell(None))
    told = head | {"object": shape.piece}
    usage = body.stream_options is not None and body.stream_options.include_usage

    async def events() -> AsyncIterator[str]:
        growing = GrowingText(service.text, body.stops)
        written, reason = 0, "stop"
        try:
            for first in shape.first():
                yield _event({**told, "choices": [first]})
            while (token := await tokens.get()) is not None and not growing.is_stopped:
                written += 1
                if piece := await run_in_threadpool(growing.grow, token):
                    yield _event({**told, "choices": [shape.delta(piece, None)]})
            if not growing.is_stopped:
                reason = writing.future.result().reason
                if piece := growing.finish():
                    yield _event({**told, "choices": [shape.delta(piece, None)]})
            yield _event({**told, "choices": [shape.delta("", reason)]})
            if usage:
                yield _event({**told, "choices": [], "usage": _usage(read, written)})
        except Exception as error:
            yield _event(problem(error) if isinstance(error, TrimtabError) else plain(500, "the text broke off."))
        finally:
            writing.cancel()
        yield "data: [DONE]\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _usage(read: int, written: int) -> dict[str, int]:
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written).model_dump()
