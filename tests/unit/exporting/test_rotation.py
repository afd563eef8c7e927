"""Turned keys, against rotations written out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.contract.tiny_families import gemma
from tests.tiny import tiny_backbone
from tests.unit.exporting.conftest import RunOf
from trimtab.backbones import Backbone
from trimtab.exporting import Source
from trimtab.exporting.rotation import is_rotary, turned_on


def backbone_of(run_of: RunOf, name: str) -> Backbone:
    found: Backbone = Source.read(run_of(name)).predictor.model.backbone
    return found


def test_keys_are_turned_pair_by_pair_and_values_stay(run_of: RunOf) -> None:
    backbone = backbone_of(run_of, "llama")
    values = torch.randn(2, 2, 3, 1, 16, generator=torch.Generator().manual_seed(0))
    turned = turned_on(values, backbone, 5)
    assert torch.equal(turned[:, 1], values[:, 1])
    theta = backbone.model.config.rope_parameters["rope_theta"]
    for layer in range(2):
        for token in range(3):
            for i in range(8):
                angle = 5 * theta ** (-2 * i / 16)
                a, b = (float(values[layer, 0, token, 0, j]) for j in (i, i + 8))
                wanted = (
                    a * math.cos(angle) - b * math.sin(angle),
                    b * math.cos(angle) + a * math.sin(angle),
                )
                got = [float(turned[layer, 0, token, 0, j]) for j in (i, i + 8)]
                assert got == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt_neox", "gemma3_text"])
def test_turning_back_undoes_it_and_half_heads_stay_in_part(run_of: RunOf, name: str) -> None:
    backbone = backbone_of(run_of, name)
    site = backbone.sites["self"]
    values = torch.randn(1, 2, 3, site.heads, site.size, generator=torch.Generator().manual_seed(0))
    turned = turned_on(values, backbone, 7, (1,))
    assert not torch.allclose(turned, values, atol=1e-2)
    assert torch.allclose(turned_on(turned, backbone, -7, (1,)), values, atol=1e-5)
    if name == "gpt_neox":
        assert torch.equal(turned[..., 8:], values[..., 8:]), "half of each head is rotated"


def test_layers_of_gemma_3_differ_in_their_base(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"]
    backbone = tiny_backbone(gemma(tmp_path / "model", "Gemma3", sliding_window=16, layer_types=kinds))
    values = torch.randn(1, 2, 3, 1, 16, generator=torch.Generator().manual_seed(0))
    near, far = (turned_on(values, backbone, 7, (layer,)) for layer in range(2))
    assert not torch.allclose(near, far, atol=1e-3)


def test_models_without_rotary_positions_are_known(run_of: RunOf) -> None:
    assert is_rotary(backbone_of(run_of, "llama"))
    assert not is_rotary(backbone_of(run_of, "gpt2"))
