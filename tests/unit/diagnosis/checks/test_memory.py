"""Memory: what a run will take, counted and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis.checks import memory
from trimtab.diagnosis.checks.memory import saved_bytes


def free(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: size)


def test_what_does_not_fit_is_found(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1 << 40)
    case = toy_case(tmp_path, backbone)
    found = only("memory", case)
    assert found.severity == "ok"
    needed = found.numbers["training"] + found.numbers["activations"]
    free(monkeypatch, round(needed * 1.1))
    assert only("memory", case).severity == "warning"
    free(monkeypatch, needed - 1)
    problem = only("memory", case)
    assert problem.severity == "problem"
    assert "training.max_tokens=512" in problem.advice
    free(monkeypatch, None)
    assert "not known" in only("memory", case).seen


def test_what_is_trained_is_counted(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, None)
    numbers = only("memory", toy_case(tmp_path, backbone)).numbers
    assert numbers["weights"] > 4 * backbone.parameter_count
    trained = 4 * 5 * 32  # P E float32
    assert numbers["training"] == 5 * trained + 8  # itself, gradient, best, two moments, and the count of steps
    assert numbers["copy"] == 0
    tuned = only("memory", toy_case(tmp_path, backbone, {"training": {"learning_rates": {"backbone": 1e-3}}})).numbers
    assert tuned["copy"] == 4 * backbone.parameter_count
    assert tuned["training"] > 4 * tuned["copy"]


def test_activations_grow_with_the_rows_and_shrink_with_recomputing(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, None)
    case = toy_case(tmp_path, backbone)
    row = case.sample[-1]
    one, four = saved_bytes(case, [row]), saved_bytes(case, [row] * 4)
    assert 3.5 * one < four < 4.1 * one
    large, small = (
        only("memory", toy_case(tmp_path, backbone, {"training": training})).numbers["activations"]
        for training in ({"batch_size": 8}, {"batch_size": 8, "recompute_layers": True})
    )
    assert small < 0.6 * large
    assert one * 7 < large < one * 9
    assert torch.is_grad_enabled()
