"""Ratios of spread, against formulas written out, loops and simulations."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import f, levene

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.spread import variance_ratio

A = [0.80, 0.83, 0.78, 0.81, 0.80, 0.79]
B = [0.70, 0.85, 0.79, 0.62, 0.81, 0.66, 0.74]
COUNTS = st.lists(st.integers(0, 50), min_size=3, max_size=8)


def brown_forsythe_by_hand(*groups: list[float]) -> float:
    z = [[abs(x - statistics.median(g)) for x in g] for g in groups]
    n, means = sum(map(len, z)), [sum(g) / len(g) for g in z]
    grand = sum(map(sum, z)) / n
    between = sum(len(g) * (m - grand) ** 2 for g, m in zip(z, means, strict=True)) / (len(z) - 1)
    within = sum((x - m) ** 2 for g, m in zip(z, means, strict=True) for x in g) / (n - len(z))
    return float(f.sf(between / within, len(z) - 1, n - len(z)))


def test_a_worked_ratio() -> None:
    found = variance_ratio(A, B)
    assert (found.sd_a, found.sd_b) == pytest.approx((statistics.stdev(A), statistics.stdev(B)))
    assert found.sd_ratio == pytest.approx(found.sd_a / found.sd_b)
    assert found.variance_ratio == pytest.approx(statistics.variance(A) / statistics.variance(B))
    assert (found.variance_low, found.variance_high) == pytest.approx((found.low**2, found.high**2))
    assert found.p == pytest.approx(brown_forsythe_by_hand(A, B))
    assert found.p == pytest.approx(levene(A, B, center="median").pvalue)
    assert (found.n_a, found.n_b, found.level, found.note) == (6, 7, 0.95, "")
    assert {type(v) for v in asdict(found).values()} == {float, int, str}


def test_the_bounds_are_those_of_a_loop() -> None:
    found, draw, ratios = variance_ratio(A, B), random.Random(0), []
    for _ in range(10_000):
        a, b = draw.choices(A, k=6), draw.choices(B, k=7)
        if len(set(b)) > 1:
            ratios.append(statistics.stdev(a) / statistics.stdev(b))
    ratios.sort()
    k = int(0.025 * len(ratios))
    assert (found.low, found.high) == pytest.approx((ratios[k], ratios[-k]), rel=0.06)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    draw, hits = random.Random(4), 0
    for _ in range(300):
        found = variance_ratio(
            [draw.gauss(0, 1) for _ in range(10)], [draw.gauss(0, 3) for _ in range(10)], resamples=500
        )
        hits += found.low <= 1 / 3 <= (found.high or 9e9)
    assert 0.88 < hits / 300 < 0.98


@settings(max_examples=40, deadline=None)
@given(COUNTS, COUNTS, st.randoms())
def test_swapping_inverts_and_neither_units_nor_means_nor_order_matter(
    a: list[int], b: list[int], draw: random.Random
) -> None:
    assume(len(set(a)) > 1 and len(set(b)) > 1 and sorted(a) != sorted(b))
    x, y = [c / 50 for c in a], [c / 50 for c in b]
    plain, turned = variance_ratio(x, y, resamples=200), variance_ratio(y, x, resamples=200)
    assert plain.sd_ratio == pytest.approx(1 / turned.sd_ratio)
    assert plain.low == (pytest.approx(1 / turned.high) if turned.high else 0.0)
    assert plain.high == (pytest.approx(1 / turned.low) if turned.low else None)
    assert plain.p == pytest.approx(turned.p)
    moved = [2.0 * c + 5 for c in a]
    draw.shuffle(moved)
    scaled = variance_ratio(moved, [2.0 * c for c in b], resamples=200)
    assert (scaled.sd_ratio, scaled.p) == (pytest.approx(plain.sd_ratio), pytest.approx(plain.p))


def test_without_any_spread_there_is_no_ratio_and_no_difference() -> None:
    found = variance_ratio([0.1] * 3, [0.7] * 4)
    assert (found.sd_a, found.sd_b, found.p) == (0.0, 0.0, 1.0)
    assert (found.sd_ratio, found.variance_ratio, found.low, found.high) == (None, None, None, None)
    assert found.note == "neither method varies over seeds, so there is no ratio"


def test_where_one_does_not_vary_nothing_bounds_the_ratio() -> None:
    steady, turned = variance_ratio([0.1] * 7, B), variance_ratio(B, [0.1] * 7)
    assert (steady.sd_ratio, steady.low, steady.high, steady.variance_low, steady.variance_high) == (
        0,
        0,
        None,
        0,
        None,
    )
    assert (turned.sd_ratio, turned.variance_ratio, turned.low, turned.high) == (None, None, 0.0, None)
    assert steady.note == "a does not vary over seeds, so nothing bounds the ratio"
    assert turned.note == "b does not vary over seeds, so nothing bounds the ratio"
    assert steady.p == turned.p == pytest.approx(brown_forsythe_by_hand([0.1] * 7, B))


def test_draws_without_spread_leave_the_ratio_open_above() -> None:
    """All runs of b but one collapsed to the same score: a third of draws of b do not vary."""
    found = variance_ratio(A, [0.5, 0.5, 0.5, 0.5, 0.9])
    assert found.sd_ratio < 1
    assert (found.high, found.variance_high, found.note) == (None, None, "")
    assert found.low > 0


def test_deviations_that_are_all_equal_have_no_test() -> None:
    found = variance_ratio([0.4, 0.4, 0.6, 0.6], [0.1, 0.3])
    assert found.p is None
    assert found.sd_ratio is not None
    assert found.note == "all scores are equally far from the median of their method, so the test is not defined"
    assert variance_ratio([0.4, 0.6], [0.5, 0.5]).p is None


def test_refusals() -> None:
    with refused(DataError, "At least 2 scores needed, got 1.", where="a", fix="further seeds"):
        variance_ratio([0.5], B)
    with refused(DataError, "finite number, got inf", where="b", fix="diverged"):
        variance_ratio(A, [0.5, float("inf")])
    with refused(ConfigError, "between 0 and 1, got 2.0", fix="0.95"):
        variance_ratio(A, B, level=2.0)
