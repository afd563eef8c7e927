"""Trackers in training: each event goes to its run, no tracker changes a result, and none can lose one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_services import WandB, pretend
from tests.contract.test_trackers import Points, event_points, same
from tests.tiny import toy_task
from trimtab import api
from trimtab.api import training
from trimtab.backbones import Backbone
from trimtab.config import resolve
from trimtab.errors import ConfigError, StorageError
from trimtab.registry import trackers
from trimtab.storage import RunFolder
from trimtab.studies.folder import seal
from trimtab.trackers import TrackedRun, Tracker
from trimtab.training import runs
from trimtab.training.loop import Report
from trimtab.training.preparing import Prepared, prepare
from trimtab.training.runs import run_pack

BOARD = {"kind": "tensorboard", "folder": None}
TIMED = ("started", "seconds", "seconds_per_step", "run")


@pytest.fixture(autouse=True)
def _files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads event files of the same second by a number in their name, as text: 9 after 10."""
    import tensorboard.summary.writer.event_file_writer as files

    monkeypatch.setattr(files, "_global_uid", files.AtomicCounter(100))


class Killed(BaseException):
    """As if by kill -9."""


class Recorder(Tracker):
    """Remembers what it is told, and fails when it is told to."""

    said: list[Any]
    fails: str

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        self._say("begin", run.since)

    def _say(self, what: str, *about: Any) -> None:
        self.said.append((self.run.id, what, *about))
        if what == self.fails:
            raise ConnectionError(f"no route to host\nfrom {what}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._say("log", step, dict(values))

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        self._say("end", status, dict(summary))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the tracker `recorder` has been told."""
    trackers.kinds()
    monkeypatch.setitem(trackers._classes, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "said", [], raising=False)
    monkeypatch.setattr(Recorder, "fails", "", raising=False)
    return Recorder.said


RECORDER = {"kind": "recorder"}


def pack_of(folder: Path, backbone: Backbone, *overrides: str, seeds: Sequence[int] = (1, 2)) -> list[Prepared]:
    recipe = {
        "task": toy_task(folder, 16),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"learning_rate": 0.02, "max_steps": 12, "batch_size": 6, "evaluations": 4},
    }
    return [prepare(resolve({**recipe, "seed": seed}, overrides).config, backbone) for seed in seeds]


def history(run: str | Path) -> Points:
    """metrics.jsonl of a run, as trackers are told it."""
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: ({} if line["train_loss"] is None else {"train/loss": line["train_loss"]})
        | {f"dev/{k}": v for k, v in line["dev"].items()}
        | {"best": float(line["best"])}
        for line in lines
    }


def told(said: list[Any], run: str) -> Points:
    return {about[0]: about[1] for who, what, *about in said if (who, what) == (run, "log")}


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in TIMED}


def test_each_event_of_a_pack_goes_to_its_run(tmp_path: Path, backbone: Backbone, said: list[Any]) -> None:
    pack = pack_of(tmp_path, backbone)
    records = run_pack(pack, tmp_path / "runs", track=[RECORDER, BOARD], group="g")
    assert history(records[0]["run"]) != history(records[1]["run"])
    for record in records:
        own = history(record["run"])
        assert list(own) == [0, 3, 6, 9, 12]
        assert told(said, record["id"]) == own
        board = event_points(Path(record["run"]) / "tensorboard")
        same({s: {k: v for k, v in p.items() if "final" not in k} for s, p in board.items()}, own)
        (end,) = [about for who, what, *about in said if (who, what) == (record["id"], "end")]
        assert end[0] == "done"
        assert end[1]["final/test/accuracy"] == record["metrics"]["test"]["accuracy"]
        assert end[1]["final/steps"] == 12
        assert not {"final/test/confusion", "final/dev/confusion"} & set(end[1])
        assert board[12]["final/test/accuracy"] == pytest.approx(end[1]["final/test/accuracy"])


def test_trackers_change_no_result(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone)
    bare, tracked = (run_pack(pack, tmp_path / n, track=t) for n, t in (("bare", []), ("tracked", [BOARD])))
    for a, b in zip(bare, tracked, strict=True):
        assert timeless(a) == timeless(b)
        mine, its = seal(Path(a["run"])), seal(Path(b["run"]))
        assert {k: v for k, v in mine.items() if k not in ("run.json", "bundle.json")} == {
            k: v for k, v in its.items() if k not in ("run.json", "bundle.json")
        }


def test_a_run_under_way_can_be_followed(tmp_path: Path, backbone: Backbone) -> None:
    pack = pack_of(tmp_path, backbone)
    seen: list[tuple[int, int, str]] = []

    def look(event: Mapping[str, Any]) -> None:
        if event["event"] == "evaluation":
            path = tmp_path / "runs" / pack[event["run"]].id / "metrics.jsonl"
            seen.append((event["run"], event["step"], path.read_text()))

    records = run_pack(pack, tmp_path / "runs", report=look)
    assert [(r, step) for r, step, _ in seen] == [(r, s) for s in (0, 3, 6, 9, 12) for r in (0, 1)]
    for r, step, text in seen:
        final = (Path(records[r]["run"]) / "metrics.jsonl").read_text()
        assert final.startswith(text)
        assert text.count("\n") == step // 3 + 1


def test_a_killed_run_leaves_the_same_tracks_as_an_undisturbed_one(
    tmp_path: Path, backbone: Backbone, said: list[Any]
) -> None:
    """Killed twice: after an evaluation whose checkpoint was written, and before one could be."""
    pack, track = pack_of(tmp_path, backbone), [RECORDER, BOARD]
    expected = run_pack(pack, tmp_path / "undisturbed", track=track)
    said.clear()

    def killer(moment: tuple[str, int, int]) -> Report:
        def dies(event: Mapping[str, Any]) -> None:
            if (event["event"], event["run"], event["step"]) == moment:
                raise Killed

        return dies

    first = tmp_path / "killed" / pack[0].id
    for moment, seen in ((("step", 1, 5), [0, 3]), (("evaluation", 1, 9), [0, 3, 6, 9])):
        with pytest.raises(Killed):
            run_pack(pack, tmp_path / "killed", track=track, report=killer(moment))
        assert list(history(first)) == seen, "the second time ahead of the checkpoint by one"
    records = run_pack(pack, tmp_path / "killed", track=track)
    begins = [(who, about) for who, what, *about in said if what == "begin"]
    assert begins == [(p.id, [since]) for since in (None, 3, 6) for p in pack]
    assert [about for _, what, *about in said if what == "end"][:4] == [["stopped", {}]] * 4
    for got, wanted in zip(records, expected, strict=True):
        for name in ("metrics.jsonl", "predictions.test.jsonl"):
            assert (Path(got["run"]) / name).read_bytes() == (Path(wanted["run"]) / name).read_bytes()
        boards = [event_points(Path(r["run"]) / "tensorboard") for r in (got, wanted)]
        for board in boards:
            board[12].pop("final/seconds")
        assert boards[0] == boards[1]


def test_a_pack_killed_while_it_writes_still_ends_its_trackers(
    tmp_path: Path, backbone: Backbone, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = pack_of(tmp_path, backbone)

    def dies(*rest: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_run", dies)
        with pytest.raises(Killed):
            run_pack(pack, tmp_path / "runs", track=[RECORDER])
    said.clear()
    records = run_pack(pack, tmp_path / "runs", track=[RECORDER])
    assert [(who, what, about[0]) for who, what, *about in said] == [
        (p.id, what, about) for p in pack for what, about in (("begin", 12), ("end", "done"))
    ]
    assert list(history(records[0]["run"])) == [0, 3, 6, 9, 12]


def test_runs_that_are_finished_are_not_followed_again_and_numbers_are_of_the_pack(
    tmp_path: Path, backbone: Backbone, said: list[Any]
) -> None:
    pack = pack_of(tmp_path, backbone, seeds=[1, 2, 3])
    run_pack(pack[:1], tmp_path / "runs")
    events: list[Mapping[str, Any]] = []
    records = run_pack(pack, tmp_path / "runs", track=[RECORDER], report=events.append)
    assert {e["run"] for e in events} == {1, 2}
    assert {who for who, *_ in said} == {p.id for p in pack[1:]}
    for record in records[1:]:
        assert told(said, record["id"]) == history(record["run"])


def test_a_batch_mate_that_was_finished_elsewhere_is_left_alone(
    tmp_path: Path, backbone: Backbone, said: list[Any]
) -> None:
    """It trains with the others, whose last bits depend on it, and its folder is sealed."""
    pack = pack_of(tmp_path, backbone)

    def dies(event: Mapping[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        run_pack(pack, tmp_path / "runs", report=dies)
    (other,) = run_pack(pack[1:], tmp_path / "runs")
    before = seal(Path(other["run"]))
    events: list[Mapping[str, Any]] = []
    run_pack(pack, tmp_path / "runs", track=[RECORDER], report=events.append)
    assert {e["run"] for e in events} == {0, 1}, "both are trained"
    assert {who for who, *_ in said} == {pack[0].id}
    assert seal(Path(other["run"])) == before


@pytest.mark.parametrize("fails", ["begin", "log", "end"])
def test_a_tracker_that_fails_is_left_out_with_one_note(
    fails: str, tmp_path: Path, backbone: Backbone, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = pack_of(tmp_path, backbone)
    expected = run_pack(pack, tmp_path / "undisturbed")
    monkeypatch.setattr(Recorder, "fails", fails)
    events: list[Mapping[str, Any]] = []
    records = run_pack(pack, tmp_path / "runs", track=[RECORDER, BOARD], report=events.append)
    assert [timeless(r) for r in records] == [timeless(r) for r in expected]
    (note,) = [e for e in events if e["event"] == "note"]
    assert note["run"] == 0
    assert note["text"] == (
        "the tracker recorder failed and is left out, training goes on (ConnectionError: no route to host)"
    )
    whats = [what for _, what, *_ in said]
    assert whats.count(fails) == (1 if fails == "begin" else 2), "a service that cannot be reached is not tried again"
    assert ("end" in whats) == (fails == "end")
    for record in records:
        assert set(event_points(Path(record["run"]) / "tensorboard")) == {0, 3, 6, 9, 12}, "the others go on"


def test_a_full_disk_loses_the_live_file_and_not_the_run(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, step: int, values: Mapping[str, float]) -> None:
        raise OSError(28, "No space left on device")

    events: list[Mapping[str, Any]] = []
    monkeypatch.setattr(trackers.get("jsonl"), "log", full)
    (record,) = run_pack(pack_of(tmp_path, backbone, seeds=[1]), tmp_path / "runs", report=events.append)
    assert [e["text"] for e in events if e["event"] == "note"] == [
        "the tracker jsonl failed and is left out, training goes on (OSError: [Errno 28] No space left on device)"
    ]
    assert list(history(record["run"])) == [0, 3, 6, 9, 12], "written at the end"


def test_trackers_hear_of_failure_and_divergence(
    tmp_path: Path, backbone: Backbone, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(event: Mapping[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 4:
            raise RuntimeError("a cosmic ray")

    pack = pack_of(tmp_path, backbone)
    with pytest.raises(RuntimeError, match="cosmic"):
        run_pack(pack, tmp_path / "runs", track=[RECORDER], report=breaks)
    assert [about for _, what, *about in said if what == "end"] == [["failed", {}]] * 2
    said.clear()
    wild = pack_of(tmp_path, backbone, "training.learning_rate=1e38", "training.clip=0", seeds=[1])
    (record,) = run_pack(wild, tmp_path / "runs", track=[RECORDER])
    assert record["status"] == "diverged"
    assert said[-1][2] == "diverged"


def test_of_runs_that_cannot_all_be_written_each_ends_as_it_is(
    tmp_path: Path, backbone: Backbone, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, write = pack_of(tmp_path, backbone), runs.write_run

    def fills_up(folder: RunFolder, *rest: Any) -> None:
        if folder.path.name == pack[1].id:
            raise StorageError("the file cannot be written", where=str(folder.path))
        write(folder, *rest)

    monkeypatch.setattr(runs, "write_run", fills_up)
    with pytest.raises(StorageError):
        run_pack(pack, tmp_path / "runs", track=[RECORDER])
    ends = {who: about[0] for who, what, *about in said if what == "end"}
    assert ends == {pack[0].id: "done", pack[1].id: "failed"}


# Through the API -----------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> dict[str, Any]:
    return {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": toy_task(tmp_path, 16),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"max_steps": 4, "min_steps": 4, "evaluations": 2, "batch_size": 4},
    }


def test_the_id_of_a_run_does_not_know_its_trackers(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pretend(monkeypatch, "wandb")
    record = api.run(recipe, runs_dir=tmp_path / "runs", track=["wandb: {project: x}"])
    shown = wandb.latest(record["id"])
    assert shown is not None
    assert (shown.place, shown.status, len(shown.points)) == ("x", ("done", 0), 3)
    again = api.run(recipe, runs_dir=tmp_path / "runs")
    assert again["reused"]
    assert again["run"] == record["run"]
    assert "notes" not in record


def test_a_missing_library_is_found_before_anything_is_done(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(training, "open_backbone", lambda *rest: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=r"pip install 'trimtab\[wandb\]'"):
        api.run(recipe, runs_dir=tmp_path / "runs", track=["wandb"])
    assert not (tmp_path / "runs").exists()


def test_notes_are_in_the_returned_record_and_not_in_the_folder(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pretend(monkeypatch, "wandb")
    assert isinstance(wandb, WandB)

    def unreachable(**options: Any) -> Any:
        raise TimeoutError("no answer")

    monkeypatch.setattr(wandb, "init", unreachable)
    record = api.run(recipe, runs_dir=tmp_path / "runs", track=["wandb"])
    assert record["status"] == "done"
    assert record["notes"] == ["the tracker wandb failed and is left out, training goes on (TimeoutError: no answer)"]
    assert "notes" not in RunFolder(Path(record["run"])).record
