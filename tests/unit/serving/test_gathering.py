"""Tables of prompts that differ: each row of the joined table is its prompt, and nothing of the others."""

from __future__ import annotations

import torch

from tests.serving_bundles import variety
from trimtab.backbones import Backbone
from trimtab.loading import from_bundle
from trimtab.prompt_table import PromptTable
from trimtab.serving.gathering import heads_of, joined, stacked


def tables(backbone: Backbone, *names: str) -> list[PromptTable]:
    found = [from_bundle(variety(backbone)[name], backbone).table for name in names]
    return [t for t in found if t is not None]


def test_prompts_of_other_lengths_are_padded_with_zeros(backbone: Backbone) -> None:
    short, long = tables(backbone, "short", "long")
    both = joined([short, long])
    assert both.inputs.shape == (2, 7, 32)
    torch.testing.assert_close(both.inputs[0, :1], short.inputs[0])
    torch.testing.assert_close(both.inputs[1], long.inputs[0])
    assert not both.inputs[0, 1:].any()
    assert (both.deep, both.shifts, both.offsets, both.routing, both.heads) == ({}, None, None, None, {})


def test_layers_are_those_of_any_prompt_and_seen_by_whom_has_them(backbone: Backbone) -> None:
    plain, deep, one, gated = tables(backbone, "short", "deep", "deep1", "gated")
    found = joined([plain, deep, one, gated]).deep["self"]
    assert found.layers == (0, 1)
    assert found.keys_values.shape[:4] == (4, 2, 2, 4)
    assert found.visible.sum((1, 2)).tolist() == [0, 8, 2, 6]
    torch.testing.assert_close(found.keys_values[2, 1, :, :2], one.deep["self"].keys_values[0, 0])
    assert not found.visible[2, 0].any()
    assert found.gated is not None
    assert found.gated.tolist() == [False, False, False, True]
    assert found.gates is not None
    torch.testing.assert_close(found.gates[3], gated.deep["self"].gates[0])  # type: ignore[index]
    assert not found.gates[:3].any()


def test_offsets_routers_and_shifts_stay_with_their_prompts(backbone: Backbone) -> None:
    plain, offset, routed, shifted = tables(backbone, "short", "offset", "routed", "shifted")
    both = joined([plain, offset, routed, shifted])
    assert both.shifts is not None
    assert both.shifts.tolist() == [0, 0, 0, 3]
    assert both.offsets is not None
    assert not both.offsets[[0, 2, 3]].any()
    torch.testing.assert_close(both.offsets[1], offset.offsets[0])  # type: ignore[index]
    assert both.routing is not None
    assert both.routing.counts.tolist() == [1, 1, 3, 1]
    assert both.routing.lengths.tolist()[2] == 2


def test_one_row_of_each_is_the_whole_of_a_list_of_one(backbone: Backbone) -> None:
    for name in ("short", "deep", "gated", "offset", "routed"):
        (table,) = tables(backbone, name)
        ours = joined([table]).tensors
        for part, value in table.tensors.items():
            torch.testing.assert_close(ours[part], value)


def test_heads_of_one_shape_are_stacked(backbone: Backbone) -> None:
    one, other = tables(backbone, "head", "head")
    assert heads_of([one, other])["weight"].shape == (2, 2, 32)
    assert heads_of([]) == {}
    padded = stacked([torch.ones(1, 1, 3), torch.ones(1, 2, 1)])
    assert padded.tolist() == [[[1, 1, 1], [0, 0, 0]], [[1, 0, 0], [1, 0, 0]]]
