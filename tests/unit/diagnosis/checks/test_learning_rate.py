"""Learning rate: prompts that stay where they begin, and prompts that jump."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.diagnosis.cases import only, seen, toy_case
from trimtab.backbones import Backbone
from trimtab.diagnosis.case import Case


def at(folder: Path, backbone: Backbone, rate: float, **prompt: object) -> Case:
    return toy_case(folder, backbone, {"training": {"learning_rate": rate}, "prompt": prompt})


@pytest.mark.parametrize("prompt", [{}, {"kind": "deep"}, {"kind": "residual", "bottleneck": 8}], ids=str)
def test_rates_for_fine_tuning_are_found(tmp_path: Path, backbone: Backbone, prompt: dict[str, object]) -> None:
    found = only("learning_rate", at(tmp_path, backbone, 1e-5, **prompt))
    assert found.severity == "warning"
    assert "stays where it begins" in found.advice
    assert "training.learning_rate=" in found.advice


def test_a_rate_that_jumps_is_found(tmp_path: Path, backbone: Backbone) -> None:
    found = only("learning_rate", at(tmp_path, backbone, 3.0))
    assert found.severity == "warning"
    assert "It jumps" in found.advice


def test_a_rate_that_was_tuned_is_well(tmp_path: Path, backbone: Backbone) -> None:
    found = only("learning_rate", at(tmp_path, backbone, 0.05))
    assert (found.severity, found.advice) == ("ok", "")


def test_the_first_step_of_adam_is_the_rate(tmp_path: Path, backbone: Backbone) -> None:
    """Every element moves by rate times sign; the share that warm-up gives the step is taken out."""
    found = only("learning_rate", at(tmp_path, backbone, 0.05))
    assert found.numbers["unit"] == pytest.approx(backbone.embedding_rms)
    assert 0.9 < found.numbers["step"] * backbone.embedding_rms / 0.05 < 1.2


def test_deep_prompts_are_measured_by_keys_and_values(tmp_path: Path, backbone: Backbone) -> None:
    found = only("learning_rate", at(tmp_path, backbone, 0.1, kind="deep"))
    assert found.numbers["part"] == "deep.self"
    assert found.numbers["unit"] > 2 * backbone.embedding_rms


def test_words_that_are_searched_for_have_no_rate(tmp_path: Path, backbone: Backbone) -> None:
    assert seen("learning_rate", toy_case(tmp_path, backbone, {"prompt": {"kind": "discrete_search"}})) == []
