"""Dropout: random backbones are found."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import tiny_backbone
from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone


def test_dropout_in_a_frozen_backbone_is_a_warning(tmp_path: Path, backbone: Backbone) -> None:
    found = only("dropout", toy_case(tmp_path, backbone, {"backbone": {"dropout": True}}))
    assert found.severity == "warning"
    assert "backbone.dropout=false" in found.advice


def test_a_backbone_in_training_mode_is_a_problem(tmp_path: Path, tiny_folder: Path) -> None:
    own = tiny_backbone(tiny_folder)
    case = toy_case(tmp_path, own)
    own.model.bert.encoder.train()
    assert only("dropout", case).severity == "problem"


def test_a_backbone_that_is_trained_without_it_is_a_note(tmp_path: Path, backbone: Backbone) -> None:
    rates = {"training": {"learning_rates": {"backbone": 1e-3}}}
    assert only("dropout", toy_case(tmp_path, backbone, rates)).severity == "note"
    assert only("dropout", toy_case(tmp_path, backbone, {**rates, "backbone": {"dropout": True}})).severity == "ok"


def test_none_is_well(tmp_path: Path, backbone: Backbone) -> None:
    assert only("dropout", toy_case(tmp_path, backbone)).severity == "ok"
