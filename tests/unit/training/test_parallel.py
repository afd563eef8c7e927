"""Two processes train as one: gradients, losses, run folders; whoever fails, all end, and nobody waits forever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore

from tests.tiny import save_tiny_model
from tests.unit.refusals import refused
from tests.unit.training.parallel_scenarios import CASES, killed, outcome, pack_of, train, watched, write_data
from trimtab.backbones import Backbone
from trimtab.errors import TrimtabError
from trimtab.training import parallel
from trimtab.training.parallel import ALONE, Processes, joined
from trimtab.training.resume import FILE
from trimtab.training.runs import run_pack

ROOT = Path(__file__).parents[3]


def close(found: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Equal plain data, numbers to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            close(found[key], expected[key], rtol, atol)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other, rtol, atol)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rtol, abs=atol)
    else:
        assert found == expected


def same_steps(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Gradients and losses of every step, to rtol 1e-5."""
    assert len(found["gradients"]) == len(expected["gradients"]) == 20
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5)
    for gradient, wanted in zip(found["gradients"], expected["gradients"], strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max()))


def launch(rank: int, port: int, folder: Path) -> subprocess.Popen[str]:
    """One of two processes, as torchrun starts it."""
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    given |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0, "OMP_NUM_THREADS": 1}
    given |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.unit.training.parallel_scenarios", str(folder)]
    environment = {**os.environ, **{k: str(v) for k, v in given.items()}}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Path:
    """Where two processes went through all scenarios."""
    folder = tmp_path_factory.mktemp("parallel")
    save_tiny_model(folder / "model")
    write_data(folder / "data")
    killed(folder / "data", folder / "killed alone", backbone, ALONE)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's, it outlives every group
    with ExitStack() as held:
        processes = [held.enter_context(launch(rank, store.port, folder)) for rank in range(2)]
        held.callback(lambda: [process.kill() for process in processes])
        errors = [process.communicate(timeout=300)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each process saw."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(folder: Path, backbone: Backbone) -> dict[str, Any]:
    """The same in one process."""
    return {c: train(folder / "data", folder / "alone" / c, backbone, c, watched(ALONE)) for c in CASES}


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_equal_one(case: str, found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for process in found:
        assert process["size"] == 2
        same_steps(process[case]["seen"], alone[case]["seen"])
    for together, single in zip(found[0][case]["outcome"], alone[case]["outcome"], strict=True):
        assert together["best_step"] == single["best_step"]
        assert together["metrics"]["test"] == single["metrics"]["test"]
        close(together, single, rtol=1e-4, atol=1e-5)
    assert found[0][case] == found[1][case], "all processes return the same"


def test_gradients_that_are_not_summed_are_found(found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    broken, expected = found[0]["not summed"], alone["pack with noise"]["seen"]
    assert len(broken["gradients"]) == 4, "the first evaluation after the first step notices"
    for sort in ("gradients", "losses"):
        with pytest.raises(AssertionError):
            same_steps({**expected, sort: broken[sort] + expected[sort][4:]}, expected)


@pytest.mark.parametrize("how", ["killed together", "killed alone"])
def test_two_processes_continue_what_was_killed(how: str, found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    close(found[0][how], alone["pack with noise"]["outcome"], rtol=1e-4, atol=1e-5)
    if how == "killed together":
        assert found[0][how] == found[0]["pack with noise"]["outcome"], "the same processes give the same bits"


def test_one_process_continues_what_two_began(folder: Path, backbone: Backbone, alone: dict[str, Any]) -> None:
    runs = folder / "continued alone"
    assert list(runs.rglob(FILE)), "there is a checkpoint"
    steps: list[int] = []
    pack = pack_of(folder / "data", backbone, "pack with noise")
    records = run_pack(pack, runs, report=lambda e: steps.append(e["step"]) if e["event"] == "step" else None)
    assert steps[0] == 13
    close(outcome(records), alone["pack with noise"]["outcome"], rtol=1e-4, atol=1e-5)


MESSAGES = {
    "locked": ("BusyError", "another process is training this run", "Wait for it"),
    "different runs": ("ConfigError", "the processes have prepared different runs", "same recipe, data, model"),
    "dropout": ("ConfigError", "backbone dropout needs a single process, got 2", "Start without torchrun"),
    "one of them": ("TrimtabError", "not here", "Go"),
    "scoring": ("TrimtabError", "not here", "Go"),
    "parameters": ("TrimtabError", "process 1 holds other parameters than process 0", "same hardware"),
    "sums": ("TrimtabError", "process 1 holds other parameters than process 0", "continues from the last evaluation"),
}


@pytest.mark.parametrize("name", list(MESSAGES))
def test_what_one_refuses_all_refuse(name: str, found: list[dict[str, Any]]) -> None:
    kind, what, fix = MESSAGES[name]
    for process in found:
        got = process["refusals"][name]
        assert got[0] == kind, got
        assert what in got[1]
        assert fix in got[3]
    assert found[0]["refusals"][name] == found[1]["refusals"][name]


def test_a_refused_training_begins_no_run(found: list[dict[str, Any]]) -> None:
    assert found[0]["refusals"]["statuses"] == [None, None]


def test_a_process_that_vanishes_is_missed(found: list[dict[str, Any]]) -> None:
    kind, what, _, fix = found[0]["refusals"]["lost"]
    assert kind == "TrimtabError"
    assert "another process of this training ended or cannot be reached" in what
    assert "continues from the last evaluation" in fix


def test_shares_are_disjoint_complete_and_balanced() -> None:
    costs = [3, 9, 4, 1, 7, 7, 2]
    shares = [Processes(rank, 3).share(range(7), costs) for rank in range(3)]
    assert shares == [[1, 2, 3], [4, 0], [5, 6]]
    assert ALONE.share(range(7), costs) == list(range(7)), "one process keeps the order"
    assert [Processes(rank, 3).share(["a"], [5]) for rank in range(3)] == [["a"], [], []]


def test_alone_there_is_nobody_to_wait_for() -> None:
    with joined() as processes:
        assert processes is ALONE
    total = torch.ones(2)
    processes.sum_(total)
    assert total.tolist() == [1, 1]
    assert processes.merged([3, 1, 2], [3, 1, 2], lambda items: [10 * i for i in items]) == [30, 10, 20]
    assert processes.on_main(lambda: 5) == 5
    with refused(TrimtabError, "no.", fix=None):
        processes.together(lambda: (_ for _ in ()).throw(TrimtabError("no.")))


@pytest.mark.parametrize("given", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "many", "RANK": "0"}])
def test_processes_that_cannot_be_connected_are_refused(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    where = f"WORLD_SIZE={given['WORLD_SIZE']}"
    with refused(TrimtabError, "cannot be connected", where=where, fix="torchrun --nproc-per-node"), joined():
        pass


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Processes(1, 2, local_rank=1)
    assert second.take_device("auto") == "auto" or torch.cuda.is_available()
    monkeypatch.setattr(parallel.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(parallel.torch.cuda, "device_count", lambda: 2)
    taken: list[int] = []
    monkeypatch.setattr(parallel.torch.cuda, "set_device", taken.append)
    assert [second.take_device(asked) for asked in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert taken == [1, 1]
    assert ALONE.take_device("cuda:1") == "cuda:1"
    with refused(TrimtabError, "2 processes cannot share cuda:1", where="device", fix="--device cuda"):
        second.take_device("cuda:1")
    monkeypatch.setattr(parallel.torch.cuda, "device_count", lambda: 1)
    with refused(TrimtabError, "needs a GPU of its own, there are 1", where="device", fix="fewer processes"):
        second.take_device("auto")
