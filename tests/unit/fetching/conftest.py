"""A web server on the loopback that serves archives, in parts, badly, or not at all."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trimtab.fetching.manifests import Archive, Manifest


@dataclass
class Served:
    """What lies at a path, and how the server behaves.

    Attributes:
        cuts: after how many bytes of its body the next answers are cut off.
        codes: what the next answers are instead.
        ranges: whether it can send a part.
    """

    content: bytes
    etag: str | None = '"1"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


@dataclass
class Web:
    """The server: its address, what it serves, and what it was asked for (path, Range)."""

    url: str
    files: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def serve(self, name: str, content: bytes, **how: Any) -> Served:
        self.files[f"/{name}"] = Served(content, **how)
        return self.files[f"/{name}"]

    def archive(self, name: str, **more: Any) -> Archive:
        """The manifest entry of what lies at a path, hash and size right unless given."""
        content = self.files[f"/{name}"].content
        known = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "into": "toy", **more}
        return Archive(url=f"{self.url}/{name}", **known)

    def manifest(self, *archives: Archive, name: str = "toy") -> Manifest:
        about = {"about": "a toy", "homepage": self.url, "license": "none", "known_by": "this test"}
        return Manifest(name=name, archives=archives, **about)


@pytest.fixture
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            it.asked.append((self.path, asked))
            its = it.files.get(self.path)
            if its is None or its.codes:
                self.send_error(its.codes.pop(0) if its else 404)
                return
            begun = int(asked.removeprefix("bytes=").rstrip("-")) if asked and its.ranges else 0
            if asked and self.headers.get("If-Range", its.etag) != its.etag:
                begun = 0
            if begun and begun >= len(its.content):
                self.send_error(416)
                return
            body = its.content[begun:]
            self.send_response(206 if begun else 200)
            self.send_header("Content-Length", str(len(body)))
            if begun:
                self.send_header("Content-Range", f"bytes {begun}-{len(its.content) - 1}/{len(its.content)}")
            if its.etag:
                self.send_header("ETag", its.etag)
            self.end_headers()
            if its.cuts:
                self.wfile.write(body[: its.cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return
            with suppress(ConnectionError):  # the other side has enough
                self.wfile.write(body)

        def log_message(self, *ignored: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def zipped(files: dict[str, str | bytes]) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()
