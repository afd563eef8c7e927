"""Two methods, against scipy, enumeration of all signs, double loops and simulations."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict
from itertools import permutations, product
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, t, ttest_ind, ttest_rel, wilcoxon

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.comparison import (
    difference,
    paired_difference,
    probability_of_improvement,
    signed_rank_p,
    unpaired_difference,
)

A = {0: 0.81, 1: 0.84, 2: 0.79, 3: 0.90, 4: 0.77, 5: 0.86, 7: 0.80}
B = {0: 0.80, 1: 0.80, 2: 0.80, 3: 0.85, 4: 0.70, 5: 0.83, 6: 0.99}
B_SCORES = list(B.values())
SHARED = range(6)
COUNTS = st.lists(st.integers(0, 20), min_size=2, max_size=8)


def by_seed(scores: list[float]) -> dict[int, float]:
    return dict(enumerate(scores))


def test_a_worked_paired_difference() -> None:
    found = paired_difference(A, B)
    d = [A[s] - B[s] for s in SHARED]
    assert (found.n_a, found.n_b, found.left_out, found.paired, found.level) == (6, 6, 2, True, 0.95)
    assert found.mean == pytest.approx(sum(d) / 6)
    assert found.sd == pytest.approx(statistics.stdev(d))
    assert found.p == found.p_t == pytest.approx(2 * t.sf(sum(d) / 6 / (statistics.stdev(d) / sqrt(6)), 5))
    assert found.p_t == pytest.approx(ttest_rel([A[s] for s in SHARED], [B[s] for s in SHARED]).pvalue)
    assert found.low < found.mean < found.high


def test_the_bounds_are_those_of_a_loop_over_pairs() -> None:
    found = paired_difference(A, B, level=0.8)
    d, draw = [A[s] - B[s] for s in SHARED], random.Random(0)
    means = sorted(sum(draw.choices(d, k=6)) / 6 for _ in range(20_000))
    outside = int(20_000 * statistics.NormalDist().cdf(-1.475884 * sqrt(6 / 5)))  # t with 5 degrees of freedom, 0.9
    assert (found.low, found.high) == pytest.approx((means[outside], means[-outside]), abs=0.001)


def test_pairs_take_out_what_the_seed_decides() -> None:
    seeds = by_seed([0.2, 0.9, 0.5, 0.7, 0.3])
    better = {s: score + 0.01 + 0.001 * s for s, score in seeds.items()}
    paired, apart = paired_difference(better, seeds), unpaired_difference(list(better.values()), list(seeds.values()))
    assert paired.mean == pytest.approx(apart.mean)
    assert paired.p < 0.001 < 0.9 < apart.p
    assert paired.high - paired.low < 0.01 < 0.5 < apart.high - apart.low


def test_five_seeds_hold_the_true_difference_about_as_often_as_they_say() -> None:
    draw, hits = random.Random(7), 0
    for _ in range(500):
        a, b = ({s: draw.gauss(mean, 0.03) for s in range(5)} for mean in (0.82, 0.8))
        found = paired_difference(a, b, resamples=1000)
        hits += found.low <= 0.02 <= found.high
    assert 0.88 < hits / 500 < 0.97


def signs_by_enumeration(d: list[int]) -> float:
    """Two-sided p over all signs, with ranks by counting."""
    d = [x for x in d if x]
    ranks = [sum(abs(y) < abs(x) for y in d) + (sum(abs(y) == abs(x) for y in d) + 1) / 2 for x in d]
    seen = sum(r for r, x in zip(ranks, d, strict=True) if x > 0)
    sums = [sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(d))]
    return min(1.0, 2 * min(sum(s <= seen for s in sums), sum(s >= seen for s in sums)) / len(sums))


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_the_signed_rank_test_is_exact_with_ties_and_zeros(d: list[int]) -> None:
    assert signed_rank_p(np.array(d, dtype=float)) == pytest.approx(signs_by_enumeration(d))


@pytest.mark.parametrize("n", [5, 12, 40])
def test_the_signed_rank_test_is_scipys_where_scipy_is_exact(n: int) -> None:
    draw = random.Random(n)
    d = np.array([draw.gauss(0.3, 1) for _ in range(n)])
    assert signed_rank_p(d) == pytest.approx(wilcoxon(d, method="exact").pvalue)


def test_hundreds_of_seeds_are_still_exact() -> None:
    draw = random.Random(0)
    d = np.array([draw.gauss(0.05, 1) for _ in range(300)])
    assert signed_rank_p(d) == pytest.approx(wilcoxon(d, method="asymptotic").pvalue, rel=0.02)


def test_with_five_seeds_the_signed_rank_test_cannot_come_under_a_sixteenth() -> None:
    assert (
        paired_difference(by_seed([0.9, 0.8, 0.7, 0.6, 0.95]), by_seed([0.1, 0.2, 0.3, 0.4, 0.0])).p_wilcoxon == 0.0625
    )


def test_differences_that_rounding_tells_apart_are_equal() -> None:
    a, b = by_seed([0.9, 0.8, 0.7, 0.3]), by_seed([0.8, 0.7, 0.6, 0.4])
    assert len({a[s] - b[s] for s in a}) > 2
    found = paired_difference(a, b)
    assert found.p_wilcoxon == signs_by_enumeration([1, 1, 1, -1])
    same = paired_difference(by_seed([0.9, 0.8, 0.7]), by_seed([0.8, 0.7, 0.6]))
    assert (same.sd, same.p_t, same.p, same.p_wilcoxon) == (0.0, None, 0.25, 0.25)
    assert same.low == same.mean == same.high == pytest.approx(0.1)


def test_equal_scores_differ_by_nothing() -> None:
    found = paired_difference(A, A)
    assert (found.mean, found.low, found.high, found.sd, found.p, found.p_wilcoxon) == (0, 0, 0, 0, 1, 1)
    apart = unpaired_difference([0.1] * 3, [0.1] * 4)
    assert (apart.mean, apart.low, apart.high, apart.sd, apart.p, apart.p_wilcoxon) == (0, 0, 0, 0, 1, 1)


def test_a_single_shared_seed_has_no_interval() -> None:
    found = paired_difference({1: 0.9, 2: 0.1}, {1: 0.8, 3: 0.1})
    assert (found.low, found.high, found.sd, found.p_t, found.p) == (None, None, None, None, 1.0)
    assert (found.mean, found.n_a, found.left_out) == (pytest.approx(0.1), 1, 2)


def test_unpaired_differences_are_welchs_and_mann_and_whitneys() -> None:
    a, b = [0.81, 0.84, 0.79, 0.90], [0.77, 0.80, 0.70, 0.72, 0.83]
    found = unpaired_difference(a, b)
    assert found.mean == pytest.approx(statistics.fmean(a) - statistics.fmean(b))
    va, vb = statistics.variance(a), statistics.variance(b)
    df = (va / 4 + vb / 5) ** 2 / ((va / 4) ** 2 / 3 + (vb / 5) ** 2 / 4)
    assert found.p_t == pytest.approx(2 * t.sf(found.mean / sqrt(va / 4 + vb / 5), df))
    assert found.p_t == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue)
    assert found.sd == pytest.approx(sqrt(va + vb))
    assert (found.n_a, found.n_b, found.left_out, found.paired) == (4, 5, 0, False)
    wins, pool = sum(x > y for x in a for y in b), a + b
    splits = [sum(x > y for x in p[:4] for y in p[4:]) for p in permutations(pool) if p[:4] == tuple(sorted(p[:4]))]
    tail = min(sum(w >= wins for w in splits), sum(w <= wins for w in splits)) / len(splits)
    assert found.p_wilcoxon == pytest.approx(2 * tail)
    draw = random.Random(0)
    means = sorted(sum(draw.choices(a, k=4)) / 4 - sum(draw.choices(b, k=5)) / 5 for _ in range(20_000))
    outside = int(20_000 * statistics.NormalDist().cdf(-2.364624 * sqrt(9 / 7)))  # t with 7 degrees of freedom, 0.975
    assert (found.low, found.high) == pytest.approx((means[outside], means[-outside - 1]), abs=0.006)


def test_methods_that_each_score_one_value_have_no_t_test() -> None:
    found = unpaired_difference([0.9] * 3, [0.8] * 3)
    assert (found.p_t, found.sd, found.p) == (None, 0.0, found.p_wilcoxon)
    assert found.mean == found.low == found.high == pytest.approx(0.1)
    assert found.p_wilcoxon < 0.1


def test_runs_that_all_collapsed_have_a_t_test_against_runs_that_did_not() -> None:
    """A sample of its own mean, which scipy warns about; with the other's standard error and degrees of freedom."""
    found = unpaired_difference([0.1] * 5, B_SCORES)
    z = (0.1 - statistics.fmean(B_SCORES)) / (statistics.stdev(B_SCORES) / sqrt(len(B_SCORES)))
    assert found.p_t == pytest.approx(2 * t.sf(abs(z), len(B_SCORES) - 1))


def test_seeds_are_paired_where_two_are_shared() -> None:
    assert difference(A, B, resamples=200) == paired_difference(A, B, resamples=200)
    one = difference({1: 0.9, 2: 0.7}, {2: 0.8, 3: 0.6}, level=0.9, seed=3, resamples=300)
    assert one == unpaired_difference([0.9, 0.7], [0.8, 0.6], level=0.9, seed=3, resamples=300)


@settings(max_examples=25, deadline=None)
@given(COUNTS, COUNTS, st.integers(0, 3), st.randoms())
def test_swapping_methods_turns_the_difference_around_and_seeds_have_no_order(
    a: list[int], b: list[int], seed: int, draw: random.Random
) -> None:
    x, y = [c / 20 for c in a], [c / 20 for c in b]
    shuffled = list(by_seed(x).items())
    draw.shuffle(shuffled)
    for one, other in (
        (paired_difference(dict(shuffled), by_seed(y), resamples=200, seed=seed),
         paired_difference(by_seed(y), by_seed(x), resamples=200, seed=seed)),
        (unpaired_difference([s for _, s in shuffled], y, resamples=200, seed=seed),
         unpaired_difference(y, x, resamples=200, seed=seed)),
    ):  # fmt: skip
        assert one.mean == pytest.approx(-other.mean, abs=1e-12)
        if sorted(x) != sorted(y) and one.mean:
            assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
        assert (one.p_t, one.p_wilcoxon) == (pytest.approx(other.p_t), pytest.approx(other.p_wilcoxon))


@settings(max_examples=30, deadline=None)
@given(COUNTS, COUNTS)
def test_units_and_what_both_gain_do_not_matter(a: list[int], b: list[int]) -> None:
    plain = paired_difference(by_seed([c / 20 for c in a]), by_seed([c / 20 for c in b]), resamples=200)
    percent = paired_difference(by_seed([5.0 * c + 7 for c in a]), by_seed([5.0 * c + 7 for c in b]), resamples=200)
    assert (percent.mean, percent.low, percent.high) == pytest.approx(
        (100 * plain.mean, 100 * plain.low, 100 * plain.high), abs=1e-9
    )
    assert (percent.p_t, percent.p_wilcoxon) == (pytest.approx(plain.p_t), plain.p_wilcoxon)


def test_a_mean_of_zero_up_to_rounding_has_no_side_by_chance() -> None:
    d = [0.05, 0.05, 0.05, -0.15, 0.3, -0.3]
    zero, found = by_seed([0.0] * 6), []
    for unit in (1.0, 3.0, 7.0, 100.0):
        its = paired_difference(by_seed([unit * v for v in d]), zero, resamples=200)
        back = paired_difference(zero, by_seed([unit * v for v in d]), resamples=200)
        assert (its.low, its.high) == (pytest.approx(-back.high), pytest.approx(-back.low))  # type: ignore[operator]
        found.append((its.low / unit, its.high / unit))  # type: ignore[operator]
    assert all(pair == pytest.approx(found[0]) for pair in found)


def test_differences_refuse_what_cannot_be_compared() -> None:
    with refused(DataError, "got seeds 1 and seeds 10, 2, 3, 4, 5 ...", fix="`unpaired_difference`"):
        paired_difference({1: 0.5}, dict.fromkeys((2, 3, 4, 5, 6, 10), 0.5))
    with refused(DataError, "got seeds 1 and no seeds", fix="same seeds"):
        paired_difference({1: 0.5}, {})
    with refused(DataError, "finite number, got nan", where="paired difference", fix="diverged"):
        paired_difference({1: 0.5}, {1: float("nan")})
    with refused(DataError, "At least 2 scores needed, got 1.", where="b", fix="further seeds"):
        unpaired_difference([0.5, 0.6], [0.5])
    with refused(ConfigError, "at least 100 resamples, not 5", fix="10000"):
        paired_difference(A, B, resamples=5)
    with refused(ConfigError, "between 0 and 1, got 1.0", fix="0.95"):
        unpaired_difference([0.5, 0.6], [0.5, 0.7], level=1.0)


# Who wins


def wins_by_hand(a: list[float], b: list[float]) -> float:
    total = 0.0
    for x in a:
        for y in b:
            total += 1.0 if x > y else 0.5 if x == y else 0.0
    return total / len(a) / len(b)


@settings(max_examples=40, deadline=None)
@given(COUNTS, COUNTS)
def test_the_chance_of_a_win_is_that_of_a_double_loop_and_of_scipy(a: list[int], b: list[int]) -> None:
    x, y = [c / 20 for c in a], [c / 20 for c in b]
    found = probability_of_improvement(x, y, resamples=100)
    assert found.estimate == pytest.approx(wins_by_hand(x, y))
    assert found.estimate == pytest.approx(mannwhitneyu(x, y, method="asymptotic").statistic / len(x) / len(y))
    turned = probability_of_improvement(y, x, resamples=100)
    assert turned.estimate == pytest.approx(1 - found.estimate)
    if sorted(x) != sorted(y):
        assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_tasks_count_alike_and_runs_are_drawn_within_them() -> None:
    a = {"rte": [0.5, 0.6, 0.7, 0.55], "cb": [0.8, 0.9, 0.7]}
    b = {"cb": [0.75, 0.95], "rte": [0.52, 0.5, 0.65]}
    found = probability_of_improvement(a, b)
    assert found.estimate == pytest.approx(statistics.fmean(wins_by_hand(a[task], b[task]) for task in a))
    draw = random.Random(0)
    values = sorted(
        statistics.fmean(wins_by_hand(draw.choices(a[t], k=len(a[t])), draw.choices(b[t], k=len(b[t]))) for t in a)
        for _ in range(10_000)
    )
    assert (found.low, found.high) == pytest.approx((values[250], values[-251]), abs=0.03)


def test_the_interval_holds_the_true_chance() -> None:
    draw, hits = random.Random(3), 0
    truth = statistics.NormalDist().cdf(1 / sqrt(2))
    for _ in range(300):
        a, b = ([draw.gauss(mean, 1) for _ in range(12)] for mean in (1, 0))
        found = probability_of_improvement(a, b, resamples=500)
        hits += found.low <= truth <= found.high
    assert 0.87 < hits / 300 < 0.99


def test_results_are_plain_numbers() -> None:
    found = probability_of_improvement([0.5, 0.6], [0.5, 0.7], resamples=100)
    assert {type(v) for v in asdict(found).values()} == {float}
    for value in asdict(paired_difference(A, B)).values():
        assert type(value) in (float, int, bool)


def test_other_tasks_are_refused() -> None:
    with refused(DataError, "the same tasks; only one has cb, wic."):
        probability_of_improvement({"rte": [0.5, 0.6], "cb": [0.5, 0.6]}, {"rte": [0.5, 0.6], "wic": [0.5, 0.6]})
    with refused(DataError, "only one has a task without a name, rte."):
        probability_of_improvement({"rte": [0.5, 0.6]}, [0.5, 0.6])
    with refused(DataError, "At least 2 scores needed, got 1.", where="rte", fix="further seeds"):
        probability_of_improvement({"rte": [0.5, 0.6]}, {"rte": [0.5]})
