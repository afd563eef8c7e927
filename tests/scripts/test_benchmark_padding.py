"""The count of padding: of the steps that a run takes, cut as the loop cuts them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract.toy_studies import toy_recipe
from trimtab.config import TrainingConfig

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_padding")


def test_padding_is_counted_step_by_step_under_the_budget(script: ModuleType) -> None:
    lengths, training = [200, 100, 50, 50], TrainingConfig(max_tokens=400)
    whole = script.of_steps([[0, 1], [2, 3]], lengths, training, None)
    assert (whole["padding"], whole["passes"]) == (pytest.approx(0.2), 1.0)
    assert script.of_steps([[0, 1], [2, 3]], lengths, training, 64) == {"padding": 0.0, "passes": 1.5}
    assert script.of_steps([[0, 1, 2, 3]], lengths, training, None)["passes"] == 2.0


def test_the_page_has_a_line_for_each_split_and_batch_size(
    script: ModuleType, tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = json.dumps(toy_recipe(tmp_path, tiny_folder)["task"])
    script.main(["--task", task, "--model", str(tiny_folder), "--sizes", "1", "3", "--out", str(tmp_path / "padding")])
    found = json.loads((tmp_path / "padding.json").read_text())["results"]
    assert [its["what"] for its in found] == [
        "evaluation of dev", "evaluation of test", "training, 1 rows a step", "training, 3 rows a step"
    ]  # fmt: skip
    assert found[2]["padding"] == 0.0
    assert capsys.readouterr().out.strip() == (tmp_path / "padding.md").read_text().strip()
