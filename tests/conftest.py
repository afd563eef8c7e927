"""Every test runs offline, with shapes checked at run time, on tiny models built from config."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models; workers side by side must not fight for cores

from jaxtyping import install_import_hook

_HOOK = install_import_hook("trimtab", "beartype.beartype")

from tests.tiny import save_tiny_model, tiny_backbone

SHARED = Path(os.environ.get("TRIMTAB_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets outside loopback raise."""
    connect, resolve, loopback = socket.socket.connect, socket.getaddrinfo, ("127.0.0.1", "::1", "localhost")

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in loopback:
            raise OSError(f"network access in a test: {address}")
        connect(self, address)

    def resolved(host: object, *arguments: Any, **options: Any) -> Any:
        if host not in loopback:
            raise OSError(f"network access in a test: {host}")
        return resolve(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random BERT masked LM and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    save_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(tiny_folder: Path):
    """The tiny BERT, loaded and frozen, float32 on the CPU."""
    return tiny_backbone(tiny_folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the repository; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data folder {SHARED.name}/ beside the repository (or TRIMTAB_SHARED)")
    return SHARED
