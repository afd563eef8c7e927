"""Compiled layers: the same training up to rounding, one graph for all shapes, and refusals that teach."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.toy_studies import toy_recipe
from tests.unit.refusals import refused
from trimtab.backbones import Backbone, load_backbone
from trimtab.backbones.compiling import compile_layers
from trimtab.config import BackboneConfig, resolve
from trimtab.errors import BackboneError, ConfigError
from trimtab.training.preparing import open_backbone, prepare

ALONE = """
import json, sys
import torch
from torch._dynamo.utils import counters
from trimtab.backbones import load_backbone
from trimtab.backbones.compiling import compile_layers
from trimtab.config import resolve
from trimtab.training.packs import train_pack
from trimtab.training.preparing import prepare

recipe, cases = json.loads(sys.argv[1])
torch.set_num_threads(1)
plain, compiled = (load_backbone(recipe["backbone"]["model"], dtype="float32", device="cpu") for _ in range(2))
compile_layers(compiled.model, "aot_eager")
for overrides in cases:
    config = resolve(recipe, overrides).config
    ours, theirs = (train_pack([prepare(config, b)])[0].tensors for b in (compiled, plain))
    apart = max(float(abs(ours[name] - value).max()) for name, value in theirs.items() if value.size)
    print(json.dumps({"apart": apart, "graphs": counters["stats"]["unique_graphs"]}))
"""
"""In a process without checks of shapes at every call, which torch cannot compile."""


def test_training_is_the_same_and_other_shapes_compile_nothing_anew(tmp_path: Path, tiny_folder: Path) -> None:
    cases = [
        [],
        ["prompt.length=5", "training.max_tokens=40"],  # passes of one row, and without padding, have their own graphs
        ["prompt.length=6", "training.max_tokens=50"],
        ["regularizers=[{kind: pgd, target: prompt}]"],  # asks a pass for its gradient twice
        ["prompt.kind=deep"],
    ]
    given = json.dumps([toy_recipe(tmp_path, tiny_folder), cases])
    done = subprocess.run([sys.executable, "-c", ALONE, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, several, other, twice, deep = (json.loads(line) for line in done.stdout.splitlines())
    assert 1 <= first["graphs"] <= other["graphs"] < 8, "of 8 torch gives up"
    assert max(its["apart"] for its in (first, several, other, twice)) < 1e-4
    assert deep == {"apart": 0.0, "graphs": twice["graphs"]}, "keys and values of prompts run as they are written"


def test_an_option_that_is_off_leaves_no_trace(tmp_path: Path, tiny_folder: Path) -> None:
    config = resolve(toy_recipe(tmp_path, tiny_folder)).config
    assert "compile" not in config.as_dict()["backbone"]
    assert resolve(toy_recipe(tmp_path, tiny_folder), ["backbone.compile=true"]).config.digest() != config.digest()


def test_without_a_compiler_it_is_refused_at_once(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def absent() -> str:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", absent)
    section = BackboneConfig(model=str(tiny_folder), dtype="float32", compile=True)
    with refused(BackboneError, "a C++ compiler, and none was found", where="backbone.compile", fix="Install g++"):
        open_backbone(section, "cpu")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("training.recompute_layers=true", "training.recompute_layers"),
        ("training.learning_rates={backbone: 0.001}", "training.learning_rates.backbone"),
    ],
)
def test_what_would_run_uncompiled_is_refused(override: str, key: str, tmp_path: Path, tiny_folder: Path) -> None:
    compiled = load_backbone(str(tiny_folder), dtype="float32", device="cpu")
    compile_layers(compiled.model, "eager")
    config = resolve(toy_recipe(tmp_path, tiny_folder), ["backbone.compile=true", override]).config
    with refused(ConfigError, "belong to a frozen backbone", where="backbone.compile", fix=key):
        prepare(config, compiled)


def test_a_model_without_layers_is_refused(backbone: Backbone) -> None:
    with refused(BackboneError, "no layers", where="backbone.compile", fix="false"):
        compile_layers(backbone.model.get_input_embeddings())
