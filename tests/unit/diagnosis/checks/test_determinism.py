"""Determinism: steps that differ from one time to the other are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import toy_task
from tests.unit.diagnosis.cases import case_of, only, seen, toy_case
from trimtab.backbones import Backbone
from trimtab.prompt_table import PromptTable
from trimtab.training.encoder_pack import EncoderPack


def test_random_numbers_that_no_seed_decides_are_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = EncoderPack.table

    def noisy(self: EncoderPack, **options: Any) -> PromptTable:
        table = plain(self, **options)
        return table.with_tensors({**table.tensors, "inputs": table.inputs + 1e-3 * torch.randn(table.inputs.shape)})

    monkeypatch.setattr(EncoderPack, "table", noisy)
    found = only("determinism", toy_case(tmp_path, backbone))
    assert found.severity == "problem"
    assert found.numbers["losses"] != found.numbers["again"]


def test_dropout_from_the_seeds_is_well(tmp_path: Path, backbone: Backbone) -> None:
    recipe = {"prompt": {"kind": "residual", "bottleneck": 8, "dropout": 0.3}, "backbone": {"dropout": True}}
    assert only("determinism", toy_case(tmp_path, backbone, recipe)).severity == "ok"


def test_where_nothing_is_trained_nothing_is_said(tmp_path: Path, backbone: Backbone) -> None:
    case = case_of(backbone, toy_task(tmp_path, template="{text} {answer}."), "manual")
    assert seen("determinism", case) == []
