"""What scripts write beside their numbers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("publishing")


def test_a_command_line_is_as_it_is_typed(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert script.command_line("/x/scripts/a.py", ["--out", "b c"]) == "python scripts/a.py --out 'b c'"
    monkeypatch.setattr("sys.argv", ["a.py", "--steps", "2"])
    assert script.command_line("/x/scripts/a.py", None) == "python scripts/a.py --steps 2"


def test_a_machine_has_its_packages_cores_and_load(script: ModuleType) -> None:
    found = script.machine({"device": "cpu"}, "torch")
    assert list(found) == ["device", "torch", "cores", "load"]
    assert (found["device"], found["torch"]) == ("cpu", torch.__version__)


def test_an_outcome_is_written_with_its_page(script: ModuleType, tmp_path: Path) -> None:
    script.publish(tmp_path / "deep" / "out", {"a": [1]}, "# A\n")
    assert json.loads((tmp_path / "deep" / "out.json").read_text()) == {"a": [1]}
    assert (tmp_path / "deep" / "out.md").read_text() == "# A\n"
