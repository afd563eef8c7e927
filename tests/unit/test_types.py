"""What the dataclasses do beside holding values."""

from __future__ import annotations

import torch

from trimtab.batching import collate
from trimtab.types import DeepPrompt, Encoded, OfTask, Prediction, PromptTable, Routing, Row, table_of


def test_a_causal_sequence_is_opened_before_its_answer() -> None:
    whole = Encoded((1, 5, 5, 6, 7, 8, 9), (1, 2), (4, 5), eligible=(3, 4), dropped=2, answer_slot=5)
    assert whole.opened() == Encoded((1, 5, 5, 6, 7), (1, 2), (4,), eligible=(3, 4), dropped=2, answer_slot=5)


def test_what_stands_behind_the_answer_is_left_out() -> None:
    whole = Encoded((5, 1, 4, 5, 6), (0, 3), (1, 2), eligible=(1, 4), answer_slot=2, text=(1, 3, 4))
    assert whole.opened() == Encoded((5, 1), (0,), (1,), eligible=(1,), answer_slot=2, text=(1,))


def test_a_decoder_is_opened_behind_the_position_that_predicts_the_answer() -> None:
    whole = Encoded((1, 2, 3), (0, -1), (2, 3, 4), (1,), 0, (0, 5, 9, 7, 8), 2, (-1, 1))
    assert whole.opened() == Encoded((1, 2, 3), (0, -1), (2,), (1,), 0, (0, 5, 9), 2, (-1, 1))


def test_a_part_of_a_batch_is_as_a_batch_of_its_own() -> None:
    long, short = Encoded((1, 2, 3, 4), (0,), (1, 2), targets=(7, 8)), Encoded((1, 2), (0,), (1,), targets=(9,))
    rows = [Row(short, 0, key=0), Row(long, 1, key=1, others=(short,)), Row(short, 1, key=2, readout=1)]
    whole = collate(rows, 0)
    assert whole.rows_of(torch.tensor([1])).tolist() == [1, 2]
    for examples in ([0, 2], [1], [1, 2]):
        found, alone = whole.of(torch.tensor(examples)), collate([rows[i] for i in examples], 0)
        width = alone.ids.shape[1]
        assert torch.equal(found.ids[:, :width], alone.ids)
        assert not bool(found.attention_mask[:, width:].any())
        for name in ("answer_at", "answers", "targets", "keys", "example_of", "readout_of", "labels", "prompt_of"):
            assert torch.equal(getattr(found, name), getattr(alone, name)), name


def test_a_record_of_one_of_several_tasks_says_so() -> None:
    found = OfTask("sst2", Prediction("7", "good", {"good": 1.0}, "good"))
    assert found.id == "7"
    assert list(found.as_json().items())[:3] == [("id", "7"), ("task", "sst2"), ("label", "good")]


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
