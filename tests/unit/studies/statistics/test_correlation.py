"""Rank correlation, against scipy, closed forms and simulations."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tests.unit.refusals import refused
from trimtab.errors import ConfigError, DataError
from trimtab.studies.statistics.correlation import rank_correlation

X = [0.3, 0.1, 0.9, 0.5, 0.7, 0.2, 0.2]
Y = [1.0, 3.0, 9.0, 4.0, 2.0, 5.0, 5.0]


def test_it_is_spearmans() -> None:
    found = rank_correlation(X, Y)
    assert found.rho == pytest.approx(float(spearmanr(X, Y).statistic))
    assert (found.n, found.level, found.note) == (7, 0.95, "")
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low < found.rho < found.high <= 1


def test_only_the_order_counts() -> None:
    assert rank_correlation(X, Y) == rank_correlation(np.exp(X).tolist(), (np.array(Y) ** 3 - 7).tolist())


@given(st.randoms())
def test_the_order_of_the_pairs_does_not(draw: random.Random) -> None:
    pairs = list(zip(X, Y, strict=True))
    draw.shuffle(pairs)
    assert rank_correlation(*map(list, zip(*pairs, strict=True)), resamples=200) == rank_correlation(
        X, Y, resamples=200
    )


def test_the_same_and_the_opposite_order() -> None:
    up, down = rank_correlation(X[:6], X[:6]), rank_correlation(X[:6], [-x for x in X[:6]])
    assert (up.rho, up.low, up.high) == (pytest.approx(1.0), None, None)
    assert (down.rho, down.low, down.high) == (pytest.approx(-1.0), None, None)
    assert "draws do not differ" in up.note


def test_more_pairs_tell_more() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    few, many = rank_correlation(x[:8].tolist(), y[:8].tolist()), rank_correlation(x.tolist(), y.tolist())
    assert few.high is not None
    assert few.low is not None
    assert many.high is not None
    assert many.low is not None
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_intervals_hold_what_they_say() -> None:
    """Of 95 % intervals for 10 pairs with the correlation 0.5, whose rho is 6 / pi asin(0.5 / 2)."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        x, other = rng.normal(size=(2, 10))
        found = rank_correlation(x.tolist(), (0.5 * x + 0.75**0.5 * other).tolist(), resamples=200)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.483 <= found.high
    assert 0.9 <= hits / 200 <= 1.0


def test_what_does_not_vary_has_no_order() -> None:
    found = rank_correlation([1.0] * 5, X[:5])
    assert (found.rho, found.low, found.high) == (None, None, None)
    assert "no order" in found.note


def test_few_pairs_have_no_interval() -> None:
    found = rank_correlation(X[:4], Y[:4])
    assert (found.low, found.high) == (None, None)
    assert found.rho == pytest.approx(float(spearmanr(X[:4], Y[:4]).statistic))
    assert "fewer than 5" in found.note


def test_what_makes_no_sense_is_refused() -> None:
    with refused(DataError, "got 3 and 2 numbers"):
        rank_correlation(X[:3], Y[:2])
    with refused(DataError, "At least 3 scores needed, got 2", where="x", fix="Add runs"):
        rank_correlation(X[:2], Y[:2])
    with refused(DataError, "finite number, got nan", where="y", fix="Give a diverged run"):
        rank_correlation(X[:3], [1.0, 2.0, float("nan")])
    with refused(ConfigError, "between 0 and 1, got 95.0", fix="0.95"):
        rank_correlation(X, Y, level=95.0)
