"""From bundles on disk to a server that runs: names, options, and what is refused before a port is opened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving_bundles import bundle_of, variety
from tests.unit.refusals import refused
from tests.unit.serving.conftest import bearer, zipped
from trimtab.backbones import Backbone
from trimtab.errors import BundleError, ConfigError
from trimtab.loading import load
from trimtab.serving.server import check_options, found_bundles, is_loopback, open_service
from trimtab.serving.settings import Settings
from trimtab.storage import Bundle, read_bundle, write_bundle


@pytest.fixture
def shelf(tmp_path: Path, causal: Backbone) -> Path:
    """A folder of three bundles, and one elsewhere with a name that is taken."""
    for i, name in enumerate(("a", "b", "c")):
        write_bundle(tmp_path / "runs" / name, bundle_of(causal, seed=i))
    write_bundle(tmp_path / "other" / "a", bundle_of(causal, seed=9))
    return tmp_path


def test_bundles_are_called_as_their_folders_or_as_somebody_says(shelf: Path) -> None:
    runs = shelf / "runs"
    assert found_bundles([str(runs)], shelf) == {n: runs / n for n in "abc"}
    assert found_bundles([str(runs / "a"), f"x={runs / 'b'}"], shelf) == {"a": runs / "a", "x": runs / "b"}
    assert found_bundles([str(runs / "a"), str(runs)], shelf).keys() == {"a", "b", "c"}, "the same one twice is one"
    assert found_bundles([], shelf) == {}


def test_two_bundles_of_one_name_and_a_folder_without_any_are_refused(shelf: Path) -> None:
    with refused(ConfigError, "two bundles are called 'a'", where=str(shelf / "other" / "a"), fix="NAME=PATH"):
        found_bundles([str(shelf / "runs"), str(shelf / "other" / "a")], shelf)
    (shelf / "empty").mkdir()
    with refused(BundleError, "there is no bundle here", where=str(shelf / "empty"), fix="bundle.json"):
        found_bundles([str(shelf / "empty")], shelf)


def test_a_service_needs_a_backbone(shelf: Path, causal: Backbone) -> None:
    with refused(ConfigError, "there is nothing to serve", where="trimtab serve", fix="--backbone"):
        open_service({}, Settings())
    service = open_service({}, Settings(), backbone=causal.name, device="cpu", dtype="float32")
    assert (service.name, len(service.catalog)) == ("tiny-llama", 0)
    service.close(2.0)


def test_a_bundle_of_another_backbone_stops_the_start_with_its_place(shelf: Path, masked: Any) -> None:
    write_bundle(shelf / "runs" / "z", bundle_of(masked.service.backbone))
    with refused(BundleError, "trained on another backbone", where="the bundle 'z'", fix="Use the backbone"):
        open_service(found_bundles([str(shelf / "runs")], shelf), Settings(), device="cpu")


def test_each_of_several_tasks_is_served_and_answers_as_it_does_alone(tmp_path: Path, causal: Backbone) -> None:
    one, head = variety(causal)["long"], variety(causal)["head"]
    tasks = [{"name": name, "metric": "accuracy", "task": b.metadata["task"], "readout": b.metadata["readout"]}
             for name, b in (("a/b", one), ("c", head))]  # fmt: skip
    tensors = {"inputs": head.prompt, "head.1.weight": head.tensors["head.weight"],
               "head.1.bias": head.tensors["head.bias"]}  # fmt: skip
    stated = {name: list(v.shape) for name, v in tensors.items() if name != "inputs"}
    rest = {k: v for k, v in one.metadata.items() if k not in ("task", "readout")}
    prompt = {**rest["prompt"], "shape": list(head.prompt.shape), "tensors": stated}
    write_bundle(tmp_path / "both", Bundle({**rest, "prompt": prompt, "tasks": tasks}, tensors))
    service = open_service(found_bundles([str(tmp_path / "both")], tmp_path), Settings(), device="cpu")
    assert service.catalog.names == ["both.a-b", "both.c"]
    for served, task in (("both.a-b", "a/b"), ("both.c", "c")):
        expected = load(tmp_path / "both", backbone=causal, task=task)("the film")
        got = service.ask(served, ["the film"]).records(30.0)[0]
        assert got.scores == pytest.approx(expected.scores, abs=1e-5)  # type: ignore[union-attr]
    with refused(BundleError, "is of several tasks: a/b, c", where="x", fix="trimtab take"):
        service.add("x", read_bundle(tmp_path / "both"), "x")
    service.close(2.0)


def test_uploads_need_a_token_that_is_not_guessed() -> None:
    options = {"uploads": True, "dtype": None, "log_level": "info"}
    for token in (None, "", "short"):
        with refused(ConfigError, "a token of at least 16", where="TRIMTAB_TOKEN", fix="openssl rand"):
            check_options(Settings(token=token), **options)  # type: ignore[arg-type]
    check_options(Settings(token="x" * 16), **options)  # type: ignore[arg-type]
    with refused(ConfigError, "there is no 'flaot32'", where="--dtype", fix="Did you mean 'float32'?"):
        check_options(Settings(), uploads=False, dtype="flaot32", log_level="info")
    with refused(ConfigError, "there is no 'loud'", where="--log-level", fix="Known"):
        check_options(Settings(), uploads=False, dtype=None, log_level="loud")
    assert "secret" not in repr(Settings(token="secret"))


def test_the_default_address_is_this_machine_alone() -> None:
    assert is_loopback(Settings().host)
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.0.2.1", "example.org")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def test_the_command_serves_until_it_is_told_to_stop(shelf: Path, causal: Backbone) -> None:
    command = [
        sys.executable,
        "-m",
        "trimtab",
        "serve",
        str(shelf / "runs"),
        "--port",
        "0",
        "--device",
        "cpu",
        "--uploads",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(TRIMTAB_TOKEN="t" * 20))
    assert process.stderr is not None
    said = list[str]()
    try:
        until = time.monotonic() + 90
        while not said or not said[-1].startswith("3 prompts on "):
            assert time.monotonic() < until, said
            line = process.stderr.readline()
            assert line, said
            said.append(line.strip())
        url = re.search(r"http://127\.0\.0\.1:\d+", said[-1])
        assert url is not None
        got = requests.post(f"{url[0]}/classify", json={"task": "b", "inputs": ["the film"]}, timeout=30).json()
        expected = load(shelf / "runs" / "b", backbone=causal)("the film")
        assert got["predictions"][0]["scores"] == pytest.approx(expected.scores, abs=1e-5)
        archive, place = zipped(bundle_of(causal, seed=7)), f"{url[0]}/bundles/d"
        assert requests.put(place, data=archive, headers=bearer("t" * 20), timeout=30).status_code == 201
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read().splitlines()
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.stderr.close()
    events = [json.loads(line) for line in said if line.startswith("{")]
    names = [e["event"] for e in events]
    assert {"listening", "request", "prompt added"} <= set(names)
    asked = next(e for e in events if e["event"] == "request")
    assert (asked["path"], asked["status"], asked["task"]) == ("/classify", 200, "b")


def test_a_port_that_is_taken_is_told(shelf: Path, running: Any) -> None:
    port = running.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "trimtab", "serve", str(shelf / "runs" / "a"), "--port", port, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), check=False)
    assert done.returncode == 2, done.stderr
    assert f"the server cannot listen at 127.0.0.1:{port}" in done.stderr


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['fastapi'] = None\nfrom trimtab.cli import main\nmain(['serve', 'x'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment(), check=False
    )
    assert done.returncode == 2, done.stderr
    assert "FastAPI is not installed" in done.stderr
    assert "pip install 'trimtab[serve]'" in done.stderr
