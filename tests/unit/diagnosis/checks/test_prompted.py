"""Prompted: a prompt that does not reach what is read is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from tests.tiny import toy_task
from tests.unit.diagnosis.cases import case_of, only, seen, toy_case
from trimtab import model
from trimtab.backbones import Backbone


def test_an_input_prompt_that_is_dropped_is_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "place_prompt", lambda embeds, *others: embeds)
    found = only("prompted", toy_case(tmp_path, backbone))
    assert (found.severity, found.numbers["moved"]) == ("problem", {"inputs": 0.0})


def test_a_deep_prompt_that_is_dropped_is_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "prefix_attention", lambda table, batch: None)
    recipe = {"prompt": {"kind": "deep", "input": {"kind": "prompt_tuning", "length": 5}}}
    found = only("prompted", toy_case(tmp_path, backbone, recipe))
    assert found.severity == "problem"
    assert "deep.self" in found.seen
    assert "inputs" not in found.seen


def test_an_offset_that_is_dropped_is_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmoved(embeds: Tensor, *others: object) -> Tensor:
        return embeds

    case = toy_case(tmp_path, backbone, {"prompt": {"kind": "dept", "rank": 2, "text_length": 8}})
    assert only("prompted", case).severity == "ok"
    monkeypatch.setattr(model, "offset_text", unmoved)
    assert only("prompted", case).severity == "problem"


@pytest.mark.parametrize(
    "prompt", [{}, {"kind": "deep"}, {"kind": "smop", "prompts": 2}, {"kind": "residual"}], ids=str
)
def test_prompts_that_are_read_are_well(tmp_path: Path, backbone: Backbone, prompt: dict[str, object]) -> None:
    found = only("prompted", toy_case(tmp_path, backbone, {"prompt": prompt}))
    assert found.severity == "ok"
    assert found.numbers["from_bare"] > 1e-3


def test_closed_gates_begin_as_the_bare_model_and_are_well(tmp_path: Path, backbone: Backbone) -> None:
    found = only("prompted", toy_case(tmp_path, backbone, {"prompt": {"kind": "deep", "gate": "zero"}}))
    assert found.severity == "ok"
    assert found.numbers["from_bare"] < 1e-5
    assert min(found.numbers["moved"].values()) > 1e-3
    assert "gates are closed" in found.seen


def test_without_a_prompt_nothing_is_said(tmp_path: Path, backbone: Backbone) -> None:
    assert seen("prompted", case_of(backbone, toy_task(tmp_path, template="{text}"), "none", readout="head")) == []
