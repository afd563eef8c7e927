"""The client as a program of its own: it needs no trimtab, reads checkpoints in parts, and asks a server."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.unit.exporting.conftest import RunOf
from trimtab.exporting import Source, export
from trimtab.exporting.vllm_client import SoftPrompt, main


class Server(HTTPServer):
    """Answers with the number of vectors it was sent, and keeps the bodies."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.bodies: list[tuple[str, dict[str, Any]]] = []


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Server)
        self.server.bodies.append((self.path, body))
        data = base64.b64decode(body["prompt_embeds"])
        count = len(torch.load(io.BytesIO(data), weights_only=True))
        answer = json.dumps({"choices": [{"text": f"{count} vectors"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    thread.join(5)
    found.server_close()


@pytest.fixture
def exported(run_of: RunOf, tmp_path: Path) -> tuple[Path, Path]:
    """The folder of the model, and that of the export."""
    source = Source.read(run_of("llama"))
    export([source], "vllm", tmp_path / "out")
    return Path(source.bundle.metadata["backbone"]["model"]), tmp_path / "out"


def test_it_asks_a_server(exported: tuple[Path, Path], server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = exported
    url = f"http://127.0.0.1:{server.server_port}/"
    code = (folder / "client.py").read_text()
    assert "import trimtab" not in code
    assert "from trimtab" not in code
    command = [sys.executable, "client.py", str(model), url, "text=a dog", "--max-tokens", "3", "--served", "mine"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    path, body = server.bodies[0]
    assert path == "/v1/completions"
    assert (body["model"], body["max_tokens"]) == ("mine", 3)
    assert done.stdout == "7 vectors\n", "BOS, four virtual tokens, two words"


def test_main_in_this_process(
    exported: tuple[Path, Path], server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = exported
    monkeypatch.setattr("trimtab.exporting.vllm_client.__file__", str(folder / "client.py"))
    main([str(model), f"http://127.0.0.1:{server.server_port}", "text=a dog=b"])
    assert capsys.readouterr().out.endswith("vectors\n")
    assert server.bodies[0][1]["model"] == str(model)
    with pytest.raises(ValueError, match="not inside a chat: use completion"):
        main([str(model), "http://127.0.0.1:1", "text=a", "--chat"])


def test_special_tokens_in_a_field_are_refused(exported: tuple[Path, Path]) -> None:
    model, folder = exported
    with pytest.raises(ValueError, match="the field 'text' holds the special token '</s>'"):
        SoftPrompt(model, folder).completion(text="a</s>b")


def test_a_checkpoint_in_parts(exported: tuple[Path, Path], tmp_path: Path) -> None:
    model, folder = exported
    parts = tmp_path / "parts"
    transformers.AutoModelForCausalLM.from_pretrained(model).save_pretrained(parts, max_shard_size="20KB")
    (parts / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    assert (parts / "model.safetensors.index.json").exists()
    wanted = SoftPrompt(model, folder).embeds(text="the old cat")
    assert torch.equal(SoftPrompt(parts, folder).embeds(text=" the old cat "), wanted)


def test_an_empty_rest_has_no_rows(exported: tuple[Path, Path]) -> None:
    model, folder = exported
    client = SoftPrompt(model, folder)
    client.about["text"] = "{text}"
    assert client.embeds(text="").shape == (5, 32)
