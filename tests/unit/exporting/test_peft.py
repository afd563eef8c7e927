"""The PEFT folder: what is in it, and what PEFT cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.unit.exporting.conftest import DEEP, INPUT, RunOf
from tests.unit.refusals import refused
from trimtab.errors import BundleError
from trimtab.exporting import Source, export


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return found


def test_the_prompt_tuning_form(run_of: RunOf, tmp_path: Path) -> None:
    source = Source.read(run_of("llama"))
    export([source], "peft: {base_model: owner/name}", tmp_path / "out")
    its = config(tmp_path / "out")
    assert its["peft_type"] == "PROMPT_TUNING"
    assert its["task_type"] == "CAUSAL_LM"
    assert its["base_model_name_or_path"] == "owner/name"
    assert (its["num_virtual_tokens"], its["token_dim"], its["num_transformer_submodules"]) == (5, 32, 1)
    rows = load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"]
    assert rows.shape == (5, 32)
    assert (rows[1:].numpy() == source.bundle.prompt).all()
    export([Source.read(run_of("t5"))], "peft", tmp_path / "t5")
    assert config(tmp_path / "t5")["task_type"] == "SEQ_2_SEQ_LM"
    assert config(tmp_path / "t5")["base_model_name_or_path"].endswith("t5")


def test_the_prefix_tuning_form_with_shared_key_heads(run_of: RunOf, tmp_path: Path) -> None:
    shifted = {"prompt": {**DEEP["prompt"], "shift_positions": True}}
    source = Source.read(run_of("llama", shifted))
    export([source], "peft", tmp_path / "out")
    its = config(tmp_path / "out")
    assert its["peft_type"] == "PREFIX_TUNING"
    assert (its["num_layers"], its["num_attention_heads"], its["token_dim"]) == (2, 1, 16)
    rows = load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"]
    trained = source.bundle.tensors["deep.self"]
    assert rows.shape == (4, 2 * 2 * 16)
    assert (rows[3, 16:32].numpy() == trained[0, 1, 3, 0]).all(), "values of the first layer come second"
    assert (rows[3, 32:48].numpy() == trained[1, 0, 3, 0]).all(), "then keys of the second"


def test_a_head_lies_beside_a_prefix(run_of: RunOf, tmp_path: Path) -> None:
    recipe = {"prompt": {**DEEP["prompt"], "shift_positions": True}, "readout": {"kind": "head"}}
    found = export([Source.read(run_of("bert", recipe))], "peft", tmp_path / "out")
    assert config(tmp_path / "out")["task_type"] == "FEATURE_EXTRACTION"
    assert "head.safetensors" in found["files"]
    assert any("PEFT knows nothing of the trained head" in note for note in found["notes"])


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("bert", INPUT, "it stands after [CLS]", "baked"),
    ("t5", DEEP, "reaches the decoder only", "kv"),
    ("llama", {"prompt": {**DEEP["prompt"], "layers": "top:1"}}, "in some layers", "prompt.layers=all"),
    ("albert", DEEP, "AlbertForMaskedLM has no cache", "kv"),
    ("gpt2", DEEP, "the positions of GPT2LMHeadModel are not rotary", "prompt.shift_positions=true"),
    (
        "llama",
        {"prompt": {**DEEP["prompt"], "input": {"kind": "prompt_tuning", "length": 2}}},
        "an input prompt beside its keys and values",
        "Train either",
    ),
]


@pytest.mark.parametrize(("name", "recipe", "what", "fix"), REFUSED, ids=[what for _, _, what, _ in REFUSED])
def test_what_peft_cannot_hold_is_refused(
    run_of: RunOf, tmp_path: Path, name: str, recipe: dict[str, Any], what: str, fix: str
) -> None:
    source = Source.read(run_of(name, recipe))
    with refused(BundleError, what, where=str(source.path), fix=fix):
        export([source], "peft", tmp_path / "out")
