"""Hutchinson's trace, against sums of diagonals."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from tests.unit.landscape.quadratics import bowl, symmetric
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.landscape.neighborhood import Curvature
from trimtab.landscape.trace import trace


def test_of_a_diagonal_it_is_exact() -> None:
    found = trace(Curvature(bowl(torch.diag(torch.tensor([3.0, -1.0, 0.5])))), 4)
    assert (found.estimate, found.error, found.probes) == (pytest.approx(2.5), pytest.approx(0.0, abs=1e-6), 4)


def test_it_is_within_its_error_which_is_the_one_of_theory() -> None:
    matrix = symmetric(30)
    found = trace(Curvature(bowl(matrix)), 400)
    assert abs(found.estimate - float(matrix.trace())) < 4 * found.error
    off = matrix - torch.diag(matrix.diagonal())
    assert found.error == pytest.approx((2 * float(off.square().sum()) / 400) ** 0.5, rel=0.15)


def test_of_blocks_it_is_the_mean_of_theirs() -> None:
    matrices = [torch.diag(torch.full((n,), float(n))) for n in (2, 3, 5)]
    assert trace(Curvature(bowl(*matrices)), 3).estimate == pytest.approx(fmean([4, 9, 25]))


def test_seeds_decide() -> None:
    curvature = Curvature(bowl(symmetric(10)))
    assert trace(curvature, 3, seed=1) == trace(curvature, 3, seed=1) != trace(curvature, 3, seed=2)


def test_one_probe_is_refused() -> None:
    with refused(ConfigError, "at least 2 probes, got 1", where="probes", fix="16 are usual"):
        trace(Curvature(bowl(symmetric(3))), 1)
