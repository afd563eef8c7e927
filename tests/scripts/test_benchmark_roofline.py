"""The roofline: two ways of counting agree, and the profile accounts for a step."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from trimtab.backbones import Backbone

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("benchmark_roofline")


@pytest.mark.parametrize("text", [4, 30])
def test_the_formula_counts_what_torch_counts(script: ModuleType, backbone: Backbone, text: int) -> None:
    work = script.Work(rows=3, text=text, prompt=5, prompts=2)
    attention = backbone.model.config._attn_implementation
    assert script.counted(backbone, work) == pytest.approx(script.formula(backbone, work), rel=0.02)
    assert backbone.model.config._attn_implementation == attention


def test_a_step_trains_every_prompt_of_the_work(script: ModuleType, backbone: Backbone) -> None:
    loop = script.loop_of(backbone, script.Work(rows=2, text=6, prompt=3, prompts=3))
    before = loop.pack.stacked["rows"].detach().clone()
    script.step_of(loop)
    moved = (loop.pack.stacked["rows"].detach() - before).flatten(1).norm(dim=1)
    assert loop.pack.stacked["rows"].shape == (3, 3, 32)
    assert bool((moved > 0).all())


def test_the_page_has_a_line_for_each_model(script: ModuleType, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "roofline"
    sizes = ["--rows", "2", "--text", "5", "--prompt", "2", "--steps", "1", "--seconds", "0.01", "--threads", "1"]
    threads = torch.get_num_threads()
    script.main(["--models", str(tiny_folder), *sizes, "--out", str(out)])
    torch.set_num_threads(threads)
    (its,) = json.loads(out.with_suffix(".json").read_text())["results"]
    assert sum(its["profile"][k] for k in ("products", "attention", "others", "between")) == pytest.approx(1, abs=0.3)
    assert 0 < its["median_share"] <= its["share"]
    assert f"| {its['share']:.0%} (" in out.with_suffix(".md").read_text()
