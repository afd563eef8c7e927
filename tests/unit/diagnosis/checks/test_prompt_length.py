"""Prompt length: how much of the context the prompt takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.diagnosis.cases import only, seen, toy_case
from trimtab.backbones import Backbone


@pytest.mark.parametrize(("length", "severity"), [(5, "ok"), (20, "note"), (40, "warning")])
def test_long_prompts_are_found(tmp_path: Path, backbone: Backbone, length: int, severity: str) -> None:
    found = only("prompt_length", toy_case(tmp_path, backbone, {"prompt": {"length": length}}))
    assert (found.severity, found.numbers["slots"]) == (severity, length)
    assert ("prompt.length" in found.advice) == (severity != "ok")


def test_a_deep_prompt_that_moves_the_text_takes_positions(tmp_path: Path, backbone: Backbone) -> None:
    recipe = {"prompt": {"kind": "deep", "length": 40, "shift_positions": True}}
    assert only("prompt_length", toy_case(tmp_path, backbone, recipe)).severity == "warning"
    recipe["prompt"]["shift_positions"] = False
    assert seen("prompt_length", toy_case(tmp_path, backbone, recipe)) == []
