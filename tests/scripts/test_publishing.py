"""What scripts write beside their numbers."""

from __future__ import annotations

import argparse
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


def test_an_outcome_is_told_and_written_with_its_page(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.publish(tmp_path / "deep" / "out", {"a": [1]}, ["# A", "", "b"])
    assert json.loads((tmp_path / "deep" / "out.json").read_text()) == {"a": [1]}
    assert (tmp_path / "deep" / "out.md").read_text() == "# A\n\nb\n" == capsys.readouterr().out
    script.publish(None, {}, ["c"])
    assert capsys.readouterr().out == "c\n"


def test_a_footer_names_the_packages_that_took_part(script: ModuleType) -> None:
    facts = {"trimtab": "1", "torch": "2", "transformers": "3", "device": "cpu", "cores": 4, "load": 0.5, "threads": 6}
    command, _, told = script.footer("python a.py", {**facts, "peft": "7"}, ", float32 prompt")
    assert command == "Command: `python a.py`"
    assert told.startswith("trimtab 1, peft 7, torch 2, transformers 3, cpu, 4 cores (load average 0.5 at the end)")
    assert told.endswith("6 threads, float32 prompt.")
    assert "peft" not in script.footer("python a.py", facts)[-1]


def test_what_is_below_one_is_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    script.common_options(parser)
    parser.add_argument("--new-tokens", type=int, nargs="+", default=[1])
    script.at_least_one(parser, parser.parse_args([]), "threads", "new_tokens", "not_there")
    with pytest.raises(SystemExit, match="2"):
        script.at_least_one(parser, parser.parse_args(["--new-tokens", "3", "0"]), "threads", "new_tokens")
    assert "--new-tokens must be at least 1, got [3, 0]" in capsys.readouterr().err
