"""Resume: a killed pack goes on to the same result; one process trains a run at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.tiny_families import BUILDERS
from tests.tiny import tiny_backbone, toy_task, written_task
from tests.unit.refusals import refused
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import BusyError, TrimtabError
from trimtab.files import hold, write_json
from trimtab.storage import RunFolder, read_prompt
from trimtab.training import runs
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.resume import FILE, read_checkpoint
from trimtab.training.runs import run_pack

PROMPTS: dict[str, dict[str, Any]] = {
    "prompt_tuning": {"kind": "prompt_tuning"},
    "p_tuning_lstm": {"kind": "p_tuning_lstm"},
    "dropout": {"kind": "residual", "bottleneck": 8, "dropout": 0.3},
    "superpos": {"kind": "superpos", "words": 40},
    "smop": {"kind": "smop"},
    "dept": {"kind": "dept"},
}


class Killed(BaseException):
    """As if by kill -9: nothing of ours catches it."""


def pack_of(folder: Path, backbone: Backbone, *overrides: str, seeds: Sequence[int] = (1, 2)) -> list[Prepared]:
    """Runs with noise, early stopping and a schedule, so that all kinds of state matter."""
    recipe = {
        "task": toy_task(folder, 16),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "regularizers": [{"kind": "gaussian"}],
        "training": {"learning_rate": 0.02, "max_steps": 12, "batch_size": 6, "evaluations": 6, "patience": 4},
    }
    return [prepare(resolve({**recipe, "seed": seed}, overrides).config, backbone) for seed in seeds]


def killer(after: int) -> Callable[[Mapping[str, Any]], None]:
    """Dies at the `after`-th event of the loop."""
    seen = 0

    def report(event: Mapping[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise Killed

    return report


def outcome(records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What must not depend on having been killed."""
    return [
        (r["id"], r["status"], r["metrics"], r["best_step"], r["steps"], read_prompt(Path(r["run"])).tolist(),
         (Path(r["run"]) / "metrics.jsonl").read_text(), (Path(r["run"]) / "predictions.test.jsonl").read_text())
        for r in records
    ]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("adafactor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("prompt", list(PROMPTS))
def test_a_pack_killed_again_and_again_ends_as_if_undisturbed(
    prompt: str, optimizer: str, tmp_path: Path, backbone: Backbone
) -> None:
    given = [f"prompt={json.dumps({**PROMPTS[prompt], 'length': 3})}", f"training.optimizer={optimizer}"]
    pack = pack_of(tmp_path, backbone, *given)
    expected = outcome(run_pack(pack, tmp_path / "undisturbed"))
    kills = 0
    for after in (3, 9, 17, 12, 5, 14):
        try:
            run_pack(pack, tmp_path / "killed", report=killer(after))
            break
        except Killed:
            kills += 1
    assert kills >= 3, "it must be killed in the middle"
    assert outcome(run_pack(pack, tmp_path / "killed")) == expected
    assert not list((tmp_path / "killed").rglob(FILE)), "a finished pack keeps no checkpoint"


def test_a_killed_pack_whose_rows_are_shuffled_once_ends_as_if_undisturbed(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone, "training.shuffle=once")
    expected = outcome(run_pack(pack, tmp_path / "undisturbed"))
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "killed", report=killer(17))
    assert outcome(run_pack(pack, tmp_path / "killed")) == expected
    assert outcome(run_pack(pack_of(tmp_path, backbone), tmp_path / "others")) != expected


@pytest.mark.parametrize("select", ["token_f1", "loss"])
def test_a_killed_run_that_writes_ends_as_if_undisturbed(select: str, tmp_path: Path) -> None:
    writer = tiny_backbone(BUILDERS["llama"](tmp_path / "llama"))
    given = [f"task={json.dumps(written_task(tmp_path))}", "readout={kind: text, max_new_tokens: 4}"]
    pack = pack_of(tmp_path, writer, *given, f"training.select={select}")
    expected = outcome(run_pack(pack, tmp_path / "undisturbed"))
    for after in (17, 14):
        with pytest.raises(Killed):
            run_pack(pack, tmp_path / "killed", report=killer(after))
    assert outcome(run_pack(pack, tmp_path / "killed")) == expected
    history = [json.loads(line) for line in expected[0][6].splitlines()]
    assert ("token_f1" in history[0]["dev"]) == (select != "loss"), "the loss alone needs nothing written"


def test_a_resumed_pack_does_not_repeat_what_it_has_done(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone, seeds=[1])
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=killer(12))
    found = read_checkpoint(tmp_path / "runs" / pack[0].id)
    assert found is not None
    done = found.state.facts["steps_done"]
    assert done >= 4
    steps: list[int] = []
    run_pack(pack, tmp_path / "runs", report=lambda e: steps.append(e["step"]) if e["event"] == "step" else None)
    assert steps[0] == done + 1


def test_a_pack_killed_while_its_folders_are_written_trains_with_the_same_batch_mates(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = pack_of(tmp_path, backbone, seeds=[1, 2, 3])
    expected = outcome(run_pack(pack, tmp_path / "undisturbed"))
    write, written = runs.write_run, []

    def dies_at_the_second(folder: Any, *rest: Any) -> None:
        if len(written) == 1:
            raise Killed
        write(folder, *rest)
        written.append(folder.path)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_run", dies_at_the_second)
        with pytest.raises(Killed):
            run_pack(pack, tmp_path / "runs")
    first = (written[0] / "run.json").stat().st_mtime_ns
    assert outcome(run_pack(pack, tmp_path / "runs")) == expected
    assert (written[0] / "run.json").stat().st_mtime_ns == first, "a finished run is left alone"


def test_another_pack_does_not_use_the_checkpoint(tmp_path: Path, backbone: Backbone) -> None:
    """Other batch mates change the last bits, so a run alone begins anew where a pack was killed."""
    pack = pack_of(tmp_path, backbone)
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=killer(17))
    alone = outcome(run_pack(pack[:1], tmp_path / "undisturbed"))
    assert outcome(run_pack(pack[:1], tmp_path / "runs")) == alone


def test_again_starts_from_the_beginning(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone, seeds=[1])
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=killer(12))
    steps: list[int] = []
    run_pack(
        pack, tmp_path / "runs", again=True, report=lambda e: steps.append(e["step"]) if e["event"] == "step" else None
    )
    assert steps[0] == 1


def test_a_checkpoint_that_its_pack_has_left_is_removed_once_all_are_done(tmp_path: Path, backbone: Backbone) -> None:
    pack, folder = pack_of(tmp_path, backbone), tmp_path / "runs"
    with pytest.raises(Killed):
        run_pack(pack, folder, report=killer(17))
    left = (folder / pack[0].id / FILE).read_bytes()
    run_pack(pack, folder)
    (folder / pack[0].id / FILE).write_bytes(left)
    record = RunFolder(folder / pack[1].id).record
    write_json(folder / pack[1].id / "run.json", {**record, "status": "running"})
    run_pack(pack[:1], folder)
    assert (folder / pack[0].id / FILE).exists(), "a mate still needs it"
    write_json(folder / pack[1].id / "run.json", record)
    run_pack(pack[:1], folder)
    assert not (folder / pack[0].id / FILE).exists()


def flipped(whole: bytes) -> bytes:
    """One bit of the last number is another."""
    return whole[:-1] + bytes([whole[-1] ^ 1])


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, "half", "bit", "facts"])
def test_a_damaged_checkpoint_is_refused_and_again_ignores_it(
    damage: bytes | str, tmp_path: Path, backbone: Backbone
) -> None:
    pack = pack_of(tmp_path, backbone, seeds=[1])
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=killer(12))
    path = tmp_path / "runs" / pack[0].id / FILE
    whole = path.read_bytes()
    told = whole.replace(b'steps_done\\": ', b'steps_done\\":  1', 1)[: len(whole)]
    assert told != whole
    damages = {"half": whole[: len(whole) // 2], "bit": flipped(whole), "facts": told}
    path.write_bytes(damage if isinstance(damage, bytes) else damages[damage])
    with refused(TrimtabError, "the checkpoint of an unfinished run cannot be read", where=str(path), fix="--again"):
        run_pack(pack, tmp_path / "runs")
    assert run_pack(pack, tmp_path / "runs", again=True)[0]["status"] == "done"


def test_a_second_trainer_of_a_run_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone, seeds=[1])
    folder = tmp_path / "runs" / pack[0].id
    lines = ["import fcntl, os, sys", f"fcntl.flock(os.open({str(folder)!r}, os.O_RDONLY), fcntl.LOCK_EX)"]
    hold = "; ".join([*lines, "print('held', flush=True)", "sys.stdin.read()"])
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with refused(BusyError, "another process is training this run", where=str(folder), fix="Wait for it"):
            run_pack(pack, tmp_path / "runs")
        assert not (folder / "run.json").exists()
        other.kill()
    assert run_pack(pack, tmp_path / "runs")[0]["status"] == "done"


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    write_json(kept / "run.json", {})
    with pytest.raises(Killed), hold([tmp_path / "new", kept], "training this run", "--runs-dir"):
        raise Killed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept"]
    assert not (tmp_path / "new").exists()


def test_tensors_come_back_equal_whatever_their_type(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone)
    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=killer(17))
    found = read_checkpoint(tmp_path / "runs" / pack[0].id)
    assert found is not None
    assert found.runs == tuple(p.id for p in pack)
    kinds = {name.split(".")[0] for name in found.state.tensors}
    assert kinds == {"prompt", "optimizer", "best"}
    assert np.isfinite(found.state.facts["seconds_in_steps"])
