"""Coordinates of prompts and texts: their units, and which example they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.contract import tiny_families
from tests.unit.landscape.toy_losses import toy_loss
from trimtab.backbones import Backbone, load_backbone
from trimtab.landscape.coordinates import around_prompt, around_texts, examples, keys_values_rms, units_of
from trimtab.landscape.point import LossAt
from trimtab.perturbations import TEXT


@pytest.fixture(scope="module")
def eager(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), dtype="float32", device="cpu", attention="eager")


def test_a_coordinate_of_1_is_one_unit_of_what_is_moved(eager: Backbone) -> None:
    loss = toy_loss(eager, deep=3)
    units = units_of(loss, loss.prompt)
    assert units["inputs"] == eager.embedding_rms
    assert units["deep.self"] != eager.embedding_rms
    around = around_prompt(loss)
    z = torch.randn(around.size, generator=torch.Generator().manual_seed(0))
    change = loss.prompt.split(z[None])
    moved = {name: units[name] * value for name, value in change.items()}
    torch.testing.assert_close(around.losses(z), loss.mean(moved))
    there = loss.prompt.split(around.point[None])
    for name, value in there.items():
        torch.testing.assert_close(units[name] * value, loss.table.tensors[name])


def test_keys_and_values_are_measured_against_those_of_the_bare_backbone(eager: Backbone) -> None:
    loss = toy_loss(eager, deep=3)
    other = LossAt(loss.model, loss.table.with_tensors({n: 9 * v for n, v in loss.table.tensors.items()}), loss.rows)
    assert units_of(other, other.prompt) == units_of(loss, loss.prompt)
    said = [i for p, i in enumerate(loss.rows[0].encoded.ids) if p not in loss.rows[0].encoded.slots]
    kept = eager.keys_values(torch.tensor(said))["self"]
    assert kept.shape[2] == len(loss.rows[0].encoded.ids) - 5
    assert keys_values_rms(eager, loss) == {"self": pytest.approx(float(kept.pow(2).mean() ** 0.5))}


def test_texts_have_a_block_for_each_example(eager: Backbone) -> None:
    loss = toy_loss(eager)
    around, size = around_texts(loss), eager.embedding_size
    assert around.blocks == 6
    assert around.sizes().tolist() == [n * size for n in loss.tokens_of_text]
    assert around.size == loss.text.shapes[TEXT][0] * size
    z = torch.randn(around.size, generator=torch.Generator().manual_seed(0)) * (examples(loss) == 2)
    changed = (around.losses(z) - around.losses(around.origin())).abs() > 1e-6
    assert changed.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("name", ["llama", "t5", "deberta-v2"])
def test_other_families_have_units(tmp_path: Path, name: str) -> None:
    folder = tiny_families.BUILDERS[name](tmp_path)
    model = load_backbone(str(folder), dtype="float32", device="cpu", attention="eager")
    units = units_of(toy_loss(model, 2, deep=2), toy_loss(model, 2, deep=2).prompt)
    assert units.keys() == {"inputs", *(f"deep.{site}" for site in model.sites)}
    assert all(u > 0 for u in units.values())
