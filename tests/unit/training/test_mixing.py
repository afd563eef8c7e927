"""Which rows an epoch has."""

from __future__ import annotations

from collections import Counter

import pytest

from trimtab.config import Seeds, TrainingConfig
from trimtab.training.loop import Member
from trimtab.training.mixing import Mixture, mixture
from trimtab.types import Encoded, Row


@pytest.mark.parametrize(
    ("sizes", "shares", "counts"),
    [
        ((10, 10), (0.5, 0.5), (10, 10)),
        ((90, 10), (0.5, 0.5), (50, 50)),
        ((7, 2, 1), (1 / 3, 1 / 3, 1 / 3), (4, 3, 3)),
        ((1000, 1), (1.0 - 1e-9, 1e-9), (1000, 1)),
        ((3, 1), (0.0001, 0.9999), (1, 3)),
    ],
)
def test_an_epoch_has_as_many_rows_as_there_are(
    sizes: tuple[int, ...], shares: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    found = mixture(sizes, shares)
    assert found is not None
    assert found.counts == counts
    assert sum(found.counts) == sum(sizes)
    assert len(found.rows(13, 4)) == sum(sizes)


def test_without_shares_there_is_no_mixture() -> None:
    assert mixture([3, 4], ()) is None


def test_rows_of_a_task_are_seen_equally_often() -> None:
    its, seen = Mixture((3, 10), (8, 5)), Counter[int]()
    for epoch in range(7):
        rows = its.rows(13, epoch)
        assert sum(i < 3 for i in rows) == 8
        seen.update(rows)
        first, second = ([seen[i] for i in part] for part in (range(3), range(3, 13)))
        assert max(first) - min(first) <= 1
        assert max(second) - min(second) <= 1


def test_what_is_dealt_depends_on_seed_and_epoch_alone() -> None:
    its = Mixture((5, 9), (7, 7))
    assert its.rows(1, 3) == its.rows(1, 3)
    assert its.rows(1, 3) != its.rows(2, 3)
    assert its.rows(1, 3) != its.rows(1, 4)
    longer = Mixture((5, 9), (7, 7))
    assert [longer.rows(1, e) for e in range(4)][3] == its.rows(1, 3), "nothing is remembered"


def test_rows_that_are_shuffled_once_are_dealt_in_one_order() -> None:
    its = Mixture((5, 9), (7, 7))
    passes = {once: [row for e in range(5) for row in its.rows(1, e, once) if row < 5] for once in (True, False)}
    assert passes[True] == passes[True][:5] * 7
    assert passes[False][:5] == passes[True][:5] != passes[False][5:10]
    seen = {row for e in range(2) for row in its.rows(1, e, once=True)}
    assert seen == set(range(14)), "rows that the first epoch has no room for come in the next"


def test_another_task_changes_nothing_in_what_is_dealt_of_the_first() -> None:
    assert Mixture((5, 9), (7, 7)).rows(1, 2)[:7] == Mixture((5, 100), (7, 40)).rows(1, 2)[:7]


def test_batches_of_a_member_have_the_rows_of_its_mixture() -> None:
    seeds = Seeds(init=1, data_order=1, subset=1, noise=1)
    rows = [Row(Encoded((1,) * (2 + i % 3), (), ())) for i in range(12)]

    def batches(its: Mixture | None, epochs: int) -> list[list[int]]:
        stream = Member(seeds, TrainingConfig(batch_size=5), rows, rows[:1], mixture=its).batches()
        return [next(stream) for _ in range(3 * epochs)]

    few = Mixture((9, 3), (6, 6))
    for epoch, its in enumerate(zip(*[iter(batches(few, 4))] * 3, strict=True)):
        assert sorted(i for batch in its for i in batch) == sorted(few.rows(1, epoch))
    plain = [i for batch in batches(None, 1) for i in batch]
    assert sorted(plain) == list(range(12))
    assert {len(batch) for batch in batches(few, 2)} == {4}
