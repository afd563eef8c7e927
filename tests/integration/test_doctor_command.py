"""`trimtab doctor` end to end: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.tiny import toy_rows, toy_task, write_jsonl
from trimtab.cli import main


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    sections = {
        "backbone": {"model": str(tiny_folder), "dtype": "float32"},
        "task": toy_task(tmp_path, n=24),
        "prompt": {"kind": "prompt_tuning", "length": 3},
        "training": {"max_steps": 20, "batch_size": 8, "learning_rate": 0.05},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def test_a_table_is_printed_and_json_is_written(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    skipped = [word for check in ("leakage", "duplicates", "dev_size") for word in ("--skip", check)]
    code, out, _ = called(capsys, str(recipe), *skipped, "--json", str(file))
    assert code == 0
    assert "prompt_tuning on" in out
    assert "padding" in out
    assert " ok in " in out.splitlines()[-1]
    assert json.loads(file.read_text())["worst"] == "ok"


def test_a_problem_exits_with_1_and_is_json_on_stdout(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copied = write_jsonl(tmp_path / "copied.jsonl", [{**row, "id": f"t{i}"} for i, row in enumerate(toy_rows(24, 0))])
    code, out, _ = called(capsys, str(recipe), f"task.test={copied}", "--only", "leakage", "--json", "-")
    found = json.loads(out)
    assert (code, found["worst"]) == (1, "problem")
    assert found["findings"][0]["numbers"]["test_in_train"] == 24


def test_a_warning_counts_where_it_is_strict(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = "training.learning_rate=1e-5"
    code, out, _ = called(capsys, str(recipe), slow, "--only", "learning_rate")
    assert code == 0
    assert "warning" in out
    assert "training.learning_rate=" in out
    assert called(capsys, str(recipe), slow, "--only", "learning_rate", "--strict")[0] == 1
    assert called(capsys, str(recipe), "--only", "learning_rate", "--strict")[0] == 0


def test_bad_input_exits_with_2(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, str(recipe), "prompt.lenght=3")[0] == 2
    code, _, err = called(capsys, str(recipe), "--only", "pading")
    assert code == 2
    assert "Did you mean 'padding'?" in err
