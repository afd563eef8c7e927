"""Dtype: what the device imitates, and what is not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_backbone
from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone, load_backbone
from trimtab.diagnosis.checks import dtype


def test_a_dtype_that_the_device_imitates_is_a_warning(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_backbone(str(tiny_folder), dtype="bfloat16", device="cpu")
    monkeypatch.setattr(dtype, "resolve_dtype", lambda kind, device: torch.float32)
    found = only("dtype", toy_case(tmp_path, own))
    assert found.severity == "warning"
    assert "backbone.dtype=float32" in found.advice
    monkeypatch.setattr(dtype, "resolve_dtype", lambda kind, device: torch.bfloat16)
    assert only("dtype", toy_case(tmp_path, own)).severity == "ok"


def test_states_that_are_not_finite_are_a_problem(tmp_path: Path, tiny_folder: Path) -> None:
    own = tiny_backbone(tiny_folder)
    case = toy_case(tmp_path, own)
    with torch.no_grad():
        own.model.bert.encoder.layer[0].output.dense.bias[0] = torch.inf
    found = only("dtype", case)
    assert (found.severity, found.numbers["broken"]) == ("problem", len(case.sample))


def test_float32_is_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("dtype", toy_case(tmp_path, backbone)).severity == "ok"
