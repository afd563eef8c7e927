"""Frozen: a backbone that is touched is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_backbone
from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone
from trimtab.training.loop import Loop


def test_a_weight_that_changes_is_found(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny_backbone(tiny_folder)
    plain = Loop._update

    def careless(self: Loop, *given: Any) -> None:
        plain(self, *given)
        with torch.no_grad():
            own.model.cls.predictions.bias[3] += 1e-6

    monkeypatch.setattr(Loop, "_update", careless)
    found = only("frozen", toy_case(tmp_path, own))
    assert (found.severity, found.numbers["changed"]) == ("problem", ["cls.predictions.bias"])


def test_weights_that_ask_for_gradients_are_found(tmp_path: Path, tiny_folder: Path) -> None:
    own = tiny_backbone(tiny_folder)
    own.model.bert.embeddings.LayerNorm.weight.requires_grad_()
    found = only("frozen", toy_case(tmp_path, own))
    assert (found.severity, found.numbers["require_gradients"]) == ("problem", ["bert.embeddings.LayerNorm.weight"])


@pytest.mark.parametrize("training", [{}, {"learning_rates": {"backbone": 1e-3}}], ids=str)
def test_a_shared_backbone_that_stays_is_well(tmp_path: Path, backbone: Backbone, training: dict[str, Any]) -> None:
    found = only("frozen", toy_case(tmp_path, backbone, {"training": training}))
    assert found.severity == "ok"
    assert ("a copy of its own" in found.seen) == bool(training)
