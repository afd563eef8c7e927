"""Every tracker: each run's numbers reach it, whole, once, and beside those of the runs trained with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_services import FAKES, Service, pretend
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.registry import trackers
from trimtab.trackers import TrackedRun, Tracker, check_trackers

KINDS = trackers.kinds()
Points = dict[int, dict[str, float]]
CONFIG = {"seeds": {"init": 1}, "prompt": {"kind": "residual", "layers": [0, 1]}}


@pytest.fixture(autouse=True)
def _files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads event files of the same second by a number in their name, as text: 9 after 10."""
    import tensorboard.summary.writer.event_file_writer as files

    monkeypatch.setattr(files, "_global_uid", files.AtomicCounter(100))


def numbers(step: int, of: int = 0) -> dict[str, float]:
    """An evaluation of run `of`; the first has no training loss."""
    loss = {} if step == 0 else {"train/loss": 1.5 - step / 100 + of}
    return {**loss, "dev/loss": 0.7 - step / 100 + of, "dev/accuracy": step / 100 + of, "best": float(step != 5)}


SUMMARY = {"final/test/accuracy": 0.5, "final/steps": 15}


class Bench:
    """Builds trackers of one kind, and reads back what has reached their service."""

    def __init__(self, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if kind == "tensorboard":
            pytest.importorskip("tensorboard")
        self.kind, self.folder = kind, folder
        self.service: Service | None = pretend(monkeypatch, kind) if kind in FAKES else None

    def begin(self, of: int = 0, since: int | None = None, **options: Any) -> Tracker:
        place = self.folder / f"run-{of}"
        place.mkdir(exist_ok=True)
        run = TrackedRun(f"run-{of}", CONFIG, place, "a study", since)
        built: Tracker = trackers.build(trackers.resolve({"kind": self.kind, **options}, "track"), run)
        return built

    def points(self, of: int = 0) -> Points:
        """What the service shows of the training of a run, step by step."""
        if self.service is not None:
            record = self.service.latest(f"run-{of}")
            assert record is not None
            ours = [(step, {k: v for k, v in values.items() if k not in SUMMARY}) for step, values in record.points]
            assert [step for step, _ in ours] == sorted(step for step, _ in ours) or self.kind == "trackio"
            return {step: values for step, values in ours if values}
        return self._lines(of) if self.kind == "jsonl" else self._events(of)

    def _lines(self, of: int) -> Points:
        lines = [json.loads(x) for x in (self.folder / f"run-{of}" / "metrics.jsonl").read_text().splitlines()]
        assert len({line["step"] for line in lines}) == len(lines), "a step stands twice"
        return {
            line["step"]: ({} if line["train_loss"] is None else {"train/loss": line["train_loss"]})
            | {f"dev/{k}": v for k, v in line["dev"].items()}
            | {"best": float(line["best"])}
            for line in lines
        }

    def _events(self, of: int) -> Points:
        return {s: {k: v for k, v in values.items() if k not in SUMMARY} for s, values in event_points(
            self.folder / f"run-{of}" / "tensorboard").items()}  # fmt: skip


def event_points(folder: Path) -> Points:
    """Scalars of TensorBoard's event files, read by TensorBoard itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    found: Points = {}
    for tag in accumulator.Tags()["scalars"]:
        steps = [event.step for event in accumulator.Scalars(tag)]
        assert len(steps) == len(set(steps)), f"{tag} stands twice at a step: {steps}"
        for event in accumulator.Scalars(tag):
            found.setdefault(event.step, {})[tag] = event.value
    return dict(sorted(found.items()))


def same(got: Points, expected: Points) -> None:
    assert list(got) == list(expected)
    for step, values in expected.items():
        assert got[step] == pytest.approx(values, rel=1e-6), step


def follows_runs_side_by_side(bench: Bench) -> None:
    both = [bench.begin(0), bench.begin(1)]
    for step in (0, 5, 10):
        for of, tracker in enumerate(both):
            tracker.log(step, numbers(step, of))
            same(bench.points(of), {s: numbers(s, of) for s in (0, 5, 10) if s <= step})
    for tracker in both:
        tracker.end("done", SUMMARY)
    for of in (0, 1):
        same(bench.points(of), {s: numbers(s, of) for s in (0, 5, 10)})


def goes_on(bench: Bench) -> None:
    """Killed after the evaluation at step 10, with the checkpoint of step 5."""
    first = bench.begin()
    for step in (0, 5, 10):
        first.log(step, numbers(step))
    second = bench.begin(since=5)
    for step in (10, 15):
        second.log(step, numbers(step))
    second.end("done", SUMMARY)
    same(bench.points(), {s: numbers(s) for s in (0, 5, 10, 15)})


def begins_anew(bench: Bench) -> None:
    first = bench.begin()
    for step in (0, 5, 10):
        first.log(step, numbers(step))
    first.end("stopped", {})
    second = bench.begin()
    second.log(0, numbers(0, of=3))
    second.end("done", SUMMARY)
    same(bench.points(), {0: numbers(0, of=3)})


CONTRACT: list[Callable[[Bench], None]] = [follows_runs_side_by_side, goes_on, begins_anew]


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(request.param, tmp_path, monkeypatch)


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda f: f.__name__)
def test_contract(bench: Bench, rule: Callable[[Bench], None]) -> None:
    rule(bench)


def test_nothing_is_left_in_the_run_folder_that_would_be_taken_for_a_result(bench: Bench) -> None:
    from trimtab.studies.folder import seal

    tracker = bench.begin()
    tracker.log(0, numbers(0))
    tracker.end("done", SUMMARY)
    assert set(seal(bench.folder / "run-0")) <= {"metrics.jsonl"}


def test_a_service_says_where_what_and_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses: dict[str, Any] = {}
    for kind in FAKES:
        bench = Bench(kind, tmp_path, monkeypatch)
        assert bench.service is not None
        place = {"experiment": "mine"} if kind == "mlflow" else {"project": "mine"}
        for of, status in enumerate(("done", "diverged", "failed", "stopped")):
            tracker = bench.begin(of, **place)
            tracker.log(0, numbers(0))
            tracker.end(status, SUMMARY if status in ("done", "diverged") else {})
        first = bench.service.latest("run-0")
        assert first is not None
        assert (first.place, first.group) == ("mine", "a study")
        told = {**first.summary, **first.points[-1][1]}
        assert {k: told[k] for k in SUMMARY} == SUMMARY
        config = first.config
        assert (config["prompt"]["kind"] if kind == "wandb" else config["prompt.kind"]) == "residual"
        statuses[kind] = [r.status for r in bench.service.records.values()]
    assert statuses == {
        "wandb": [("done", 0), ("diverged", 0), ("failed", 1), ("stopped", 1)],
        "trackio": ["finished"] * 4,
        "mlflow": [("done", "FINISHED"), ("diverged", "FINISHED"), ("failed", "FAILED"), ("stopped", "KILLED")],
    }
    assert capsys.readouterr().out == "", "stdout belongs to --json"


def test_tensorboard_has_config_summary_and_a_folder_of_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("tensorboard", tmp_path, monkeypatch)
    tracker = bench.begin(folder=str(tmp_path / "boards"))
    tracker.log(0, numbers(0))
    tracker.log(15, numbers(15))
    tracker.end("done", SUMMARY)
    found = event_points(tmp_path / "boards" / "run-0")
    assert {k: found[15][k] for k in SUMMARY} == pytest.approx(SUMMARY)
    assert found[15]["dev/accuracy"] == pytest.approx(0.15)
    assert not (tmp_path / "run-0" / "tensorboard").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(tmp_path / "boards" / "run-0")).Reload()
    texts = {tag: accumulator.Tensors(tag)[-1].tensor_proto.string_val[0] for tag in accumulator.Tags()["tensors"]}
    assert b"kind: residual" in texts["config/text_summary"]
    assert texts["status/text_summary"] == b"done"


@pytest.mark.parametrize("rest", ["", '{"step": 5, "train', '{"step": 5, "train_loss": 1}\n'])
def test_a_line_that_a_kill_has_cut_off_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    bench = Bench("jsonl", tmp_path, monkeypatch)
    bench.begin().log(0, numbers(0))
    path = tmp_path / "run-0" / "metrics.jsonl"
    path.write_text(path.read_text() + rest)
    bench.begin(since=3).log(5, numbers(5))
    same(bench.points(), {s: numbers(s) for s in (0, 5)})


# Saboteurs -----------------------------------------------------------------------------------------------------------


class Shared(Tracker):
    """Writes lines where the run before it did."""

    path: Path

    def __init__(self, run: TrackedRun) -> None:
        if not hasattr(Shared, "path"):
            Shared.path = run.folder / "metrics.jsonl"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        trackers.get("jsonl").log(_at(self.path), step, values)  # type: ignore[attr-defined]

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        pass


class Forgetful(Shared):
    """Takes every run for a new one."""

    def __init__(self, run: TrackedRun) -> None:
        self.path = run.folder / "metrics.jsonl"
        self.path.unlink(missing_ok=True)


class Hoarding(Shared):
    """Keeps what is void."""

    def __init__(self, run: TrackedRun) -> None:
        self.path = run.folder / "metrics.jsonl"


class Late(Forgetful):
    """Writes at the end."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.path.touch()


def _at(path: Path) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(_path=path)


@pytest.mark.parametrize(
    ("saboteur", "rule"),
    [
        (Shared, follows_runs_side_by_side),
        (Late, follows_runs_side_by_side),
        (Forgetful, goes_on),
        (Hoarding, goes_on),
        (Hoarding, begins_anew),
    ],
)
def test_broken_trackers_are_found(
    saboteur: type[Tracker], rule: Callable[[Bench], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "begin", lambda self, of=0, since=None: saboteur(TrackedRun(  # type: ignore[call-arg]
        f"run-{of}", CONFIG, _made(tmp_path / f"run-{of}"), None, since)))  # fmt: skip
    with pytest.raises((AssertionError, OSError)):
        rule(Bench("jsonl", tmp_path, monkeypatch))


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


# What is asked for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "project"),
    [
        (["wandb"], "trimtab"),
        (["wandb: {project: mine}"], "mine"),
        (["{kind: wandb, project: mine}"], "mine"),
        (["wandb:"], "trimtab"),
        ([{"wandb": {"project": "mine"}}], "mine"),
        ([{"kind": "wandb", "project": "mine"}, "jsonl"], "mine"),
    ],
)
def test_a_tracker_is_asked_for_by_name_with_or_without_options(
    given: list[Any], project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "wandb")
    (found,) = check_trackers(given)
    assert (found["kind"], found["project"]) == ("wandb", project)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("given", "what", "where", "fix"),
    [
        (["wand"], "there is no tracker 'wand'", "track.kind", "Did you mean 'wandb'?"),
        (["wandb: {projct: x}"], "there is no such key", "track.projct", "Did you mean 'project'?"),
        (["wandb: {mode: on}"], "got 'on'", "track.mode", None),
        (["wandb: mine"], "this is no tracker: {'wandb': 'mine'}", "track", "name: {option: value}"),
        (["3"], "this is no tracker: 3", "track", "Write its name"),
        (["wandb", "wandb: {project: x}"], "'wandb' is asked for twice", "track", "Leave one out"),
        (["wandb: {"], "not valid YAML", "track:1", None),
    ],
)
def test_what_is_no_tracker_is_refused(
    given: list[str], what: str, where: str, fix: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "wandb")
    with refused(ConfigError, what, where=where, fix=fix):
        check_trackers(given)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "jsonl"])
def test_a_missing_library_is_said_with_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = trackers.get(kind).module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, None)
    with refused(ConfigError, "a library that is not installed", where=f"track: {kind}",
                 fix=f"pip install 'trimtab[{kind}]'"):  # fmt: skip
        check_trackers([kind])
