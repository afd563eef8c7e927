"""The benchmark of answers: both contestants give the same ones, whatever the lengths of the texts."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("peft")
pytestmark = [  # by PEFT
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient tuning:UserWarning"),
]

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = ["--layers", "2", "--width", "32", "--heads", "2", "--vocabulary", "100", "--batch", "3", "--text", "12",
        "--prompt", "4"]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_inference")


def test_both_answer_alike(script: ModuleType) -> None:
    shape = script.Shape(layers=2, width=32, heads=2, vocabulary=100, batch=3, text=12, prompt=4, batches=1)
    texts = script.texts_of(shape, 7)
    assert len({len(text) for text in texts}) > 2
    assert max(map(len, texts)) <= 12
    ours, theirs = (its(shape, torch.float32) for its in (script.TrimtabAnswers, script.PeftAnswers))
    chosen = ours.evaluate(texts)
    assert chosen == theirs.evaluate(texts)
    assert set(chosen) == {0, 1}
    alike = [texts[0][:4], texts[1][:4]]
    assert ours.generate(alike, 3) == theirs.generate(alike, 3)
    assert [len(row) for row in ours.generate(texts, 3)] == [3] * 7


def test_the_page_tells_of_both(script: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "inference"
    script.main([*TINY, "--rows", "5", "--written", "2", "--new-tokens", "2", "--repeats", "2", "--out", str(out)])
    found = json.loads(out.with_suffix(".json").read_text())["results"]["float32"]
    assert found["evaluation"]["same"] == 1.0
    assert {what: its["rows"] for what, its in found.items()} == {"evaluation": 5, "generation": 2}
    page = out.with_suffix(".md").read_text()
    assert page.count("| float32 |") == 2
    assert f"{found['generation']['ratio']['median']:.2f} (" in page
