"""Bad input, hostile input: a clear answer in JSON, a server that stays up, other requests untouched."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from safetensors.numpy import save

from tests.serving_bundles import bundle_of, deep_parts, values
from tests.unit.serving.conftest import Running, other_backbone, packed, zipped
from trimtab.backbones import Backbone
from trimtab.serving.choosing import Choice
from trimtab.storage import Bundle


@pytest.fixture(autouse=True)
def _others_are_untouched(running: Running) -> Iterator[None]:
    """Before and after every bad request a good one has the same answer, and nothing is left waiting."""
    good = {"task": "long", "inputs": ["the film was good"]}
    before = running.post("/classify", good).json()
    yield
    assert running.post("/classify", good).json() == before
    until = time.monotonic() + 10
    while running.get("/healthz").json()["waiting"] and time.monotonic() < until:
        time.sleep(0.02)
    assert running.get("/healthz").json()["waiting"] == 0


def refused(answer: requests.Response, status: int, message: str, where: str | None = None, fix: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "where", "fix", "type", "code"}
    assert error["code"] == status
    assert message in error["message"]
    assert where is None or where in (error["where"] or "")
    assert fix in (error["fix"] or "")


# Requests


BAD: dict[str, tuple[str, Any, int, str, str]] = {
    "task": ("/tasks/shrot", {"inputs": ["x"]}, 404, "there is no prompt 'shrot'", "task"),
    "model": ("/v1/completions", {"model": "nobody", "prompt": "x"}, 404, "there is no prompt 'nobody'", "task"),
    "field": ("/tasks/pair", {"inputs": [{"a": "x"}]}, 400, "the field 'b' is missing", "input 1"),
    "fields": ("/tasks/pair", {"inputs": ["x"]}, 400, "plain text cannot fill several fields", "input 1"),
    "empty": ("/tasks/short", {"inputs": ["good", "  "]}, 400, "are empty", "2"),
    "none": ("/tasks/short", {"inputs": []}, 422, "at least 1 item", "body.inputs"),
    "many": ("/tasks/short", {"inputs": ["x"] * 17}, 413, "at most 16 inputs, got 17", "inputs"),
    "type": ("/tasks/short", {"inputs": "x"}, 422, "a valid list", "body.inputs"),
    "number": ("/tasks/short", {"inputs": [3]}, 422, "valid string", "body.inputs.0"),
    "option": ("/tasks/short", {"inputs": ["x"], "bear": True}, 422, "not permitted", "body.bear"),
    "surrogate": ("/tasks/short", {"inputs": ["\ud83d"]}, 422, "half of a surrogate pair", "body.inputs.0"),
    "text surrogate": ("/v1/completions", {"model": "writer", "prompt": "\ud83d"}, 422, "surrogate", "body.prompt"),
    "head": ("/tasks/head", {"inputs": ["x"], "bare": True}, 400, "has a head that was trained", "readout.kind"),
    "classes": ("/classify", {"task": "tags", "inputs": ["x"]}, 400, "are no classes with scores", "task"),
    "written": ("/classify", {"task": "writer", "inputs": ["x"]}, 400, "are no classes with scores", "task"),
    "no text": ("/v1/completions", {"model": "writer", "prompt": ""}, 400, "are empty", ""),
    "no slot": ("/v1/completions", {"model": "tags", "prompt": "x"}, 400, "no place where an answer is", "model"),
    "two fields": ("/v1/completions", {"model": "pair", "prompt": "x"}, 400, "reads several fields (a, b)", "model"),
    "room": ("/v1/completions", {"model": "writer", "prompt": "x", "max_tokens": 999}, 400, "positions", ""),
    "samples": ("/v1/completions", {"model": "writer", "prompt": "x", "n": 2}, 422, "1", "body.n"),
    "heat": ("/v1/completions", {"model": "writer", "prompt": "x", "temperature": 9}, 422, "less than", "temperature"),
    "streams": ("/v1/completions", {"model": "writer", "prompt": ["x", "y"], "stream": True}, 400, "one text", ""),
    "roles": ("/v1/chat/completions", {"model": "writer", "messages": [{"role": "oracle", "content": "x"}]}, 422,
              "'system', 'developer', 'user' or 'assistant'", "role"),
    "talk": ("/v1/chat/completions", {"model": "writer", "messages": [{"role": "user", "content": "x"}] * 2}, 400,
             "takes one message of the role user; got 2", "messages"),
    "chat": ("/v1/chat/completions", {"model": "tiny-llama", "messages": [{"role": "user", "content": "x"}]}, 400,
             "has no chat template", "template"),
    "route": ("/v2/completions", {}, 404, "Not Found", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_what_is_wrong(running: Running, name: str) -> None:
    path, body, status, message, where = BAD[name]
    refused(requests.post(running.url + path, json=body, timeout=30), status, message, where)


def test_a_masked_model_does_not_write_on(masked: Running) -> None:
    refused(masked.post("/v1/completions", {"model": "short", "prompt": "x"}), 400, "is no causal model", "model")


@pytest.mark.parametrize(("body", "status"), [
    (b"{", 400), (b'{"inputs": ["x"]', 400), (b"\xff\xfe", 400), (b"[1, 2]", 422), (b"null", 422), (b"", 422),
    (b'{"inputs": [' + b"[" * 5000, 400), (b'{"inputs": [NaN]}', 422),
])  # fmt: skip
def test_a_body_that_is_no_json_or_no_object(running: Running, body: bytes, status: int) -> None:
    head = {"Content-Type": "application/json"}
    answer = requests.post(running.url + "/tasks/short", data=body, headers=head, timeout=30)
    refused(answer, status, "")


def test_a_long_text_is_cut_as_alone_and_a_huge_one_is_refused(running: Running) -> None:
    long = "the film was good " * 300
    got = running.post("/classify", {"task": "long", "inputs": [long]})
    expected = running.service.catalog.get("long").prompted.predictor
    assert got.status_code == 200
    scores = got.json()["predictions"][0]["scores"]
    assert scores == pytest.approx(running.service.ask("long", [long]).records(30.0)[0].scores, abs=1e-5)
    assert set(scores) == set(expected.classes)
    refused(running.post("/classify", {"task": "long", "inputs": ["x" * 30_000]}), 413, "larger than 20,000 bytes")


def test_a_huge_body_without_a_length_is_refused_as_it_comes(running: Running) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    with pytest.MonkeyPatch.context():
        try:
            answer = requests.post(running.url + "/classify", data=parts(), timeout=30)
        except requests.ConnectionError:
            return  # refused before all was sent
    refused(answer, 413, "larger than 20,000 bytes")


def connected(running: Running) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head_of(length: int) -> bytes:
    """The head of a request by hand."""
    head = "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


def test_a_body_that_never_comes_is_not_waited_for(running: Running) -> None:
    with connected(running) as line:
        line.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        assert b"408" in line.recv(100)


def test_what_is_no_http_is_refused(running: Running) -> None:
    with connected(running) as line:
        line.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b"400" in line.recv(100)


def test_too_many_at_once_are_told_to_come_back(running: Running) -> None:
    lines = [connected(running) for _ in range(8)]
    for line in lines:
        line.sendall(head_of(50))
    time.sleep(0.3)
    answer = running.post("/classify", {"task": "long", "inputs": ["x"]})
    refused(answer, 429, "8 requests are under way", "server", "Retry-After")
    assert answer.headers["Retry-After"] == "1"
    assert running.get("/healthz").status_code == 200
    for line in lines:
        line.close()
    until = time.monotonic() + 10
    while running.post("/classify", {"task": "long", "inputs": ["x"]}).status_code == 429:
        assert time.monotonic() < until
        time.sleep(0.05)


def long_winded(running: Running) -> int:
    """A seed with which the model, which is random, does not soon come to an end."""
    for seed in range(200):
        writing, _ = running.service.write("writer", "the film", 50, Choice(1.0, seed=seed))
        if len(writing.future.result(30).ids) > 40:
            return seed
    raise AssertionError("every text is short")


def test_a_client_that_goes_in_mid_stream_frees_its_row(running: Running) -> None:
    messages = [{"role": "user", "content": "the film"}]
    body = {"model": "writer", "messages": messages, "max_tokens": 50, "stream": True}
    body |= {"temperature": 1.0, "seed": long_winded(running)}
    engine, go, steps = running.service.engine, threading.Event(), [0]
    honest = type(engine)._write_on

    def held(self: Any) -> None:
        honest(self)
        steps[0] += bool(self._drafts)
        if steps[0] == 10:
            go.wait(30)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine), "_write_on", held)
        answer = requests.post(running.url + "/v1/chat/completions", json=body, stream=True, timeout=30)
        assert answer.status_code == 200, answer.text
        pieces = answer.iter_content(20)  # who lets go of it closes the line
        next(pieces)
        until = time.monotonic() + 20
        while steps[0] < 10 and time.monotonic() < until:
            time.sleep(0.01)
        assert steps[0] == 10, steps
        (writing,) = engine._drafts[0].writings
        answer.close()
        while not writing.is_over and time.monotonic() < until:
            time.sleep(0.01)
        go.set()
        while engine.writing and time.monotonic() < until:
            time.sleep(0.01)
        assert engine.writing == 0
        assert writing.future.cancelled()
        assert len(writing.written) < 15


def test_a_client_that_does_not_wait_is_not_computed_for(running: Running) -> None:
    engine, hold = running.service.engine, threading.Event()
    engine.call(lambda: hold.wait(20))
    body = json.dumps({"task": "long", "inputs": ["the film"]}).encode()
    rows = engine.counts.rows
    with connected(running) as line:
        line.sendall(head_of(len(body)) + body)
        until = time.monotonic() + 10
        while not engine._rows and time.monotonic() < until:
            time.sleep(0.01)
        (scoring, _), = engine._rows  # fmt: skip
    while not scoring.is_over and time.monotonic() < until:
        time.sleep(0.01)
    assert scoring.is_over
    hold.set()
    engine.call(lambda: None).result(10)
    assert engine.counts.rows == rows


# Bundles


@pytest.fixture
def small(causal: Backbone) -> Bundle:
    return bundle_of(causal, seed=70)


def changed(bundle: Bundle, **parts: Any) -> Bundle:
    """A bundle with other metadata."""
    return Bundle({**bundle.metadata, **parts}, bundle.tensors)


def test_a_bundle_comes_answers_and_goes(running: Running, small: Bundle) -> None:
    added = running.put("new", zipped(small))
    assert added.status_code == 201, added.text
    assert added.json()["name"] == "new"
    assert running.post("/classify", {"task": "new", "inputs": ["x"]}).status_code == 200
    refused(running.put("new", zipped(small)), 409, "there is a prompt 'new' already", "name")
    assert running.delete("new").status_code == 204
    refused(running.delete("new"), 404, "there is no prompt 'new'")
    refused(running.post("/classify", {"task": "new", "inputs": ["x"]}), 404, "there is no prompt 'new'")
    assert running.put("new", zipped(small, "folder/")).status_code == 201
    assert running.delete("new").status_code == 204


@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer"])
def test_a_wrong_token_is_refused_before_the_body_is_read(running: Running, small: Bundle, token: str | None) -> None:
    answer = running.put("new", zipped(small), token)
    refused(answer, 401, "there is no token" if token is None else "this is not the token", "Authorization", "Bearer")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    refused(running.delete("long", token), 401, "token")
    assert running.get("/tasks/long").status_code == 200


def damaged(bundle: Bundle, causal: Backbone, tmp_path: Path) -> dict[str, tuple[bytes, int, str]]:
    """Archives that must not be taken: content, status, what is said."""
    meta, tensors = json.dumps(dict(bundle.metadata)).encode(), save(dict(bundle.tensors))
    whole = zipped(bundle)

    def with_tensors(**its: np.ndarray) -> bytes:
        stated = {n: list(v.shape) for n, v in its.items() if n != "inputs"}
        prompt = {**bundle.metadata["prompt"], "shape": list(its["inputs"].shape), "tensors": stated}
        return zipped(Bundle({**bundle.metadata, "prompt": prompt}, its))

    def with_task(**its: Any) -> bytes:
        return zipped(changed(bundle, task={**bundle.metadata["task"], **its}))

    def raw(content: bytes) -> bytes:
        return packed({"bundle.json": meta, "prompt.safetensors": content})

    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as archive:
        info = zipfile.ZipInfo("prompt.safetensors")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("bundle.json", meta)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", meta)
        archive.writestr("prompt.safetensors", bytes(50 << 20))
    header = b'{"inputs":{"dtype":"F32","shape":[9,9],"data_offsets":[0,99999999]}}'
    pickled = b"\x80\x04\x95\x12\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    inputs = values(1, 3, causal.embedding_size)
    deep = deep_parts(causal, [0, 7], 2, 5)
    weight, bias = np.full((2, causal.hidden_size), 3e38, np.float32), np.zeros(2, np.float32)
    huge, hidden = (
        bundle_of(causal, readout={"kind": "head"}, more={"head.weight": sign * weight, "head.bias": bias})
        for sign in (1, -1)
    )
    return {
        "empty": (b"", 400, "not a readable zip"),
        "noise": (b"no zip at all", 400, "not a readable zip"),
        "cut archive": (whole[:-40], 400, "not a readable zip"),
        "flipped": (whole.replace(tensors[-64:], bytes(64)), 400, "not a readable zip"),
        "only json": (packed({"bundle.json": meta}), 400, "no prompt.safetensors"),
        "more": (packed({"bundle.json": meta, "prompt.safetensors": tensors, "x.py": b""}), 400, "'x.py', too"),
        "traversal": (packed({"../bundle.json": meta, "prompt.safetensors": tensors}), 400, "leads out of it"),
        "absolute": (packed({"/etc/bundle.json": meta, "prompt.safetensors": tensors}), 400, "leads out of it"),
        "windows": (packed({"C:\\bundle.json": meta, "prompt.safetensors": tensors}), 400, "leads out of it"),
        "link": (link.getvalue(), 400, "holds a link"),
        "bomb": (bomb.getvalue(), 413, "is larger than 200,000 bytes"),
        "large": (bytes(300_000), 413, "larger than 200,000 bytes"),
        "cut tensors": (raw(tensors[:-10]), 400, "truncated or corrupted"),
        "header bomb": (raw(struct.pack("<Q", 1 << 60) + b"{}"), 400, "the header of prompt.safetensors says"),
        "header lies": (raw(struct.pack("<Q", len(header)) + header + bytes(10)), 400, "truncated or corrupted"),
        "pickle": (raw(pickled), 400, "the header of prompt.safetensors says"),
        "json bomb": (packed({"bundle.json": b"[" * 100_000, "prompt.safetensors": tensors}), 400, "not readable JSON"),
        "digits": (packed({"bundle.json": b'{"schema": ' + b"9" * 9999 + b"}", "prompt.safetensors": tensors}), 400,
                   "not readable JSON"),
        "no object": (packed({"bundle.json": b"[]", "prompt.safetensors": tensors}), 400, "a JSON object is expected"),
        "schema": (zipped(changed(bundle, schema=99)), 400, "schema 99"),
        "missing": (packed({"bundle.json": b'{"schema": 1}', "prompt.safetensors": tensors}), 400, "is missing"),
        "dtype": (with_tensors(inputs=inputs.astype(np.float64)), 400, "must be float32, got float64"),
        "integers": (with_tensors(inputs=np.ones((3, causal.embedding_size), np.int64)), 400, "must be float32"),
        "nan": (with_tensors(inputs=inputs * np.nan), 400, "not finite"),
        "huge values": (zipped(huge), 400, "not finite"),
        "huge and hidden": (zipped(hidden), 400, "not finite"),
        "width": (with_tensors(inputs=values(1, 3, 7)), 400, "must have the shape ('any', 32)"),
        "stranger": (with_tensors(inputs=inputs, weights=values(2, 3)), 400, "knows no use for"),
        "layers": (zipped(bundle_of(causal, length=0, **deep)), 400, "stand at 'self' in the layers [0, 7]"),
        "router": (with_tensors(inputs=inputs, router=values(3, 2, causal.embedding_size)), 400, "cannot share 3 rows"),
        "positions": (with_task(max_length=10**9), 400, "do not fit the 64 positions"),
        "template": (with_task(template="{prompt:999999999} {text} {answer}"), 400, "the slots sum to"),
        "words": (with_task(label_words={}), 400, ""),
        "readout": (zipped(changed(bundle, readout={"kind": "os.system"})), 400, "no readout 'os.system'"),
        "writes too much": (zipped(bundle_of(causal, words={}, task={"answer": "text"},
                                             readout={"kind": "text", "max_new_tokens": 10**9})), 400, "positions"),
        "backbone": (zipped(other_backbone(tmp_path / "gpt2")), 400, "trained on another backbone"),
    }  # fmt: skip


def test_archives_that_are_damaged_or_mean_ill_are_refused(
    running: Running, small: Bundle, causal: Backbone, tmp_path: Path
) -> None:
    for name, (content, status, message) in damaged(small, causal, tmp_path).items():
        answer = running.put("ill", content)
        assert answer.status_code == status, (name, answer.text)
        refused(answer, status, message)
        assert causal.name not in answer.text, (name, "where the model lies is nobody's business")
    assert "ill" not in running.service.catalog.names


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 101, "ä", "."])
def test_a_prompt_has_a_plain_name(running: Running, small: Bundle, name: str) -> None:
    answer = requests.put(f"{running.url}/bundles/{requests.utils.quote(name)}", data=zipped(small), timeout=30,
                          headers={"Authorization": "Bearer a token of the tests, not a secret"})  # fmt: skip
    if name == ".":
        assert answer.status_code in (404, 405)
    else:
        refused(answer, 400, "a name has letters", "name")


def test_the_name_of_the_backbone_is_taken(running: Running, small: Bundle) -> None:
    refused(running.put("tiny-llama", zipped(small)), 409, "'tiny-llama' is the backbone", "name")
