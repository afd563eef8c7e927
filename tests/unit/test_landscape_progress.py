"""The progress of a landscape: a bar for each view and run on a terminal, a line elsewhere, nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trimtab.cli.landscape_progress import LandscapeProgress

EVENTS = [{"event": "points", "run": f"run [{r}]", "view": "text", "count": 10, "of": 20} for r in "aabb"]
WRITTEN = {"event": "written", "run": "run a", "view": "text", "files": {}}


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, quiet: bool = False) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, force_interactive=terminal, width=100)
    with LandscapeProgress(quiet=quiet, console=console) as progress:
        for event in (*EVENTS, WRITTEN):
            progress(event)
    return file.getvalue()


def test_elsewhere_a_line_says_how_many_points_a_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False).splitlines()
    assert lines == ["text, run [a]: 20 points", "text, run [b]: 20 points"]


def test_a_terminal_shows_a_bar_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    last = shown(monkeypatch, terminal=True).split("\x1b[1A")[-1]
    assert "text, run [a]" in last
    assert "text, run [b]" in last
    assert last.count("20/20") == 2


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False, quiet=True) == ""
