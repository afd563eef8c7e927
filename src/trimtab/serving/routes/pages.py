"""The page at `/` and what it is made of, and the list of routes at `/docs`. They load nothing from elsewhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own style and script, and answers of this server."""
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

_DOCS = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name} – routes</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="page.css"></head><body><main class="page docs">
<h1>{name}</h1><p>{about} Errors are JSON: <code>error</code> with <code>message</code>, <code>where</code> and
<code>fix</code>. For machines: <a href="openapi.json">openapi.json</a>.</p>{routes}</main></body></html>"""


def _file(name: str, kind: str) -> Response:
    content = (files("trimtab.serving") / "page" / name).read_text(encoding="utf-8")
    return Response(content, media_type=kind, headers={**HEADERS, "Cache-Control": "no-cache"})


@router.get("/")
async def page() -> Response:
    """Ask several tasks and the bare model the same."""
    return _file("page.html", "text/html")


@router.get("/page.css")
async def style() -> Response:
    return _file("page.css", "text/css")


@router.get("/page.js")
async def script() -> Response:
    return _file("page.js", "text/javascript")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every route with what it takes and gives, from the OpenAPI schema."""
    schema = request.app.openapi()
    parts = [
        _operation(path, method, its)
        for path, methods in schema["paths"].items()
        for method, its in methods.items()
    ]  # fmt: skip
    title, about = (escape(schema["info"][key]) for key in ("title", "description"))
    name = f"{title} {escape(schema['info']['version'])}"
    return HTMLResponse(_DOCS.format(name=name, about=about, routes="".join(parts)), headers=HEADERS)


def _operation(path: str, method: str, its: dict[str, Any]) -> str:
    """One route."""
    takes = its.get("requestBody", {}).get("content", {})
    rows = [f"<dt>takes</dt><dd>{escape(kind)} {escape(_name(c))}</dd>" for kind, c in takes.items()]
    for code, answer in its["responses"].items():
        kinds = ", ".join(f"{kind} {_name(c)}".strip() for kind, c in answer.get("content", {}).items())
        rows.append(
            f"<dt>{escape(code)}</dt><dd>{escape(answer['description'])}{escape(f' – {kinds}' if kinds else '')}</dd>"
        )
    head = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(its.get('description', ''))}</p>"
    return f"<section>{head}<dl>{''.join(rows)}</dl></section>"


def _name(content: dict[str, Any]) -> str:
    return str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]
