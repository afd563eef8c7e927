"""The largest eigenvalues, against those that were put in."""

from __future__ import annotations

import pytest
import torch

from tests.unit.landscape.quadratics import bowl, symmetric
from trimtab.landscape import eigenvalues
from trimtab.landscape.eigenvalues import DENSE, dense, top_eigenvalues
from trimtab.landscape.neighborhood import Curvature

FEW = [5.0, 3.0, 2.0, -9.0, *([0.1] * 10)]
MANY = [8.0, 5.0, 3.0, 2.5, -20.0, *torch.linspace(-1, 1, 95).tolist()]


@pytest.mark.parametrize("values", [FEW, MANY], ids=["dense", "iterated"])
def test_they_are_the_largest_of_the_matrix(values: list[float]) -> None:
    found = top_eigenvalues(Curvature(bowl(symmetric(len(values), eigenvalues=values))), 3)
    assert (len(values) <= DENSE) == (values is FEW)
    assert found.values == pytest.approx(sorted(values)[::-1][:3], rel=1e-4)
    assert found.converged


def test_of_blocks_they_are_the_largest_of_all() -> None:
    blocks = [symmetric(40, i, torch.linspace(-1, top, 40).tolist()) for i, top in enumerate((7.0, 2.0, 9.0))]
    assert top_eigenvalues(Curvature(bowl(*blocks)), 2).values[0] == pytest.approx(9.0, rel=1e-4)


def test_the_dense_matrix_is_the_matrix() -> None:
    matrix = symmetric(6)
    curvature = Curvature(bowl(matrix))
    torch.testing.assert_close(torch.from_numpy(dense(curvature)), matrix, rtol=1e-5, atol=1e-6)


def test_a_plane_has_eigenvalues_of_zero_and_no_more_than_coordinates() -> None:
    assert top_eigenvalues(Curvature(bowl(torch.zeros(100, 100))), 3).values == (0.0, 0.0, 0.0)
    assert top_eigenvalues(Curvature(bowl(torch.zeros(2, 2))), 3).values == (0.0, 0.0)


def test_what_has_not_converged_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenvalues, "RESTARTS", 1)
    monkeypatch.setattr(eigenvalues, "TOLERANCE", 1e-12)
    values = torch.linspace(0, 1, 300).tolist()
    found = top_eigenvalues(Curvature(bowl(symmetric(300, eigenvalues=values))), 5)
    assert not found.converged
    assert len(found.values) < 5


def test_the_same_seed_gives_the_same() -> None:
    curvature = Curvature(bowl(symmetric(100, eigenvalues=MANY)))
    assert top_eigenvalues(curvature, 3, seed=1) == top_eigenvalues(curvature, 3, seed=1)
