"""Progress: a line per evaluation in a file, a bar on a terminal; time left by the steps of this process."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from trimtab.cli import progress
from trimtab.cli.progress import TrainingProgress


class Clock:
    """Stands still between events."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def event(kind: str, step: int, **more: Any) -> Mapping[str, Any]:
    return {"event": kind, "run": 0, "step": step, "of": 100, **more}


def evaluation(step: int, score: float, best: float) -> Mapping[str, Any]:
    dev, best_dev = {"loss": 9.0, "macro_f1": score}, {"loss": 9.0, "macro_f1": best}
    return event("evaluation", step, dev=dev, best_dev=best_dev, select="macro_f1", best=score == best)


def shown(monkeypatch: pytest.MonkeyPatch, *events: Mapping[str, Any], terminal: bool = False, **options: Any) -> str:
    """What is printed where 20 seconds pass from event to event."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, highlight=False, **options)
    with TrainingProgress("toy[1]", quiet=False, console=console) as report:
        for given in events:
            report(given)
            clock.now += 20
    return out.getvalue()


def test_plain_lines_say_step_loss_score_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(
        monkeypatch,
        evaluation(0, 0.5, 0.5),
        event("step", 25, loss=0.4),
        evaluation(25, 0.75, 0.75),
        evaluation(50, 0.625, 0.75),
        evaluation(100, 0.625, 0.75),
        event("end", 100, status="done"),
    ).splitlines()
    assert lines[0] == "toy[1]: step 0/100, loss -, dev 0.500 (best)"
    assert lines[1] == "toy[1]: step 25/100, loss 0.400, dev 0.750 (best), 2 min 0 s left", "40 s for 25 steps"
    assert lines[2] == "toy[1]: step 50/100, loss 0.400, dev 0.625, 1 min 0 s left"
    assert lines[3] == "toy[1]: step 100/100, loss 0.400, dev 0.625"
    assert len(lines) == 4


def test_a_continued_run_says_so_once_and_judges_time_by_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    events = event("continue", 60), event("step", 70, loss=0.4), evaluation(70, 0.5, 0.75)
    lines = shown(monkeypatch, *events).splitlines()
    assert lines[0] == "toy[1]: continuing at step 60 of 100"
    assert lines[1] == "toy[1]: step 70/100, loss 0.400, dev 0.500, 2 min 0 s left", "40 s for 10 steps, 30 to go"
    assert len(lines) == 2


def test_a_terminal_shows_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    events = event("continue", 60), event("step", 70, loss=0.4), evaluation(70, 0.5, 0.75)
    text = shown(monkeypatch, *events, terminal=True)
    assert text.count("continuing at step 60 of 100") == 1
    last = next(line for line in reversed(text.splitlines()) if "toy[1]" in line)
    for part in ("70/100", "loss 0.400", "dev 0.500 (best 0.750)", "2 min 0 s left"):
        assert part in last, last


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, evaluation(0, 0.5, 0.5), terminal=True, force_interactive=False, no_color=True)
    assert text == "toy[1]: step 0/100, loss -, dev 0.500 (best)\n"


def test_quiet_shows_nothing() -> None:
    out = io.StringIO()
    for terminal in (True, False):
        console = Console(file=out, force_terminal=terminal)
        with TrainingProgress("toy", quiet=True, console=console) as report:
            report(evaluation(0, 0.5, 0.5))
            report(event("continue", 3))
    assert out.getvalue() == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_a_note_is_no_progress_and_is_said_at_once_even_if_quiet(quiet: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, highlight=False)
    with TrainingProgress("toy", quiet=quiet, console=console) as report:
        report({"event": "note", "run": 0, "text": "the tracker [wandb] failed"})
        assert out.getvalue() == "note: the tracker [wandb] failed\n"
        report(evaluation(0, 0.5, 0.5))
    assert report.notes == ["the tracker [wandb] failed"]
