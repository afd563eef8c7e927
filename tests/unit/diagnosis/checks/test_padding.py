"""Padding: pads that are attended to, or that move positions, are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.diagnosis.cases import only, toy_case
from trimtab.backbones import Backbone, load_backbone
from trimtab.readouts.cloze import Cloze
from trimtab.types import Batch


def test_pads_that_are_attended_to_are_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = type(backbone.family)
    plain = family.hidden

    def careless(self: Any, model: Any, batch: Batch, *others: Any) -> torch.Tensor:
        return plain(self, model, replace(batch, attention_mask=torch.ones_like(batch.attention_mask)), *others)

    monkeypatch.setattr(family, "hidden", careless)
    found = only("padding", toy_case(tmp_path, backbone))
    assert found.severity == "problem"
    assert min(found.numbers["states"].values()) > 1e-2


def test_positions_that_count_pads_are_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(self: Any, model: Any, batch: Batch) -> torch.Tensor:
        return torch.arange(batch.ids.shape[1]).expand_as(batch.ids)

    monkeypatch.setattr(type(backbone.family), "positions", counted)
    found = only("padding", toy_case(tmp_path, backbone))
    assert found.severity == "problem"
    assert found.numbers["states"]["left"] > 1e-2 > 1e-4 > found.numbers["states"]["right"]


def test_a_readout_that_reads_at_its_batch_mates_place_is_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Cloze.scores
    monkeypatch.setattr(Cloze, "scores", lambda self, hidden, batch, heads: plain(self, hidden.flip(0), batch, heads))
    found = only("padding", toy_case(tmp_path, backbone))
    assert found.severity == "problem"
    assert max(found.numbers["states"].values()) < 1e-4 < found.numbers["loss"]


@pytest.mark.parametrize("prompt", ["prompt_tuning", "deep", "dept"])
def test_healthy_prompts_are_well(tmp_path: Path, backbone: Backbone, prompt: str) -> None:
    options = {"rank": 2, "text_length": 8} if prompt == "dept" else {}
    found = only("padding", toy_case(tmp_path, backbone, {"prompt": {"kind": prompt, **options}}))
    assert found.severity == "ok"
    assert set(found.numbers["states"]) == {"left", "right"}
    assert len(set(found.numbers["lengths"])) > 1, "rows of one length have no pads"


def test_rounding_of_bfloat16_is_no_defect(tmp_path: Path, tiny_folder: Path) -> None:
    own = load_backbone(str(tiny_folder), dtype="bfloat16", device="cpu")
    assert only("padding", toy_case(tmp_path, own)).severity == "ok"
