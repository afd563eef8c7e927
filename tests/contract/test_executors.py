"""Executors: the same study gives the same runs in this process, in several, and on a Ray cluster that loses a node."""

from __future__ import annotations

import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_trackers import event_points
from tests.contract.toy_studies import carried_out, outcome, toy_study
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.studies.driver import Course, Driver, executor_of
from trimtab.studies.executors.local import Local
from trimtab.studies.executors.ray import Ray
from trimtab.studies.folder import StudyFolder
from trimtab.studies.work import Job

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("undisturbed")
    study = toy_study(place, tiny_folder, pack={"most": 2})
    return {"study": study, "outcome": outcome(carried_out(study, place / "study"))}


def test_one_process_makes_the_same_runs(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    folder, events = StudyFolder(tmp_path / "study"), list[Any]()
    with Local("cpu", report=events.append) as executor:
        assert executor.slots == 1
        Driver(undisturbed["study"], folder, executor).run()
    assert outcome(folder) == undisturbed["outcome"]
    assert {e["key"] for e in events if e["event"] == "evaluation"} == set(undisturbed["outcome"])


BOARDS = Course(device="cpu", trackers=({"kind": "tensorboard", "folder": None},))


def is_followed(folder: StudyFolder) -> bool:
    """Whether every run has its event files; a checked seal does not mind them."""
    pytest.importorskip("tensorboard")
    return all(event_points(run.folder / "tensorboard")[4] for run in folder.read() if run.folder is not None)


def test_two_processes_make_the_same_runs_and_their_trackers(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    with Local("cpu", workers=2) as executor:
        assert executor.slots == 2
        Driver(undisturbed["study"], folder, executor, BOARDS).run()
    assert outcome(folder) == undisturbed["outcome"]
    assert is_followed(folder)


def test_what_a_process_raises_is_raised_here(tmp_path: Path) -> None:
    job = Job(("k",), ({"nothing": 1},), str(tmp_path), str(tmp_path), None, "cpu")
    with Local("cpu", workers=2) as executor, pytest.raises(ConfigError, match="required"):
        executor.fit(job, None)


def test_each_gpu_has_a_worker_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert Local("auto").devices == ["cuda:0", "cuda:1", "cuda:2"]
    assert Local("cuda", workers=4).devices == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert Local("cpu").devices == ["cpu"]
    assert Local("cuda:1").devices == ["cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Local("auto").devices == ["auto"]


def test_what_cannot_be_executed_is_refused() -> None:
    with refused(ConfigError, "at least one worker, got 0", where="--workers"):
        Local("cpu", workers=0)
    with refused(ConfigError, "no executor 'slurm'", where="--on", fix="local or ray"):
        executor_of("slurm", Course(), lambda event: None)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr("trimtab.studies.executors.ray._check_reachable", lambda address: None)  # not on loopback

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        found.second = found.add_node(**node)
        found.wait_for_nodes()
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_a_study_on_a_cluster_survives_the_loss_of_a_node(
    undisturbed: dict[str, Any], tmp_path: Path, cluster: Any
) -> None:
    folder = StudyFolder(tmp_path / "study")
    lost: list[float] = []

    def kill_when_it_works() -> None:
        """When both nodes train, take one away."""
        while sum(1 for _ in folder.runs_dir.glob("*/run.json")) < 3 and not lost:
            time.sleep(0.05)
        lost.append(time.monotonic())
        cluster.remove_node(cluster.second, allow_graceful=False)

    with Ray(cluster.address) as executor:
        assert executor.slots == 2
        killer = threading.Thread(target=kill_when_it_works, daemon=True)
        killer.start()
        Driver(undisturbed["study"], folder, executor, BOARDS).run()
        killer.join(30)
    assert lost, "the node was taken away while the study ran"
    assert outcome(folder) == undisturbed["outcome"]
    assert is_followed(folder)
    assert len((folder.path / "ledger.jsonl").read_text().splitlines()) == len(undisturbed["outcome"]), "nothing twice"


@pytest.mark.filterwarnings("ignore")
def test_what_a_task_raises_is_raised_here_and_a_task_too_large_is_refused(tmp_path: Path, cluster: Any) -> None:
    with refused(ConfigError, "asks for 3 CPUs and 0 GPUs, and the whole cluster has 2 and 0", where="--on ray",
                 fix="pack.cpus"), Ray(cluster.address, cpus=3.0):  # fmt: skip
        pass
    with Ray(cluster.address) as executor:
        job = Job(("k",), ({"nothing": 1},), str(tmp_path), str(tmp_path), None, "cpu")
        with pytest.raises(ConfigError, match="required"):
            executor.fit(job, None)


@pytest.mark.parametrize(
    ("address", "what"),
    [("nowhere", "written host:port, got 'nowhere'"), ("127.0.0.1:{free}", "nothing answers at 127.0.0.1:{free}")],
)
def test_an_address_where_nobody_is_is_refused_at_once(address: str, what: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    with refused(ConfigError, what.format(free=port), where="--address", fix="ray start --head"), Ray(
        address.format(free=port)
    ):  # fmt: skip
        pass
    assert time.monotonic() - begun < 5


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with refused(ConfigError, "Ray is not installed", where="--on ray", fix="pip install 'trimtab[ray]'"):
        Ray()
