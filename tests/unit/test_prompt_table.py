"""Tables of prompts: what stays with new values, rows, and those of routers."""

from __future__ import annotations

import torch

from trimtab.prompt_table import DeepPrompt, PromptTable, Routing, table_of


def whole_table() -> PromptTable:
    """Two prompts with all parts."""
    draw = torch.Generator().manual_seed(0)
    deep = DeepPrompt(
        torch.randn(2, 1, 2, 3, 1, 4, generator=draw), (0,), torch.ones(2, 1, 3, dtype=torch.bool),
        torch.randn(2, 1, 1, generator=draw), torch.tensor([True, False]),
    )  # fmt: skip
    routing = Routing(torch.randn(2, 3, 5, generator=draw), torch.tensor([3, 1]), torch.tensor([2, 6]), 0.5)
    return PromptTable(
        torch.randn(2, 6, 5, generator=draw), {"self": deep}, {"w": torch.randn(2, 7, generator=draw)},
        torch.tensor([0, 4]), torch.randn(2, 8, 5, generator=draw), routing,
    )  # fmt: skip


def test_a_table_with_other_values_keeps_what_is_not_learned() -> None:
    table = whole_table()
    assert list(table.tensors) == ["inputs", "deep.self", "gate.self", "text_offset", "router", "head.w"]
    other = table.with_tensors({name: value + 1 for name, value in table.tensors.items()})
    for name, value in other.tensors.items():
        assert torch.equal(value, table.tensors[name] + 1), name
    assert other.routing is not None
    assert table.routing is not None
    assert other.routing.counts is table.routing.counts
    assert other.routing.noise == 0.5
    assert all(value.requires_grad and value.is_leaf for value in table.detached().tensors.values())


def test_rows_of_a_table_are_whole_prompts() -> None:
    table = whole_table()
    rows = table.rows(torch.tensor([1, 1, 0]))
    for name, value in rows.tensors.items():
        assert torch.equal(value, table.tensors[name][[1, 1, 0]]), name
    assert rows.routing is not None
    assert rows.routing.counts.tolist() == [1, 1, 3]
    assert rows.routing.lengths.tolist() == [6, 6, 2]
    assert rows.routing.noise == 0.5
    assert rows.shifts is not None
    assert rows.shifts.tolist() == [4, 4, 0]


def test_a_table_of_prompts_that_are_alike_divides_its_rows_among_those_of_a_router() -> None:
    parts = {"inputs": torch.zeros(2, 6, 5), "router": torch.zeros(2, 3, 5), "text_offset": torch.zeros(2, 4, 5)}
    table = table_of(parts, noise=0.3)
    assert table.routing is not None
    assert table.routing.counts.tolist() == [3, 3]
    assert table.routing.lengths.tolist() == [2, 2]
    assert table.routing.noise == 0.3
    assert set(table.tensors) == set(parts)
