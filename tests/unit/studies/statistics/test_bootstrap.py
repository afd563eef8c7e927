"""Intervals, against loops over Python's own random numbers, and by how often they hold the truth."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t, trim_mean

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.bootstrap import bootstrap_interval, iqm, sample_sd

RTE = [0.52, 0.61, 0.58, 0.70, 0.66, 0.49]
CB = [0.81, 0.75, 0.90, 0.88, 0.71, 0.79]


def iqm_by_hand(scores: list[float]) -> float:
    ordered = sorted(scores)
    for _ in range(len(scores) // 4):
        ordered = ordered[1:-1]
    return sum(ordered) / len(ordered)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_the_interquartile_mean_is_that_of_a_sort_by_hand_and_of_scipy(scores: list[float]) -> None:
    assert iqm(np.array(scores)) == pytest.approx(iqm_by_hand(scores))
    assert iqm(np.array(scores)) == pytest.approx(trim_mean(scores, 0.25))


def test_equal_scores_have_no_spread_whatever_rounding_says() -> None:
    assert np.std([0.1] * 3, ddof=1) > 0
    assert sample_sd(np.array([0.1] * 3)) == 0.0
    assert sample_sd(np.array([[0.1] * 3, [1.0, 2.0, 3.0]])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("statistic", "compute"), [("iqm", iqm_by_hand), ("mean", statistics.fmean), ("median", statistics.median)]
)
def test_bounds_are_those_of_a_loop_that_draws_seeds_within_tasks(statistic: str, compute) -> None:
    found = bootstrap_interval({"rte": RTE, "cb": CB}, statistic)
    draw = random.Random(3)
    values = sorted(compute(draw.choices(RTE, k=6) + draw.choices(CB, k=6)) for _ in range(10_000))
    assert found.estimate == pytest.approx(compute(RTE + CB))
    assert found.low == pytest.approx(values[250], abs=0.006)
    assert found.high == pytest.approx(values[9750], abs=0.006)


def test_seeds_are_drawn_within_their_task_only() -> None:
    """Tasks far apart: draws across them would move the mean by far more."""
    found = bootstrap_interval({"low": [0.0, 0.01, 0.02], "high": [1.0, 1.01, 1.02]}, "mean")
    assert 0.49 < found.low < found.high < 0.53
    pooled = bootstrap_interval([0.0, 0.01, 0.02, 1.0, 1.01, 1.02], "mean")
    assert pooled.high - pooled.low > 0.5


def test_widened_tails_are_students() -> None:
    """Of the mean of many draws the widened bootstrap is close to the t interval, the plain one is narrower."""
    draw = random.Random(1)
    scores = [draw.gauss(0, 1) for _ in range(12)]
    half = t.ppf(0.975, 11) * statistics.stdev(scores) / 12**0.5
    wide, plain = (bootstrap_interval(scores, "mean", widen=w, resamples=40_000) for w in (True, False))
    assert (wide.high - wide.low) / 2 == pytest.approx(half, rel=0.05)
    normal = norm.ppf(0.975) * statistics.pstdev(scores) / 12**0.5
    assert (plain.high - plain.low) / 2 == pytest.approx(normal, rel=0.05)
    tasks = {"a": scores[:6], "b": scores[6:]}
    assert bootstrap_interval(tasks, "mean", widen=True).high > bootstrap_interval(tasks, "mean").high


@pytest.mark.parametrize(("widen", "least", "most"), [(False, 0.79, 0.88), (True, 0.88, 0.96)])
def test_five_seeds_hold_the_true_mean_as_often_as_the_docstring_says(widen: bool, least: float, most: float) -> None:
    draw = random.Random(5)
    studies = [[draw.gauss(0.7, 0.05) for _ in range(5)] for _ in range(500)]
    found = [bootstrap_interval(scores, "mean", resamples=1000, widen=widen) for scores in studies]
    assert least < statistics.fmean(i.low <= 0.7 <= i.high for i in found) < most


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=12), st.integers(0, 5), st.sampled_from(["iqm", "mean"]))
def test_shifting_scaling_and_reordering_scores_does_the_same_to_the_interval(
    counts: list[int], seed: int, statistic: str
) -> None:
    scores = [c / 100 for c in counts]
    plain = bootstrap_interval(scores, statistic, resamples=200, seed=seed)
    moved = bootstrap_interval([3 * s + 1 for s in scores[::-1]], statistic, resamples=200, seed=seed)
    assert (moved.estimate, moved.low, moved.high) == pytest.approx(
        (3 * plain.estimate + 1, 3 * plain.low + 1, 3 * plain.high + 1)
    )
    assert plain.low <= plain.estimate + 1e-9
    assert plain.estimate <= plain.high + 1e-9


def test_a_seed_gives_the_same_interval_and_another_a_slightly_different_one() -> None:
    once, again, other = (bootstrap_interval(RTE, resamples=500, seed=s) for s in (1, 1, 2))
    assert once == again != other
    assert type(asdict(once)["low"]) is float


def test_a_lower_level_is_a_narrower_interval() -> None:
    wide, narrow = (bootstrap_interval(RTE, level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_refusals() -> None:
    with refused(DataError, "At least 2 scores needed, got 1.", where="cb", fix="further seeds"):
        bootstrap_interval({"rte": RTE, "cb": [0.5]})
    with refused(DataError, "At least 2 scores needed, got 1.", fix="further seeds"):
        bootstrap_interval([0.5])
    with refused(DataError, "at least one task needed, got none"):
        bootstrap_interval({})
    with refused(DataError, "A score is a finite number, got nan.", fix="diverged run"):
        bootstrap_interval([0.5, float("nan")])
    with refused(ConfigError, "There is no statistic 'men'.", fix="Did you mean 'mean'?"):
        bootstrap_interval(RTE, "men")
    with refused(ConfigError, "between 0 and 1, got 95.0", fix="0.95"):
        bootstrap_interval(RTE, level=95.0)
    with refused(ConfigError, "at least 100 resamples, not 99", fix="10000"):
        bootstrap_interval(RTE, resamples=99)
