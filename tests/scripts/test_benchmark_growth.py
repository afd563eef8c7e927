"""The benchmark of growth: its line, its tables and its picture."""

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
    return importlib.import_module("benchmark_growth")


def test_the_line_weighs_small_steps_as_much_as_large_ones(script: ModuleType) -> None:
    exact = [{"tokens": t, "ms": 4 + 0.5 * t} for t in (1, 10, 1000)]
    assert script.line(exact) == (4.0, 0.5)
    off = [*exact[:2], {"tokens": 1000, "ms": 600.0}]
    assert script.line(off)[0] == pytest.approx(4, abs=0.3)


def test_every_size_is_timed_and_shown(
    script: ModuleType, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(what: str, **given: object) -> object:
        return {"prompts": script.memory_of_prompts, "rows": script.memory_of_rows}[what](**given)

    monkeypatch.setattr(script, "in_a_process", here)
    monkeypatch.setattr(script, "COMMON", script.Work(rows=2, text=5, prompt=2))
    out, threads = tmp_path / "growth", torch.get_num_threads()
    script.main(["--model", str(tiny_folder), "--tiny", str(tiny_folder), "--grid", '{"rows": [1, 2], "prompts": [3]}',
                 "--packs", "2", "--tables", "40", "--steps", "1", "--out", str(out)])  # fmt: skip
    torch.set_num_threads(threads)
    found = json.loads(out.with_suffix(".json").read_text())
    assert [(p["axis"], p["size"], p["tokens"]) for p in found["steps"]] == [
        ("rows", 1, 8), ("rows", 2, 16), ("prompts", 3, 48)
    ]  # fmt: skip
    assert found["memory_of_rows"][0]["peak"] >= found["memory_of_rows"][0]["before"] > 0
    page = out.with_suffix(".md").read_text()
    assert "| 40 |" in page
    assert f"2: {found['steps'][1]['ms']:.1f}" in page
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
