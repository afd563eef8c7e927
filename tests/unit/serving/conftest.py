"""A server on the loopback in a thread, for tests that speak HTTP with it."""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from safetensors.numpy import save

from tests.contract import tiny_families
from tests.serving_bundles import bundle_of, variety
from tests.tiny import tiny_backbone
from trimtab.backbones import Backbone
from trimtab.serving.engine import Pace
from trimtab.serving.http import application
from trimtab.serving.service import Limits, Service
from trimtab.serving.settings import Settings
from trimtab.storage import Bundle

TOKEN = "a token of the tests, not a secret"
SMALL = Settings(
    port=0, token=TOKEN, body_bytes=20_000, bundle_bytes=200_000, in_flight=8, body_seconds=2.0, drain_seconds=5.0,
    pace=Pace(latency=0.002), limits=Limits(inputs=16, rows=64),
)  # fmt: skip


@dataclass
class Running:
    """A server that runs, and what is asked of it."""

    url: str
    service: Service
    server: Any

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=30, **options)

    def put(self, name: str, archive: bytes, token: str | None = TOKEN) -> requests.Response:
        return requests.put(f"{self.url}/bundles/{name}", data=archive, headers=bearer(token), timeout=30)

    def delete(self, name: str, token: str | None = TOKEN) -> requests.Response:
        return requests.delete(f"{self.url}/bundles/{name}", headers=bearer(token), timeout=30)


def bearer(token: str | None) -> dict[str, str]:
    return {"Content-Type": "application/zip"} | ({} if token is None else {"Authorization": f"Bearer {token}"})


def zipped(bundle: Bundle, folder: str = "") -> bytes:
    """A bundle as it is uploaded."""
    return packed({
        f"{folder}bundle.json": json.dumps(dict(bundle.metadata)).encode(),
        f"{folder}prompt.safetensors": save(dict(bundle.tensors)),
    })  # fmt: skip


def packed(files: dict[str, bytes]) -> bytes:
    """Files in a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def start(service: Service, settings: Settings) -> tuple[Running, Callable[[], None]]:
    """Run a server; the second stops it."""
    config = uvicorn.Config(application(service, settings), host="127.0.0.1", port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def stop() -> None:
        server.should_exit = True
        thread.join(20)

    return Running(f"http://127.0.0.1:{port}", service, server), stop


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny Llama."""
    return tiny_backbone(tiny_families.llama(tmp_path_factory.mktemp("causal") / "tiny-llama"))


def served(backbone: Backbone, names: tuple[str, ...]) -> Service:
    """A service of some of the varied prompts."""
    service, all_ = Service(backbone, SMALL.pace, SMALL.limits), variety(backbone)
    for name in names:
        service.add(name, all_[name])
    return service


@pytest.fixture(scope="module")
def running(causal: Backbone) -> Iterator[Running]:
    """A server of a causal model with a few prompts."""
    found, stop = start(served(causal, ("short", "long", "pair", "deep", "head", "writer", "tags")), SMALL)
    yield found
    stop()


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of a masked model."""
    from tests.tiny import save_tiny_model

    backbone = tiny_backbone(save_tiny_model(tmp_path_factory.mktemp("masked") / "tiny-bert"))
    found, stop = start(served(backbone, ("short", "long", "pair", "deep", "head")), SMALL)
    yield found
    stop()


def other_backbone(folder: Path) -> Bundle:
    """A bundle of another model."""
    return bundle_of(tiny_backbone(tiny_families.gpt2(folder)))
