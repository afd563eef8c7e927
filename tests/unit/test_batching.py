"""Collation, micro-batches under a token budget, and the order of an epoch."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.batching import collate, epoch_batches, micro_batches
from trimtab.types import Encoded, Row

PAD = 0


def row(ids: list[int], slots: list[int] = [], prompt: int = -1, key: int = 0) -> Row:  # noqa: B006
    """A row whose answer is its last token and whose other text is eligible."""
    eligible = tuple(i for i in range(len(ids) - 1) if i not in slots)
    return Row(Encoded(tuple(ids), tuple(slots), (len(ids) - 1,), eligible), label=1, prompt=prompt, key=key)


@st.composite
def row_arguments(draw: st.DrawFn) -> tuple[list[int], list[int], int, int]:
    """What `row` is given (rows themselves cannot be built in here: their type checks draw random numbers)."""
    ids = draw(st.lists(st.integers(1, 99), min_size=2, max_size=9))
    slots = draw(st.lists(st.integers(0, len(ids) - 2), unique=True, max_size=3))
    return ids, sorted(slots), draw(st.integers(-1, 3)), draw(st.integers(0, 99))


def test_right_padding_in_full() -> None:
    batch = collate([row([5, 6, 7], [1], prompt=2, key=8), row([9, 4])], PAD)
    assert batch.ids.tolist() == [[5, 6, 7], [9, 4, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 1]]
    assert batch.slots.tolist() == [[1], [-1]]
    assert batch.answer_at.tolist() == [[2], [1]]
    assert batch.eligible.tolist() == [[True, False, False], [True, False, False]]
    assert (batch.prompt_of.tolist(), batch.labels.tolist(), batch.keys.tolist()) == ([2, -1], [1, 1], [8, 0])


def test_text_is_marked_where_it_stands_on_either_side() -> None:
    rows = [Row(Encoded((5, 6, 7), (1,), (2,), text=(0, 2))), Row(Encoded((9, 4), (), (1,), text=(1,)))]
    right, left = collate(rows, PAD).text, collate(rows, PAD, "left").text
    assert right is not None
    assert left is not None
    assert right.tolist() == [[True, False, True], [False, True, False]]
    assert left.tolist() == [[True, False, True], [False, False, True]]
    assert collate([row([5, 6])], PAD).text is None


def test_left_padding_shifts_every_position_and_counts_real_tokens_from_zero() -> None:
    batch = collate([row([5, 6, 7], [1], prompt=0), row([9, 4], [0], prompt=1)], PAD, "left")
    assert batch.ids.tolist() == [[5, 6, 7], [PAD, 9, 4]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert (batch.slots.tolist(), batch.answer_at.tolist()) == ([[1], [1]], [[2], [2]])


@pytest.mark.parametrize("side", ["left", "right"])
def test_variants_of_an_example_are_rows_of_the_batch(side: Literal["left", "right"]) -> None:
    first, second = Encoded((5, 6, 7), (1,), (2,)), Encoded((5, 6, 7, 8), (1,), (2, 3))
    rows = [row([9, 4], prompt=2), Row(first, 1, 0, 3, 8, (second,)), row([3], prompt=1)]
    batch = collate(rows, PAD, side)
    assert (len(batch), batch.example_of.tolist(), batch.first_row.tolist()) == (4, [0, 1, 1, 2], [0, 1, 3])
    assert (batch.prompt_of.tolist(), batch.prompt_of_example.tolist()) == ([2, 0, 0, 1], [2, 0, 1])
    assert (batch.readout_of.tolist(), batch.keys.tolist()) == ([0, 3, 0], [0, 8, 8, 0])
    shift = [2, 1, 0, 3] if side == "left" else [0] * 4
    real = [a[: 2 if b == 2 else 1] for b, a in enumerate(batch.answer_at.tolist())]
    assert real == [[1 + shift[0]], [2 + shift[1]], [2 + shift[2], 3 + shift[2]], [0 + shift[3]]]
    assert batch.slots.tolist() == [[-1], [1 + shift[1]], [1], [-1]] or side == "left"
    assert rows[1].cost == 8


@pytest.mark.parametrize("side", ["left", "right"])
def test_slots_in_the_decoder_are_not_slots_in_the_text(side: Literal["left", "right"]) -> None:
    both = Encoded((5, 6), (0, -1), (2,), decoder=(1, 3, 2), decoder_slots=(-1, 1))
    long = Encoded((5, 6, 7), (), (0,), decoder=(1,))
    batch = collate([Row(both, prompt=0), Row(long)], PAD, side)
    assert batch.slots.tolist() == [[1 if side == "left" else 0, -1], [-1, -1]]
    assert batch.decoder_slots is not None
    assert batch.decoder_slots.tolist() == [[-1, 1], [-1, -1]]
    assert collate([Row(long)], PAD, side).decoder_slots is None
    moved = batch.to("cpu").decoder_slots
    assert moved is not None
    assert torch.equal(moved, batch.decoder_slots)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_is_padded_on_the_right_and_read_where_its_plan_says(side: Literal["left", "right"]) -> None:
    short, long = Encoded((5, 6), (), (1,), decoder=(1, 2)), Encoded((5, 6, 7), (), (1, 2), decoder=(1, 2, 3))
    batch = collate([Row(short), Row(long)], PAD, side)
    assert batch.decoder_ids is not None
    assert batch.decoder_ids.tolist() == [[1, 2, PAD], [1, 2, 3]]
    assert batch.answer_at.tolist() == [[1, 0], [1, 2]]


@settings(max_examples=60, deadline=None)
@given(st.lists(row_arguments(), min_size=1, max_size=5))
def test_left_and_right_padding_hold_the_same_rows(arguments: list[tuple[list[int], list[int], int, int]]) -> None:
    given_rows = [row(*a) for a in arguments]
    batches = {side: collate(given_rows, PAD, side) for side in ("left", "right")}
    for b, r in enumerate(given_rows):
        e = r.encoded
        for batch in batches.values():
            real = batch.attention_mask[b].bool()
            assert batch.ids[b][real].tolist() == list(e.ids)
            assert batch.position_ids[b][real].tolist() == list(range(len(e)))
            assert batch.eligible[b][real].nonzero().flatten().tolist() == list(e.eligible)
            assert not batch.eligible[b][~real].any()
            assert (batch.ids[b][~real] == PAD).all()
            slots = batch.slots[b][batch.slots[b] >= 0]
            assert [int(real.cumsum(0)[s]) - 1 for s in slots] == list(e.slots)
            assert int(real.cumsum(0)[batch.answer_at[b, 0]]) - 1 == e.answer_at[0]
    for name in ("prompt_of", "readout_of", "labels", "keys"):
        assert torch.equal(getattr(batches["left"], name), getattr(batches["right"], name))


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 120))
def test_micro_batches_hold_each_row_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    longest = [lengths[group[0]] for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_micro_batches_are_no_smaller_than_the_budget_allows() -> None:
    assert micro_batches([4] * 10, 12) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert micro_batches([30, 4, 4], 12) == [[0], [1, 2]]
    assert micro_batches([], 12) == []


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 120), st.integers(0, 40))
def test_a_group_is_divided_where_that_is_worth_a_pass_and_nowhere_else(
    lengths: list[int], budget: int, worth: int
) -> None:
    whole, parts = micro_batches(lengths, budget), micro_batches(lengths, budget, worth)
    assert [i for part in parts for i in part] == [i for group in whole for i in group]
    assert {group[0] for group in whole} <= {part[0] for part in parts}
    for part in parts:
        for k in range(1, len(part)):
            assert (len(part) - k) * (lengths[part[0]] - lengths[part[k]]) <= worth
    assert padding_share(whole, lengths) >= padding_share(parts, lengths)


def padding_share(groups: list[list[int]], lengths: list[int]) -> float:
    """How much of what a model reads is padding."""
    read = sum(len(group) * max(lengths[i] for i in group) for group in groups)
    return 1 - sum(lengths[i] for group in groups for i in group) / read


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_texts_as_unequal_as_those_of_boolq_are_read_with_at_most_5_percent_padding(size: int) -> None:
    drawn = np.random.default_rng(0).lognormal(4.95, 0.42, 1600)
    lengths = [int(n) for n in drawn.clip(30, 512)]
    batches = epoch(lengths, size, buckets=8)
    cut = [[b[i] for i in part] for b in batches for part in micro_batches([lengths[i] for i in b], 2048, worth=64)]
    assert padding_share(batches, lengths) > 0.06
    assert padding_share(cut, lengths) < 0.05
    assert len(cut) < 2.1 * sum(len(micro_batches([lengths[i] for i in b], 2048)) for b in batches)
    assert padding_share(micro_batches(lengths, 2048, worth=64), lengths) < 0.05


def epoch(lengths: list[int], size: int, seed: int = 0, buckets: int = 1) -> list[list[int]]:
    return list(epoch_batches(lengths, size, np.random.default_rng(seed), buckets))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=120), st.integers(1, 20), st.integers(1, 9), st.integers(0, 9))
def test_an_epoch_holds_each_row_once_in_batches_of_equal_size(
    lengths: list[int], size: int, buckets: int, seed: int
) -> None:
    batches = epoch(lengths, size, seed, buckets)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert batches == epoch(lengths, size, seed, buckets)


@pytest.mark.parametrize("buckets", [1, 3])
def test_another_seed_gives_another_order(buckets: int) -> None:
    lengths = [1 + i % 7 for i in range(64)]
    assert epoch(lengths, 4, 0, buckets) != epoch(lengths, 4, 1, buckets)


def test_buckets_put_similar_lengths_together_but_mix_the_batches() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 100, 320)]

    def padding(batches: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in b) - lengths[j] for b in batches for j in b)

    plain, bucketed = epoch(lengths, 8, 0, 1), epoch(lengths, 8, 0, 8)
    assert padding(bucketed) < padding(plain) / 3
    first_pool = [float(np.mean([lengths[i] for i in b])) for b in bucketed[:8]]
    assert first_pool != sorted(first_pool)


def test_an_epoch_of_few_batches_is_not_sorted_by_length() -> None:
    lengths = list(range(1, 33))
    assert epoch(lengths, 8, 0, buckets=4) == epoch(lengths, 8, 0, buckets=1)
    assert epoch(lengths, 8, 0, buckets=3) != epoch(lengths, 8, 0, buckets=1)


def test_what_a_decoder_reads_costs_too() -> None:
    encoded = Encoded((1, 2, 3), (), (0,), decoder=(4, 5))
    assert Row(encoded).cost == 5
    assert Row(encoded, others=(Encoded((1, 2, 3), (), (0,), decoder=(4, 5, 6)),)).cost == 12
