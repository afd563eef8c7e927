"""Gradients: rows and parameters that learn nothing are found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import toy_task
from tests.unit.diagnosis.cases import case_of, only, seen, toy_case
from trimtab import model
from trimtab.backbones import Backbone
from trimtab.diagnosis.checks.gradients import by_row
from trimtab.injection import place_prompt
from trimtab.prompt_table import PromptTable
from trimtab.readouts.classes import Classes
from trimtab.training.encoder_pack import EncoderPack
from trimtab.types import Batch

MANY = [{"kind": "prompt_tuning"}, {"kind": "p_tuning_lstm"}, {"kind": "residual", "bottleneck": 8}, {"kind": "deep"},
        {"kind": "deep", "gate": "zero"}, {"kind": "dpt", "rank": 2}]  # fmt: skip


@pytest.mark.parametrize("prompt", MANY, ids=str)
def test_prompts_that_learn_are_well(tmp_path: Path, backbone: Backbone, prompt: dict[str, object]) -> None:
    found = only("gradients", toy_case(tmp_path, backbone, {"prompt": prompt}))
    assert (found.severity, found.advice) == ("ok", "")


@pytest.mark.parametrize("readout", ["cloze", "head"])
def test_rows_that_are_cut_off_are_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, readout: str
) -> None:
    def place_all_but_two(embeds: Tensor, table: PromptTable, batch: Batch, *route: object) -> Tensor:
        inputs = torch.cat([table.inputs[:, :2].detach(), table.inputs[:, 2:]], dim=1)
        return place_prompt(embeds, table.with_tensors({**table.tensors, "inputs": inputs}), batch, *route)

    monkeypatch.setattr(model, "place_prompt", place_all_but_two)
    found = only("gradients", toy_case(tmp_path, backbone, {"readout": {"kind": readout}}))
    assert found.severity == "problem"
    assert found.numbers["without"] == {"inputs": [[0], [1]]}
    assert "2 rows of inputs" in found.seen


def test_parameters_that_learn_nothing_are_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EncoderPack, "backward", lambda self, table, leaf: None)
    found = only("gradients", toy_case(tmp_path, backbone))
    assert (found.severity, found.numbers["parameters_without"]) == ("problem", ["rows"])


def test_a_loss_that_is_not_finite_is_found(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classes, "loss", lambda self, scores, labels: scores.sum(1) * torch.nan)
    found = only("gradients", toy_case(tmp_path, backbone))
    assert found.severity == "problem"
    assert "not finite" in found.seen


def test_offsets_behind_the_longest_text_are_a_note(tmp_path: Path, backbone: Backbone) -> None:
    recipe = {"prompt": {"kind": "dept", "rank": 2, "text_length": 40}}
    note, rest = seen("gradients", toy_case(tmp_path, backbone, recipe))
    assert (note.severity, rest.severity) == ("note", "ok")
    assert f"prompt.text_length={note.numbers['longest']}" in note.advice


def test_prompts_that_were_not_chosen_are_a_note(tmp_path: Path, backbone: Backbone) -> None:
    recipe = {"prompt": {"kind": "smop", "prompts": 20, "length": 5}, "training": {"batch_size": 2}}
    found = only("gradients", toy_case(tmp_path, backbone, recipe))
    assert found.severity == "note"
    assert "did not choose" in found.seen


def test_a_head_alone_has_rows_too(tmp_path: Path, backbone: Backbone) -> None:
    found = only("gradients", case_of(backbone, toy_task(tmp_path, template="{text}"), "none", readout="head"))
    assert found.seen.startswith("all 4 rows")


def test_where_nothing_is_trained_nothing_is_said(tmp_path: Path, backbone: Backbone) -> None:
    assert seen("gradients", case_of(backbone, toy_task(tmp_path, template="{text} {answer}."), "manual")) == []


def test_rows_of_deep_prompts_are_layers_and_virtual_tokens() -> None:
    gradient = torch.zeros(2, 2, 3, 1, 4)
    gradient[1, 0, 2] = 1.0
    assert by_row("deep.self", gradient).tolist() == [[0, 0, 0], [0, 0, 4]]
