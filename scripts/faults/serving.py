"""Faults while a server answers: what it says is right, what it cannot do it tells, and it comes back as it was.

A case starts `trimtab serve` on a trained run, asks for scores, uploads a bundle, asks that one too, and removes it.
Faults of the disk strike at a call that writes, in the upload; signals come from outside, at a moment of the talk.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import looked_over
from commands import SECONDS, Reference, begun, carried_out, ended_with
from folders import snapshot
from injection import KILL, TERM
from scenarios import RUN, Scenario

SERVE = Scenario("serve", "serve", "serve runs/{run} --port 0 --device cpu --uploads --log-level error", (RUN,))
TOKEN = "a token for this test alone"
ROUNDS = 2
_TEXTS = ("good film 1", "bad film 2", "a film")
_ALIVE = {0, -signal.SIGTERM, 128 + signal.SIGTERM}


@dataclass
class Talk:
    """What was asked, and what came of it: question -> status and content; None where nobody answered."""

    answers: list[tuple[str, int | None, Any]]

    def scores(self, status: int = 200) -> dict[str, Any]:
        """Question -> answer."""
        return {asked: its for asked, code, its in self.answers if code == status and asked.startswith("ask")}


def talked(url: str, archive: bytes, own: str) -> Talk:
    """Ask, upload, ask what was uploaded, remove it."""
    talk = Talk([])
    for _ in range(ROUNDS):
        for method, path, body in (
            ("ask", own, None), ("PUT", "/bundles/up", archive), ("ask", "up", None), ("DELETE", "/bundles/up", b""),
            ("ask", own, None),
        ):  # fmt: skip
            if method == "ask":
                given = json.dumps({"task": path, "inputs": list(_TEXTS)}).encode()
                status, said = _sent("POST", f"{url}/classify", given, "application/json")
                talk.answers.append((f"ask {'own' if path == own else path}", status, said))
            else:
                talk.answers.append((method, *_sent(method, url + path, body, "application/zip")))
    return talk


def _sent(method: str, url: str, body: bytes | None, kind: str) -> tuple[int | None, Any]:
    head = {"Content-Type": kind, "Authorization": f"Bearer {TOKEN}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, head, method=method), timeout=30) as answer:
            status, said = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, said = error.code, error.read()
    except OSError:
        return None, None
    try:
        found = json.loads(said) if said else None
    except ValueError:
        return status, "no JSON"
    return status, found["predictions"] if status == 200 and "predictions" in (found or {}) else found


def archived(run: Path) -> bytes:
    """The bundle of a run as it is uploaded."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("bundle.json", "prompt.safetensors"):
            archive.write(run / name, name)
    return out.getvalue()


def address(folder: Path) -> str:
    """Where the server listens."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        said = (folder.with_name(f"{folder.name}-notes") / "said").read_text()
        if found := re.search(r"http://127\.0\.0\.1:\d+", said):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"the server does not begin: {said}")


def served(folder: Path, fault: str | None = None, at: int = 0) -> tuple[Talk, int | None, list[str]]:
    """One server from its start to its end: the talk, its exit code, and its calls that write."""
    os.environ["TRIMTAB_TOKEN"] = TOKEN
    signals = {KILL: signal.SIGKILL, TERM: signal.SIGTERM}
    child = begun(SERVE.command, folder, None if fault in signals else fault, at)
    url, (run,) = address(folder), (folder / "runs").iterdir()
    if fault in signals:
        late = threading.Timer(random.Random(at).uniform(0.0, 0.5), os.kill, (child, signals[fault]))
        late.start()
    talk = talked(url, archived(run), run.name)
    if fault in signals:
        late.join()
    else:
        os.kill(child, signal.SIGTERM)
    ended = ended_with(child, folder)
    return talk, ended.code, ended.calls


def tried_serving(reference: Reference, right: Talk, fault: str, at: int, folder: Path) -> tuple[str, list[str]]:
    """One case: how the server has ended, and what was found wrong."""
    shutil.copytree(reference.start, folder)
    talk, code, _ = served(folder, fault, at)
    found = looked_over(folder, reference)
    if code not in ({-signal.SIGKILL} if fault == KILL else _ALIVE):
        found.append(f"the server ended with {code}")
    expected = right.scores()
    found += [f"{asked}: {its}" for asked, its in talk.scores().items() if its != expected[asked]]
    for asked, status, said in talk.answers:
        is_told = isinstance(said, dict) and "error" in said
        if status is None and fault not in (KILL, TERM):
            found.append(f"{asked}: nobody answered")
        elif status is not None and status >= 400 and (not is_told or status == 500):
            found.append(f"{asked}: {status} without a word: {said}")
        elif asked == "ask own" and status not in (200, None, 503):
            found.append(f"{asked}: {status} {said}")
    after, code, _ = served(folder)
    if after.answers != right.answers or code not in _ALIVE:
        found.append(f"started again, it answers otherwise, or ended with {code}")
    if snapshot(folder) != reference.old:
        found.append("its folder has changed")
    refused = any(status is not None and status >= 400 for _, status, _ in talk.answers)
    return "stopped" if fault in (KILL, TERM) else "told" if refused else "went on", found


def referenced_serving(inputs: Path, scratch: Path) -> tuple[Reference, Talk]:
    """A server undisturbed."""
    start = scratch / "start"
    shutil.copytree(inputs, start)
    assert carried_out(RUN, start).code == 0
    shutil.copytree(start, scratch / "case")
    talk, code, calls = served(scratch / "case")
    assert code in _ALIVE, f"the server ended with {code}"
    assert all(status is not None and status < 300 for _, status, _ in talk.answers), talk.answers
    known = snapshot(start)
    return Reference(start, known, known, calls), talk
