"""What no other program can express is refused with the reason and with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exported_runs import bundle_folder
from tests.unit.exporting.conftest import DEEP, RunOf
from tests.unit.refusals import refused
from trimtab.errors import BundleError
from trimtab.exporting import Source, export
from trimtab.exporting.refusals import REFUSALS, found, refuse

ZEROS = np.zeros


def changed(run: Path, folder: Path, part: str) -> Source:
    """A run with a part that it did not have."""
    tensors: dict[str, dict[str, Any]] = {
        "gate": {"gate.self": ZEROS((2, 2), np.float32)},
        "text_offset": {"text_offset": ZEROS((3, 32), np.float32)},
        "router": {"router": ZEROS((2, 32), np.float32)},
        "head": {"head.weight": ZEROS((2, 32), np.float32)},
        "deep": {"deep.self": ZEROS((2, 2, 4, 2, 16), np.float32)},
        "nothing": {"inputs": ZEROS((0, 32), np.float32)},
    }

    def change(metadata: dict[str, Any]) -> None:
        if part == "drawn":
            metadata["backbone"]["options"]["random_weights"] = 0
        if part == "embed_twice":
            metadata["backbone"]["options"]["embed_twice"] = True

    return Source.read(bundle_folder(run, folder, change, **tensors.get(part, {})))


@pytest.mark.parametrize("part", sorted(set(REFUSALS) - {"tuned"}))
def test_each_part_is_found_and_refused(run_of: RunOf, tmp_path: Path, part: str) -> None:
    run = run_of("gpt2")
    assert part not in found(Source.read(run).bundle)
    source = changed(run, tmp_path / "bundle", part)
    assert part in found(source.bundle)
    what = f"the prompt (prompt_tuning) cannot be exported: {REFUSALS[part].what.format(to='Morse code')}"
    with refused(BundleError, what, where=str(source.path), fix=REFUSALS[part].fix):
        refuse(source, "Morse code", *REFUSALS)
    refuse(source, "Morse code")


@pytest.mark.parametrize("to", ["peft", "vllm", "baked", "kv"])
@pytest.mark.parametrize("part", ["gate", "text_offset", "router", "drawn", "embed_twice", "nothing"])
def test_no_target_takes_what_only_a_bundle_can_say(run_of: RunOf, tmp_path: Path, part: str, to: str) -> None:
    source = changed(run_of("gpt2"), tmp_path / "bundle", part)
    with refused(BundleError, "cannot be exported", where=str(source.path), fix=REFUSALS[part].fix):
        export([source], to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["peft", "vllm", "kv"])
def test_a_prompt_on_a_trained_backbone_goes_nowhere_without_it(run_of: RunOf, tmp_path: Path, to: str) -> None:
    recipe = {
        "prompt": {"kind": "prompt_tuning", "length": 4},
        "training": {"max_steps": 1, "evaluations": 1, "learning_rates": {"backbone": 1e-5}},
    }
    source = Source.read(run_of("gpt2", recipe))
    with refused(BundleError, "the backbone was trained with it", where=str(source.path), fix="baked"):
        export([source], to, tmp_path / "out")


def test_deep_prompts_and_heads_are_no_vectors(run_of: RunOf, tmp_path: Path) -> None:
    deep = Source.read(run_of("llama", DEEP))
    for to in ("vllm", "baked"):
        with refused(BundleError, "keys and values", where=str(deep.path), fix="kv or peft"):
            export([deep], to, tmp_path / "out")
    head = Source.read(run_of("gpt2", {"prompt": {"kind": "prompt_tuning", "length": 4}, "readout": {"kind": "head"}}))
    for to in ("vllm", "peft"):
        with refused(BundleError, "a head that was trained", where=str(head.path), fix="readout of label words"):
            export([head], to, tmp_path / "out")
