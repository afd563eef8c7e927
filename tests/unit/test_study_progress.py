"""The progress of a study: lines in a file, a table on a terminal, nothing when quiet."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from trimtab.cli import study_progress
from trimtab.cli.study_progress import StudyProgress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


CELLS = {
    f"k{i}": {"prompt.kind": kind, "training.learning_rate": 0.1} for i, kind in enumerate(["deep", "deep", "none"])
}
PLAN = {"event": "plan", "runs": 5, "ended": 2, "todo": CELLS}


def step(key: str, n: int) -> Mapping[str, Any]:
    return {"event": "step", "key": key, "run": 0, "step": n, "of": 10, "loss": 1.0}


def evaluation(key: str, n: int, score: float) -> Mapping[str, Any]:
    return {"event": "evaluation", "key": key, "step": n, "of": 10, "select": "f1", "best_dev": {"f1": score}}


def run(key: str, status: str = "done", **more: Any) -> Mapping[str, Any]:
    return {"event": "run", "key": key, "status": status, "error": None, **more}


def shown(
    monkeypatch: pytest.MonkeyPatch, *events: Mapping[str, Any], terminal: bool = False, quiet: bool = False
) -> str:
    """What is printed where ten seconds pass from event to event."""
    clock, out = Clock(), io.StringIO()
    monkeypatch.setattr(study_progress, "time", clock)
    console = Console(file=out, force_terminal=terminal, width=120, highlight=False)
    with StudyProgress("toy[1]", quiet=quiet, console=console) as progress:
        for event in events:
            progress(event)
            clock.now += 10
        if terminal:
            console.print(progress.table())
    return out.getvalue()


def test_lines_tell_of_plan_fits_packs_runs_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = {"event": "fit", "runs": 2, "cell": CELLS["k0"]}
    pack = {"event": "pack", "packs": 2, "most": 2}
    lines = shown(monkeypatch, PLAN, fit, pack, run("k0"), run("k1"), run("k2")).splitlines()
    assert lines == [
        "toy[1]: 5 runs, 2 of them ended before, 3 to train",
        "toy[1]: trying how many of 2 runs fit (prompt deep, learning_rate 0.1)",
        "toy[1]: 2 packs of up to 2 runs",
        "toy[1]: 1/3  prompt deep, learning_rate 0.1  done  about 1 min 0 s left",
        "toy[1]: 2/3  prompt deep, learning_rate 0.1  done  about 20 s left",
        "toy[1]: 3/3  prompt none, learning_rate 0.1  done",
    ]


def test_a_long_pack_is_heard_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step("k0", n) for n in range(1, 8)]
    lines = shown(monkeypatch, PLAN, *steps).splitlines()
    assert lines[1:] == ["toy[1]: 13 %  about 4 min 20 s left"], "30 seconds after the last word"


def test_failures_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    halved = {"event": "halved", "runs": 2, "because": "MemoryError: no"}
    failed = run("k2", "failed") | {"error": {"type": "RuntimeError", "message": "oh [no]"}}
    lines = shown(monkeypatch, PLAN, halved, failed).splitlines()
    assert lines[1] == "toy[1]: a pack of 2 runs failed and is trained by halves (MemoryError: no)"
    assert lines[2] == "toy[1]: a run failed (prompt none, learning_rate 0.1): RuntimeError: oh [no]"


def test_a_terminal_shows_a_table_by_lines_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [PLAN, run("k0"), evaluation("k0", 10, 0.5), evaluation("k1", 5, 0.7), run("k2", "diverged")]
    table = shown(monkeypatch, *events, terminal=True).rsplit("toy[1]", 1)[-1]
    deep = next(line for line in table.splitlines() if "deep" in line)
    assert "1/2" in deep
    assert "0.600" in deep
    none = next(line for line in table.splitlines() if "prompt none" in line)
    assert "1/1" in none
    assert "1 diverged" in none


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, PLAN, run("k0"), quiet=True) == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_a_note_is_said_once_even_if_quiet(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    note = {"event": "note", "key": "k0", "text": "the tracker [wandb] failed"}
    lines = shown(monkeypatch, PLAN, note, {**note, "key": "k1"}, quiet=quiet).splitlines()
    assert lines[-1] == "toy[1]: note: the tracker [wandb] failed"
    assert len(lines) == (1 if quiet else 2)
