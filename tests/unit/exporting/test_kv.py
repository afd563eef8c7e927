"""Keys and values as files: shapes, names, positions, and what cannot be computed once."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from tests.exported_runs import about
from tests.unit.exporting.conftest import DEEP, INPUT, RunOf
from tests.unit.refusals import refused
from trimtab.errors import BundleError
from trimtab.exporting import Source, export


def test_a_file_per_layer_that_has_any(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("llama", {"prompt": {**DEEP["prompt"], "layers": "top:1"}}))
    found = export([source], "kv: {turn: false}", tmp_path / "out")
    assert found["files"] == ["layer_001.safetensors", "trimtab.json"]
    its = load_file(tmp_path / "out" / "layer_001.safetensors")
    assert {name: tuple(v.shape) for name, v in its.items()} == {"key": (1, 4, 16), "value": (1, 4, 16)}
    trained = source.bundle.tensors["deep.self"][0]
    assert (its["key"][0].numpy() == trained[0, :, 0]).all(), "as trained, where turning is not wanted"
    assert about(tmp_path / "out")["text_position"] == 0
    assert "the text begins at position 0, not behind the prompt" in found["notes"][0]


def test_values_are_never_turned(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("llama", DEEP))
    export([source], "kv", tmp_path / "out")
    its = load_file(tmp_path / "out" / "layer_000.safetensors")
    trained = source.bundle.tensors["deep.self"][0]
    assert (its["value"][0].numpy() == trained[1, :, 0]).all()
    assert not (its["key"][0].numpy() == trained[0, :, 0]).any()


def test_a_prompt_in_the_text_of_an_encoder_cannot_be_computed_once(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("bert"))
    with refused(BundleError, "depends on all of the text", where=str(source.path), fix="prompt.kind=deep"):
        export([source], "kv", tmp_path / "out")


def test_a_prompt_behind_a_field_cannot_be_computed_once(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("gpt2", INPUT, template="{prompt:1} {text} was {prompt:3} {answer}"))
    with refused(BundleError, "{text} stands before a virtual token", where=str(source.path), fix="baked"):
        export([source], "kv", tmp_path / "out")
