"""The server as a deployment of Ray Serve: the same routes, answers and refusals, from several replicas."""

from __future__ import annotations

import builtins
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving_bundles import bundle_of, variety
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.errors import BundleError, ConfigError
from trimtab.loading import load
from trimtab.serving import on_ray
from trimtab.serving.on_ray import Replica, Scaling, run_on_ray
from trimtab.serving.settings import Settings
from trimtab.storage import Bundle, write_bundle


def test_replicas_are_a_number_or_a_range() -> None:
    actor = {"ray_actor_options": {"num_cpus": 2.0, "num_gpus": 0.0}}
    assert Scaling.read("3", cpus=2.0).options == {"num_replicas": 3, **actor}
    ranged = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8.0}
    assert Scaling.read("1-4", target=8.0, cpus=2.0).options == {"autoscaling_config": ranged, **actor}
    for said in ("0", "4-1", "0-3", "many", "-2", "1-", "1-2-3", "99999"):
        with refused(ConfigError, f"got {said!r}", where="--replicas", fix="--replicas 1-4"):
            Scaling.read(said)


@pytest.fixture
def shelf(tmp_path: Path, causal: Backbone) -> dict[str, Path]:
    """Bundles of one backbone."""
    for name in ("short", "head", "writer"):
        write_bundle(tmp_path / name, variety(causal)[name])
    return {name: tmp_path / name for name in ("short", "head", "writer")}


def test_uploads_to_several_replicas_and_nothing_to_serve_are_refused(shelf: dict[str, Path]) -> None:
    open_ = Settings(token="x" * 16)
    with refused(ConfigError, "would reach one of up to 3 replicas", where="--uploads", fix="--replicas 1"):
        run_on_ray(Replica(shelf, open_), Scaling(1, 3))
    on_ray._check(Replica(shelf, open_), Scaling(1, 1))
    with refused(ConfigError, "nothing to serve", where="trimtab serve", fix="--backbone"):
        run_on_ray(Replica({}, Settings()), Scaling())


def test_a_bundle_that_no_replica_could_serve_is_told_before_one_tries(
    shelf: dict[str, Path], tmp_path: Path, causal: Backbone
) -> None:
    good = bundle_of(causal)
    other = {**good.metadata, "backbone": {**good.metadata["backbone"], "fingerprint": "0" * 64}}
    write_bundle(tmp_path / "z", Bundle(other, good.tensors))
    with refused(BundleError, "another backbone", where="the bundle 'z'", fix="one backbone at a time"):
        run_on_ray(Replica({**shelf, "z": tmp_path / "z"}, Settings()), Scaling())
    options = {**good.metadata["backbone"]["options"], "embed_twice": True}
    write_bundle(
        tmp_path / "z",
        Bundle({**good.metadata, "backbone": {**good.metadata["backbone"], "options": options}}, good.tensors),
    )
    with refused(BundleError, "another backbone.embed_twice", where="the bundle 'z'", fix="one backbone at a time"):
        run_on_ray(Replica({**shelf, "z": tmp_path / "z"}, Settings()), Scaling())
    (tmp_path / "z" / "bundle.json").write_text("{")
    with pytest.raises(BundleError):
        run_on_ray(Replica({"z": tmp_path / "z"}, Settings()), Scaling())


def test_a_port_that_is_taken_is_told_before_a_cluster_is_started(shelf: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with refused(ConfigError, f"cannot listen at 127.0.0.1:{port}", where="--port", fix="--port 0"):
            run_on_ray(Replica(shelf, Settings(port=port)), Scaling())
    assert on_ray._free_port(Settings(port=0)) > 0


def test_replicas_that_the_cluster_has_no_room_for_are_refused() -> None:
    on_ray._check_room(Scaling(2, 9, cpus=1.0), {"CPU": 2.0})
    with refused(
        ConfigError, "3 replicas ask for 3 CPUs, and the whole cluster has 2", where="--replicas", fix="-cpus"
    ):
        on_ray._check_room(Scaling(3, 3), {"CPU": 2.0})
    with refused(ConfigError, "ask for 1 GPUs, and the whole cluster has 0", where="--replicas", fix="--replica-gpus"):
        on_ray._check_room(Scaling(gpus=0.5, fewest=2, most=2), {"CPU": 8.0})


def test_without_the_extra_the_error_says_what_to_install(
    shelf: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return honest(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(ConfigError, "Ray Serve is not installed", where="--on ray", fix="trimtab[serve-ray]"):
        run_on_ray(Replica(shelf, Settings()), Scaling())


@pytest.fixture
def deployed(shelf: dict[str, Path]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command with two replicas, and its address."""
    command = [sys.executable, "-m", "trimtab", "serve", *map(str, shelf.values()), "--on", "ray", "--replicas", "2",
               "--replica-cpus", "0.5", "--port", "0", "--device", "cpu", "--max-body-kb", "20"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if url := re.search(r"3 bundles on Ray: (http://127\.0\.0\.1:\d+)", line):
                yield url[1], process
                break
        else:
            pytest.fail("".join(said))
    finally:
        process.kill()
        process.stderr.close()


@pytest.mark.slow
def test_replicas_answer_as_each_prompt_does_alone_and_refuse_alike(
    deployed: tuple[str, subprocess.Popen[str]], shelf: dict[str, Path], causal: Backbone
) -> None:
    url, process = deployed
    texts = ["the film", "a cat in the sea", "no"]
    for name in ("short", "head"):
        alone = [load(shelf[name], backbone=causal)(text).scores for text in texts]
        for _ in range(4):
            got = requests.post(f"{url}/classify", json={"task": name, "inputs": texts}, timeout=60).json()
            for its, right in zip(got["predictions"], alone, strict=True):
                assert its["scores"] == pytest.approx(right, abs=1e-5)
    right = load(shelf["writer"], backbone=causal)("the film").text
    body = {"model": "writer", "prompt": "the film", "stream": True}
    lines = requests.post(f"{url}/v1/completions", json=body, timeout=60).text.splitlines()
    pieces = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == right
    assert lines[-2] == "data: [DONE]"
    refusals = {
        400: requests.post(f"{url}/classify", data="{", headers={"Content-Type": "application/json"}, timeout=60),
        403: requests.put(f"{url}/bundles/x", data=b"zip", timeout=60),
        404: requests.post(f"{url}/tasks/shrt", json={"inputs": ["x"]}, timeout=60),
        413: requests.post(f"{url}/classify", data="x" * 30_000, timeout=60),
        422: requests.post(f"{url}/tasks/short", json={"inputs": [1]}, timeout=60),
    }
    for code, answer in refusals.items():
        assert (answer.status_code, answer.json()["error"]["code"]) == (code, code)
    assert "Did you mean 'short'?" in refusals[404].json()["error"]["fix"]
    for path in ("/", "/docs", "/openapi.json", "/tasks", "/v1/models", "/healthz", "/metrics"):
        assert requests.get(url + path, timeout=60).ok, path
    with requests.post(f"{url}/v1/completions", json=body | {"max_tokens": 20}, stream=True, timeout=60) as leaving:
        next(leaving.iter_lines())
    assert requests.get(f"{url}/healthz", timeout=60).json()["status"] == "ok"
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/healthz", timeout=5)
