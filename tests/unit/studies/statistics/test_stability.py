"""One method over seeds, against sums by hand and simulations."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict
from math import log10, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.stability import collapse_rate, rate_sensitivity, summary

NAN = float("nan")


def test_a_worked_summary() -> None:
    found = summary([0.9, 0.5, 0.8, 0.7, 0.1])
    assert (found.n, found.min, found.max, found.median) == (5, 0.1, 0.9, 0.7)
    assert found.mean == pytest.approx(0.6)
    assert found.iqm == pytest.approx((0.5 + 0.7 + 0.8) / 3)
    assert found.sd == pytest.approx(sqrt((0.09 + 0.01 + 0.04 + 0.01 + 0.25) / 4))
    assert {type(v) for v in asdict(found).values()} == {int, float}


def test_one_score_has_no_spread_to_speak_of() -> None:
    found = summary([0.5])
    assert asdict(found) == {"n": 1, "mean": 0.5, "sd": None, "median": 0.5, "iqm": 0.5, "min": 0.5, "max": 0.5}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.randoms())
def test_a_summary_moves_and_scales_with_the_scores_and_knows_no_order(
    scores: list[float], draw: random.Random
) -> None:
    plain = asdict(summary(scores))
    shuffled = list(scores)
    draw.shuffle(shuffled)
    assert asdict(summary(shuffled)) == plain
    moved = asdict(summary([2 * s + 3 for s in scores]))
    for name in ("mean", "median", "iqm", "min", "max"):
        assert moved[name] == pytest.approx(2 * plain[name] + 3)
    assert moved["sd"] == pytest.approx(2 * plain["sd"], abs=1e-12)
    assert plain["sd"] == pytest.approx(statistics.stdev(scores), abs=1e-12)
    assert plain["min"] <= plain["mean"] <= plain["max"]


def test_summaries_refuse_what_is_no_score() -> None:
    with refused(DataError, "At least 1 score needed, got 0.", fix="Add runs"):
        summary([])
    with refused(DataError, "finite number, got inf", fix="leave it out"):
        summary([0.5, float("inf")])


# Collapse


def test_runs_at_or_under_the_constant_answer_have_collapsed() -> None:
    found = collapse_rate([0.5, 0.5 + 1e-12, 0.51, 0.4, 0.9], 0.5)
    assert (found.collapsed, found.n, found.rate) == (3, 5, 0.6)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 5), (3, 7), (20, 20)])
def test_the_interval_is_wilsons(k: int, n: int, level: float) -> None:
    found = collapse_rate([0.0] * k + [1.0] * (n - k), 0.5, level=level)
    expected = binomtest(k, n).proportion_ci(level, "wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    z = {0.9: 1.6448536, 0.95: 1.9599640}[level]
    for bound in (found.low, found.high):  # each bound is the share at which k / n is just z standard errors away
        assert abs(k / n - bound) == pytest.approx(z * sqrt(bound * (1 - bound) / n), abs=1e-6)


def test_no_collapse_in_a_few_runs_does_not_rule_collapse_out() -> None:
    found = collapse_rate([0.9] * 5, 0.5)
    assert (found.low, round(found.high, 2)) == (0.0, 0.43)
    assert collapse_rate([0.5] * 3, 0.5).high == 1.0


def test_collapse_refuses_what_is_no_level_or_score() -> None:
    with refused(ConfigError, "between 0 and 1, got 0.0", fix="0.95"):
        collapse_rate([0.5], 0.5, level=0.0)
    with refused(DataError, "At least 1 score needed", fix="Add runs"):
        collapse_rate([], 0.5)


# Learning rates

GRID = {1e-4: [0.5, 0.52, 0.51], 1e-3: [0.78, 0.80, 0.82], 3e-2: [0.6, 0.9, 0.87], 1e-1: [0.5, 0.5, 0.5]}


def test_a_worked_grid() -> None:
    found = rate_sensitivity(GRID, tolerance=0.02)
    means = [0.51, 0.80, 0.79, 0.5]
    x = [log10(rate) for rate in GRID]
    area = sum((x[i + 1] - x[i]) * (means[i] + means[i + 1]) / 2 for i in range(3)) / (x[3] - x[0])
    assert found.rates == tuple(GRID)
    assert found.means == pytest.approx(means)
    assert (found.best_rate, found.within) == (1e-3, 0.5)
    assert (found.best_mean, found.worst_mean) == pytest.approx((0.80, 0.5))
    assert (found.area, found.loss) == pytest.approx((area, 0.80 - area))
    assert found.area_low < area < found.area_high
    assert found.loss_low < found.loss < found.loss_high


def test_the_area_of_a_flat_curve_is_its_height_whatever_the_grid() -> None:
    found = rate_sensitivity({1e-5: [0.7], 2e-5: [0.7], 0.3: [0.7]})
    assert (found.area, found.loss, found.within) == (pytest.approx(0.7), pytest.approx(0.0), 1.0)
    assert (found.area_low, found.area_high, found.loss_low, found.loss_high) == (None, None, None, None)


def test_one_rate() -> None:
    found = rate_sensitivity({0.3: [0.6, 0.8]})
    assert (found.best_rate, found.area, found.loss, found.within) == (0.3, pytest.approx(0.7), 0.0, 1.0)
    assert (found.loss_low, found.loss_high) == (0.0, 0.0)


def test_of_equal_rates_the_lowest_is_best() -> None:
    assert rate_sensitivity({0.1: [0.7], 0.01: [0.7], 1.0: [0.2]}).best_rate == 0.01


@pytest.mark.parametrize("shared", [False, True])
def test_bounds_are_those_of_a_loop(shared: bool) -> None:
    """With a quarter of the mass outside, where widened tails are found by linear search instead of a formula."""
    by_rate = {0.01: [0.50, 0.61, 0.72, 0.58], 0.1: [0.80, 0.86, 0.99, 0.84], 1.0: [0.30, 0.44, 0.50, 0.38]}
    found = rate_sensitivity(by_rate, level=0.5, shared_seeds=shared)
    draw, columns = random.Random(0), list(by_rate.values())
    areas, losses = [], []
    for _ in range(20_000):
        seeds = [draw.choices(range(4), k=4)] * 3 if shared else [draw.choices(range(4), k=4) for _ in range(3)]
        low, middle, high = (sum(c[i] for i in drawn) / 4 for c, drawn in zip(columns, seeds, strict=True))
        areas.append(low / 4 + middle / 2 + high / 4)
        losses.append(middle - areas[-1])
    quantile = {False: 0.702722, True: 0.764892}[shared]  # of Student's t with 9 and 3 degrees of freedom, 0.75
    tail = statistics.NormalDist().cdf(-quantile * sqrt(4 / 3))
    for values, bounds in ((areas, (found.area_low, found.area_high)), (losses, (found.loss_low, found.loss_high))):
        values.sort()
        expected = values[int(tail * 20_000)], values[int((1 - tail) * 20_000)]
        assert bounds == pytest.approx(expected, abs=0.006)


def test_seeds_that_move_all_rates_together_are_redrawn_together() -> None:
    """A good seed is good at each rate: the area varies more, the loss not at all."""
    by_rate = {rate: [height + luck for luck in (0.0, 0.1, 0.2, 0.05)] for rate, height in ((0.01, 0.5), (0.1, 0.7))}
    apart, together = (rate_sensitivity(by_rate, shared_seeds=shared) for shared in (False, True))
    assert together.area_high - together.area_low > 1.2 * (apart.area_high - apart.area_low)
    assert together.loss_low == pytest.approx(together.loss_high)


def test_shared_seeds_have_no_order() -> None:
    draw = random.Random(0)
    by_rate = {rate: [draw.random() for _ in range(7)] for rate in (0.01, 0.1, 1.0)}
    reordered = {rate: [s[i] for i in (2, 0, 6, 3, 1, 5, 4)] for rate, s in by_rate.items()}
    once, again = (asdict(rate_sensitivity(g, shared_seeds=True)) for g in (by_rate, reordered))
    assert {name: again[name] for name in again if "_" in name} == pytest.approx(
        {name: once[name] for name in once if "_" in name}, rel=1e-9
    )


def test_the_intervals_hold_the_truth_even_where_two_rates_are_equally_good() -> None:
    draw, hits = random.Random(2), [0, 0]
    area = (0.7 + 0.8 + 0.65) / 3
    for _ in range(300):
        by_rate = {10.0**k: [draw.gauss(m, 0.02) for _ in range(5)] for k, m in enumerate((0.6, 0.8, 0.8, 0.5))}
        found = rate_sensitivity(by_rate, resamples=500)
        hits[0] += found.area_low <= area <= found.area_high
        hits[1] += found.loss_low <= 0.8 - area <= found.loss_high
    assert min(hits) > 0.88 * 300


def test_grids_that_cannot_be_read_are_refused() -> None:
    with refused(DataError, "at least one learning rate needed, got none"):
        rate_sensitivity({})
    for rate in (0.0, -0.1, NAN, float("inf")):
        with refused(DataError, f"A learning rate is a positive number, got {rate}."):
            rate_sensitivity({0.1: [0.5], rate: [0.5]})
    with refused(DataError, "At least 1 score needed", where="learning rate 0.3", fix="Add runs"):
        rate_sensitivity({0.1: [0.5], 0.3: []})
    with refused(DataError, "equally many scores at each rate, got 2, 1", fix="Run the missing seeds"):
        rate_sensitivity({0.1: [0.5, 0.6], 0.3: [0.5]}, shared_seeds=True)
    with refused(ConfigError, "at least 0, got -0.1", where="tolerance"):
        rate_sensitivity(GRID, tolerance=-0.1)
