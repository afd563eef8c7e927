"""Adjusted p values, by hand and from their definitions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.studies.statistics.multiplicity import benjamini_hochberg, holm

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_worked_examples() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 4 x .005, 3 x .01, 2 x .03, and never less than before
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])  # 4/1 x .005, 4/2 x .01, 4/3 x .03, .04
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == benjamini_hochberg([]) == []


@given(P, st.floats(0.001, 0.999))
def test_holm_rejects_what_stepping_down_rejects(p: list[float], level: float) -> None:
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i, q in enumerate(holm(p)) if q <= level} == rejected


@given(P, st.floats(0.001, 0.999))
def test_benjamini_hochberg_rejects_what_stepping_up_rejects(p: list[float], level: float) -> None:
    order = sorted(range(len(p)), key=p.__getitem__)
    last = max((k for k, i in enumerate(order, 1) if p[i] * len(p) / k <= level), default=0)
    assert {i for i, q in enumerate(benjamini_hochberg(p)) if q <= level} == set(order[:last])
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p).tolist())


@given(P, st.randoms())
def test_order_does_not_matter_and_adjusting_never_helps(p: list[float], draw: random.Random) -> None:
    order = list(range(len(p)))
    draw.shuffle(order)
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p)
        assert adjust([p[i] for i in order]) == [adjusted[i] for i in order]
        assert all(q >= raw - 1e-12 for q, raw in zip(adjusted, p, strict=True))
    assert all(h >= b - 1e-12 for h, b in zip(holm(p), benjamini_hochberg(p), strict=True))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(wrong: float) -> None:
    for adjust in (holm, benjamini_hochberg):
        with refused(DataError, f"A p value lies between 0 and 1, got {wrong}.", fix="not defined"):
            adjust([0.5, wrong])
