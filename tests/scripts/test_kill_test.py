"""The kill test: it kills, goes on, compares everything that must be the same, and finds what is not."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract.toy_studies import carried_out, toy_study

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("kill_test")


def test_of_a_study_everything_that_must_be_the_same_is_compared(
    script: ModuleType, tmp_path: Path, tiny_folder: Path
) -> None:
    study = toy_study(tmp_path, tiny_folder, axes={"training.learning_rate": [0.01, 0.05]}, seeds=1)
    a = script.parse(["--study", "x.yaml"])
    for name in ("a", "b"):
        carried_out(study, tmp_path / name / "toy")
    expected = script.finished(a, 0, tmp_path / "a")
    assert len(expected["runs"]) == len(expected["ledger"]) == 2
    assert [len(keys) for keys in expected["packs"]] == [2]
    assert script.differences(expected, script.finished(a, 0, tmp_path / "b")) == []
    found = script.facts(expected)
    assert (found["runs"], found["packs"], len(found["test_accuracy"])) == ({"done": 2}, [2], 2)
    place = tmp_path / "b" / "toy"
    run = sorted(expected["runs"])[0]
    (place / "runs" / run / "prompt.safetensors").write_bytes(b"other")
    (place / "runs" / run / "metrics.jsonl").write_text("")
    ledger = (place / "ledger.jsonl").read_text()
    (place / "ledger.jsonl").write_text(ledger + ledger)
    (place / "packs.jsonl").write_text("")
    different = script.differences(expected, script.finished(a, 0, tmp_path / "b"))
    assert different == ["ledger", "packs", f"runs: {run}: metrics.jsonl", f"runs: {run}: prompt.safetensors"]
    with pytest.raises(AssertionError, match="it ended with 2"):
        script.finished(a, 2, tmp_path / "b")


def test_it_starts_again_after_every_kill_and_no_more_than_asked(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(a: object, folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        with (folder / "starts").open("a") as file:
            file.write("x")
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])

    monkeypatch.setattr(script, "start", start)
    moments = script.kill_until_finished(script.parse([]), tmp_path / "x", 0.5, random.Random(0), 2)
    assert len(moments) == 2
    assert all(0.1 <= m <= 0.3 for m in moments)
    assert (tmp_path / "x" / "starts").read_text() == "xxx"


def test_the_outcome_says_what_was_done(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [{"runs": {"r": {"metrics": {"dev": 1}, "prompt": p}}} for p in ("a", "a", "b")]
    monkeypatch.setattr(script, "start", lambda a, folder: type("Done", (), {"wait": lambda self: 0})())
    monkeypatch.setattr(script, "finished", lambda a, code, folder: answers.pop(0))
    monkeypatch.setattr(script, "kill_until_finished", lambda *rest: [1.0, 2.0])
    out = tmp_path / "kills.json"
    with pytest.raises(SystemExit) as stopped:
        script.main(["--kills", "3", "--out", str(out)])
    assert stopped.value.code == 1, "the second was different"
    outcome = json.loads(out.read_text())
    assert (outcome["kills"], outcome["runs_they_fell_on"]) == (4, 2)
    assert (outcome["identical"], outcome["different"]) == (False, ["runs: r: prompt"])
    assert outcome["command"] == f"python scripts/kill_test.py --kills 3 --out {out}"
    assert outcome["metrics"] == {"dev": 1}
    assert json.loads(capsys.readouterr().out) == outcome
