"""The benchmark of packs: both ways train the same runs, and its arithmetic and its pages hold."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.contract.toy_studies import toy_recipe
from trimtab.documents import dump_yaml

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_packs")


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> str:
    path = tmp_path / "toy.yaml"
    path.write_text(dump_yaml(toy_recipe(tmp_path, tiny_folder)))
    return str(path)


def test_both_ways_take_the_same_steps_of_the_same_runs(script: ModuleType, recipe: str, tiny_folder: Path) -> None:
    runs = script.prepared(script.Setting(recipe, str(tiny_folder), "cpu", "float32", 3, 3))
    assert [p.config.seeds.init for p in runs] == [0, 1, 2]
    assert {p.config.training.batch_size for p in runs} == {3}
    both = [script.Together(runs), script.OneByOne(runs)]
    assert [len(way.parts) for way in both] == [1, 3]
    first = both[0].parts[0].prompts.clone()
    for way in both:
        for _ in range(3):
            way.step()
        way.evaluate()
    together, alone = both[0].parts[0].prompts, torch.cat([part.prompts for part in both[1].parts])
    assert script.difference(together, first) > 0.01
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    scores = [m.history[-1]["dev"]["loss"] for way in both for part in way.parts for m in part.loop.members]
    assert scores[:3] == pytest.approx(scores[3:], rel=1e-4)


def test_everyone_acts_once_a_turn_and_begins_in_turn(script: ModuleType) -> None:
    order: list[int] = []
    actions: list[Callable[[], None]] = [lambda: order.append(0), lambda: order.append(1)]
    taken = list(script.turns(actions, 3, torch.device("cpu")))
    assert order == [0, 1, 1, 0, 0, 1]
    assert all(seconds > 0 for turn in taken for seconds in turn)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.slow
def test_results_are_written_with_command_versions_and_no_path(
    script: ModuleType, recipe: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        """In this process: starting one takes long."""
        with redirect_stdout(io.StringIO()) as out:
            script.main(command[2:])
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(subprocess, "run", here)
    threads, out = torch.get_num_threads(), tmp_path / "deep" / "packs"
    sizes = ["--runs", "1", "2", "--batches", "4", "--steps", "2", "--evaluations", "1"]
    script.main(["--recipes", recipe, "--models", str(tiny_folder), *sizes, "--devices", "cpu", "--out", str(out)])
    torch.set_num_threads(threads)
    outcome = json.loads(out.with_suffix(".json").read_text())
    assert [found["runs"] for found in outcome["results"]] == [1, 2]
    for found in outcome["results"]:
        step, whole = found["step"], found["whole"]
        assert step["packed"] > 0 < step["one_by_one"]
        assert (whole["step"], whole["evaluate"]) == (4, 3), "steps, and evaluations with the one before training"
        expected = 4 * step["packed"] + 3 * found["evaluate"]["packed"]
        assert whole["packed"] == pytest.approx(expected)
        assert found["prompts_differ_by"] < 1e-3
        assert min(found["memory"].values()) >= 0
    page = out.with_suffix(".md").read_text()
    assert (
        "| toy | tiny-bert | cpu (float32) | 4 | 2 |" in page or "| toy | tiny-bert | cpu (bfloat16) | 4 | 2 |" in page
    )
    assert "--runs 1 2" in page
    assert f"torch {torch.__version__}" in page
    assert str(tmp_path) not in page + out.with_suffix(".json").read_text()
    assert str(tiny_folder.parent) not in page + out.with_suffix(".json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "1", "0"], "--runs must be at least 1, got [1, 0]"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--recipes", "none.yaml"], "--recipes: there is no file none.yaml"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_wrong_arguments_are_refused(
    script: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.parse(["--recipes", __file__, *arguments] if "--recipes" not in arguments else arguments)
    assert message in capsys.readouterr().err
