"""Which rows share a pass: all of them once, the cheapest way, none too many at once."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from trimtab.serving.grouping import PLACES, grouped


def price(parts: list[list[int]], costs: list[int], overhead: int) -> int:
    return sum(overhead + len(part) * max(costs[i] for i in part) for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cuts_are_cheaper(seed: int) -> None:
    costs = np.random.default_rng(seed).integers(1, 60, size=7).tolist()
    order = sorted(range(7), key=lambda i: costs[i])
    for overhead in (0, 10, 40, 1000):
        every = [
            [order[a:b] for a, b in zip((0, *cuts), (*cuts, 7), strict=True)]
            for n in range(7)
            for cuts in combinations(range(1, 7), n)
        ]
        found = grouped(costs, 10**9, overhead)
        assert sorted(i for part in found for i in part) == list(range(7))
        assert price(found, costs, overhead) == min(price(parts, costs, overhead) for parts in every)


def test_where_a_pass_costs_the_same_whatever_stands_in_it_there_is_one() -> None:
    assert len(grouped([1, 500, 3, 90], 10**9, None)) == 1
    assert len(grouped([1, 500, 3, 90], 10**9, 1)) > 1
    assert grouped([], 100) == []


def test_no_pass_is_larger_than_it_may_be() -> None:
    costs = [5, 40, 6, 30, 90, 7]
    for overhead in (1, None):
        found = grouped(costs, 80, overhead)
        assert sorted(i for part in found for i in part) == list(range(6))
        assert all(len(part) == 1 or len(part) * max(costs[i] for i in part) <= 80 for part in found)
        assert [4] in found, "longer than all that may be: by itself"


def test_short_rows_come_first_and_many_rows_are_cut_at_few_places() -> None:
    costs = np.random.default_rng(0).integers(1, 200, size=1000).tolist()
    found = grouped(costs, 10**9, 0)
    assert 1 < len(found) <= PLACES + 1
    longest = [max(costs[i] for i in part) for part in found]
    assert longest == sorted(longest)
