"""Lanczos and the spectral density, against known spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.landscape.quadratics import bowl, symmetric
from trimtab.landscape.lanczos import spectrum, tridiagonal
from trimtab.landscape.neighborhood import Curvature, Neighborhood

VALUES = [4.0, 2.5, 1.0, -0.5, -2.0, 0.25, 0.75, 3.25]


def test_as_many_steps_as_coordinates_find_every_eigenvalue() -> None:
    found = spectrum(Curvature(bowl(symmetric(8, eigenvalues=VALUES))), 8, 1)
    assert np.sort(found.nodes.reshape(-1)) == pytest.approx(sorted(VALUES), abs=1e-4)
    assert found.weights.sum() == pytest.approx(1.0)
    assert (found.largest().tolist(), found.smallest().tolist()) == ([pytest.approx(4.0)], [pytest.approx(-2.0)])


def test_blocks_run_side_by_side() -> None:
    other = [9.0, -7.0, 0.0]
    matrices = symmetric(8, eigenvalues=VALUES), symmetric(3, 1, other)
    found = spectrum(Curvature(bowl(*matrices)), 8, 1)
    assert found.largest() == pytest.approx([4.0, 9.0], abs=1e-4)
    assert found.smallest() == pytest.approx([-2.0, -7.0], abs=1e-4)
    alone = found.nodes[0, 1][found.weights[0, 1] > 1e-6]
    assert np.sort(alone) == pytest.approx(sorted(other), abs=1e-4)


def test_few_steps_find_the_largest_of_many() -> None:
    values = [12.0, *np.linspace(-1, 1, 199).tolist()]
    found = spectrum(Curvature(bowl(symmetric(200, eigenvalues=values))), 20, 1)
    assert found.largest()[0] == pytest.approx(12.0, rel=1e-4)


def test_moments_are_those_of_the_eigenvalues() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 300)
    found = spectrum(Curvature(bowl(symmetric(300, eigenvalues=values.tolist()))), 15, 12)
    for power in (1, 2, 3):
        each = (found.weights * found.nodes**power).sum(-1).reshape(-1)
        error = each.std(ddof=1) / len(each) ** 0.5
        assert abs(found.moment(power) - (values**power).mean()) < 4 * error


def test_the_density_is_that_of_the_eigenvalues() -> None:
    """Half of them near -1, a quarter near 2, a quarter near 5: a closed form under Gaussians of the same width."""
    values = np.repeat([-1.0, -1.0, 2.0, 5.0], 60)
    found = spectrum(Curvature(bowl(symmetric(240, eigenvalues=values.tolist()))), 12, 40)
    at, width = np.linspace(-3, 7, 200), 0.4
    exact = np.exp(-0.5 * ((at[:, None] - values) / width) ** 2).mean(1) / (width * np.sqrt(2 * np.pi))
    assert np.abs(found.density(at, width) - exact).max() < 0.03 * exact.max()
    assert np.trapezoid(found.density(at, width), at) == pytest.approx(1.0, abs=1e-3)


def test_vectors_stay_orthogonal_where_plain_lanczos_loses_them() -> None:
    """Without a second look at all vectors before, the outlier comes up more than once."""
    values = [1000.0, *np.linspace(0, 1, 119).tolist()]
    found = spectrum(Curvature(bowl(symmetric(120, eigenvalues=values))), 60, 1)
    assert int((found.nodes > 500).sum()) == 1


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_an_exhausted_block_stops_and_adds_nothing(value: float) -> None:
    curvature = Curvature(bowl(torch.eye(50, dtype=torch.float64) * value))
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    found = tridiagonal(curvature, start, 4)
    assert found.beside[0].tolist() == [0.0, 0.0, 0.0]
    its = spectrum(curvature, 4, 1)
    assert its.largest().tolist() == its.smallest().tolist() == [pytest.approx(value)]
    assert its.moment(2) == pytest.approx(9.0)


def test_blocks_without_coordinates_are_left_out() -> None:
    around = Neighborhood(
        lambda z: torch.stack([z[0] ** 2, z[0] * 0, z[1] ** 2]), torch.zeros(2), torch.tensor([0, 2]), 3
    )
    assert spectrum(Curvature(around), 5, 2).nodes.shape == (2, 2, 1)
    assert spectrum(Curvature(around), 5, 2).moment(1) == pytest.approx(2.0)
