"""Named random streams: functions of (seed, name, counters), independent of each other."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.seeding import stream, torch_seed, torch_stream

KEYS = st.tuples(
    st.integers(0, 2**40),
    st.sampled_from(["init", "data_order", "subset", "noise"]),
    st.tuples(st.integers(0, 99), st.integers(0, 99)),
)


@settings(max_examples=100, deadline=None)
@given(KEYS, KEYS)
def test_streams_are_equal_exactly_if_seed_name_and_counters_are(
    one: tuple[int, str, tuple[int, int]], two: tuple[int, str, tuple[int, int]]
) -> None:
    draws = [stream(seed, name, *counters).integers(2**62, size=2).tolist() for seed, name, counters in (one, two)]
    same = (one[0], one[1], one[2]) == (two[0], two[1], two[2])
    assert (draws[0] == draws[1]) is same


def test_streams_hold_no_state() -> None:
    first = stream(1, "noise", 5).standard_normal(4)
    stream(1, "noise", 4).standard_normal(100)
    np.random.default_rng(0).standard_normal()
    torch.rand(3)
    assert np.array_equal(stream(1, "noise", 5).standard_normal(4), first)


def test_streams_are_uncorrelated() -> None:
    draws = [stream(13, name, i).standard_normal(2000) for name in ("init", "noise") for i in range(3)]
    correlation = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlation).max() < 0.1


def test_the_numbers_of_a_stream_never_change() -> None:
    """Published runs depend on them."""
    assert stream(13, "data_order", 0).integers(1000, size=3).tolist() == [925, 169, 132]
    assert torch_seed(13, "init") == 5626946293373948410


def test_torch_streams_follow_the_same_rules_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one = torch.rand(3, generator=torch_stream(1, "init"))
    assert torch.equal(one, torch.rand(3, generator=torch_stream(1, "init")))
    assert not torch.equal(one, torch.rand(3, generator=torch_stream(2, "init")))
    assert not torch.equal(one, torch.rand(3, generator=torch_stream(1, "init", 1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 <= torch_seed(1, "init") < 2**63
