"""What benchmarks share: ratios are formed within turns, and turns are fair."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("measuring")


def test_ratios_are_formed_within_turns(script: ModuleType) -> None:
    assert script.ratios([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert script.ratios([2.0], [4.0]) == {"median": 0.5, "low": 0.5, "high": 0.5}


def test_everyone_steps_once_a_turn_and_begins_in_turn(script: ModuleType) -> None:
    order: list[int] = []

    class Counted:
        def __init__(self, name: int) -> None:
            self.name = name

        def step(self) -> None:
            order.append(self.name)

    taken = list(script.turns([Counted(0), Counted(1), Counted(2)], steps=3, warmup=1))
    assert order == [0, 1, 2, 0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert all(wall > 0 for turn in taken for wall, _ in turn)
