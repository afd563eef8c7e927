"""Save and load: a prompt that comes back changed is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny import facts_task, tagged_task
from tests.unit.diagnosis.cases import case_of, only, toy_case
from trimtab import loading
from trimtab.backbones import Backbone
from trimtab.prompt_table import PromptTable
from trimtab.storage import Bundle


def test_a_prompt_that_is_rounded_on_the_way_is_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Callable[[Bundle, torch.device], PromptTable] = loading.table_from

    def rounded(bundle: Bundle, device: torch.device) -> PromptTable:
        table = plain(bundle, device)
        return table.with_tensors({**table.tensors, "inputs": table.inputs.bfloat16().float()})

    monkeypatch.setattr(loading, "table_from", rounded)
    found = only("save_load", toy_case(tmp_path, backbone))
    assert found.severity == "problem"
    assert 0 < found.numbers["apart"] < 1


@pytest.mark.parametrize("recipe", [
    {},
    {"prompt": {"kind": "deep", "gate": "zero"}, "readout": {"kind": "head"}},
    {"prompt": {"kind": "smop", "prompts": 2}},
    {"training": {"learning_rates": {"backbone": 1e-3}}},
], ids=str)  # fmt: skip
def test_prompts_of_classes_come_back(tmp_path: Path, backbone: Backbone, recipe: dict[str, dict[str, object]]) -> None:
    found = only("save_load", toy_case(tmp_path, backbone, recipe))
    assert (found.severity, found.numbers["apart"]) == ("ok", 0.0)
    assert found.numbers["bytes"] > 0


@pytest.mark.parametrize(("section", "length"), [(tagged_task, 5), (facts_task, 9)])
def test_prompts_of_other_tasks_come_back(
    tmp_path: Path, backbone: Backbone, section: Callable[[Path], dict[str, object]], length: int
) -> None:
    case = case_of(backbone, section(tmp_path), {"kind": "prompt_tuning", "length": length})
    assert only("save_load", case).severity == "ok"
