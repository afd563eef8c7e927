"""Presets: chosen on dev, by the rule that is written down, and those of the package are what the rule gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trimtab.backbones.family import Family
from trimtab.config import resolve
from trimtab.drafting.presets import FILE, Preset, presets
from trimtab.registry import families

SCRIPTS = Path(__file__).parents[2] / "scripts"
Make = Callable[..., Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("presets")


@pytest.fixture
def run(script: ModuleType) -> Make:
    def make(cell: str, rate: float, dev: float, *, seed: int = 0, length: int = 10) -> Any:
        return script.Run("masked", "residual", cell, seed, rate, length, "sampled_vocab", dev)

    return make


def test_the_packages_presets_are_what_the_published_studies_give(script: ModuleType) -> None:
    assert FILE.read_text() == script.as_yaml(script.outcome(script.read()))


def test_every_architecture_has_the_methods_of_the_three_papers() -> None:
    methods = ("prompt_tuning", "p_tuning_lstm", "residual", "deep")
    assert set(presets()) == {(a, m) for a in ("masked", "causal", "seq2seq") for m in methods}
    assert {family.architecture for kind in families.kinds() if issubclass(family := families.get(kind), Family)} == {
        architecture for architecture, _ in presets()
    }


@pytest.mark.parametrize(("architecture", "method"), list(presets()))
def test_every_preset_is_a_recipe(architecture: str, method: str) -> None:
    preset = presets()[architecture, method]
    training = {"learning_rate": preset.learning_rate}
    recipe = {"task": {"kind": "sst2"}, "prompt": {"kind": method, **preset.prompt()}, "training": training}
    config = resolve({"backbone": {"model": f"nano-{architecture}"}, **recipe}).config
    assert (config.training.learning_rate, config.prompt["length"]) == (preset.learning_rate, preset.length)


def test_a_rate_must_do_on_every_cell(script: ModuleType, run: Make) -> None:
    runs = [run("a", 0.1, 0.9), run("a", 0.2, 0.8), run("b", 0.1, 0.3), run("b", 0.2, 0.7)]
    assert script.losses(runs) == {0.1: pytest.approx(0.2), 0.2: pytest.approx(0.05)}
    assert script.choose(runs)[0].learning_rate == 0.2


def test_a_rate_that_a_cell_has_not_tried_cannot_be_chosen(script: ModuleType, run: Make) -> None:
    assert set(script.losses([run("a", 0.1, 0.9), run("a", 0.2, 0.1), run("b", 0.2, 0.1)])) == {0.2}


def test_of_equal_rates_the_lowest_is_chosen(script: ModuleType, run: Make) -> None:
    assert script.choose([run("a", 0.2, 0.5), run("a", 0.1, 0.5)])[0].learning_rate == 0.1


def test_differences_are_of_the_same_seed_and_cell(script: ModuleType, run: Make) -> None:
    base = [run(cell, 0.1, 0.5, seed=seed) for cell in "ab" for seed in range(2)]
    longer = [run(r.cell, 0.1, 0.6 + 0.1 * r.seed, seed=r.seed, length=20) for r in base]
    alone = run("c", 0.1, 0.0, length=20)
    (found,) = script.gains([*base, *longer, alone], "length", 10)
    assert (found.value, found.pairs) == (20, 4)
    assert (found.mean, found.low, found.high) == pytest.approx((0.15, 0.0581, 0.2419), abs=1e-4)


@pytest.mark.parametrize(("gained", "length"), [((0.1, 0.1, 0.12), 20), ((0.4, -0.3, 0.1), 10)])
def test_the_standard_stays_unless_another_is_better_beyond_chance(
    gained: tuple[float, ...], length: int, script: ModuleType, run: Make
) -> None:
    base = [run("a", 0.1, 0.5, seed=seed) for seed in range(3)]
    longer = [run("a", 0.1, 0.5 + more, seed=seed, length=20) for seed, more in enumerate(gained)]
    assert script.choose(base + longer)[0] == Preset(0.1, length, "sampled_vocab")
