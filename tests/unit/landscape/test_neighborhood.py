"""Gradients and Hessian-vector products, against closed forms and a matrix built by torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.unit.landscape.quadratics import bowl, symmetric
from tests.unit.refusals import refused
from trimtab.errors import BackboneError
from trimtab.landscape.neighborhood import Curvature, Neighborhood

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def alone(function: object, size: int = 6) -> Neighborhood:
    """A function without blocks."""
    return Neighborhood(function, torch.zeros(size), torch.zeros(size, dtype=torch.long), 1)  # type: ignore[arg-type]


def test_slopes_and_norms_are_those_of_each_block() -> None:
    slope = torch.arange(1.0, 8.0)
    around = bowl(symmetric(3), symmetric(4, 1), slope=slope)
    losses, gradient = around.slope(around.origin())
    assert losses.tolist() == [0.5, 0.5]
    torch.testing.assert_close(gradient, slope)
    for g in (0, 1):
        assert float(around.norms(gradient)[g]) == pytest.approx(float(slope[around.block == g].norm()))
    assert around.sizes().tolist() == [3.0, 4.0]


def test_a_product_with_a_quadratic_is_that_with_its_matrix() -> None:
    matrices = [symmetric(5), symmetric(3, 1)]
    curvature = Curvature(bowl(*matrices))
    vector = torch.randn(8, generator=torch.Generator().manual_seed(2))
    found = curvature.product(vector)
    for g, matrix in enumerate(matrices):
        own = curvature.around.block == g
        torch.testing.assert_close(found[own], matrix.float() @ vector[own], **CLOSE)
    assert curvature.products == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func's own
def test_products_equal_those_with_the_hessian_that_torch_builds() -> None:
    weight = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))

    def loss(z: Tensor) -> Tensor:
        return (weight @ (z + 0.3)).tanh().logsumexp(0)[None]

    curvature = Curvature(alone(loss))
    matrix = torch.func.hessian(lambda z: loss(z)[0])(torch.zeros(6))
    for column in torch.eye(6):
        torch.testing.assert_close(curvature.product(column), matrix @ column, **CLOSE)


@pytest.mark.parametrize(
    "loss",
    [lambda z: torch.ones(1), lambda z: z[None, :2].sum(1), lambda z: 0 * z.square().sum()[None]],
    ids=["constant", "straight", "flat"],
)
def test_what_is_not_curved_has_products_of_zero(loss: object) -> None:
    assert not Curvature(alone(loss)).product(torch.ones(6)).any()


def test_fused_attention_is_refused_with_what_to_do() -> None:
    def loss(z: Tensor) -> Tensor:
        query = z.view(1, 1, 2, 3)
        return scaled_dot_product_attention(query, query + 1, query * 2).square().sum()[None]

    curvature = Curvature(alone(loss))
    with refused(BackboneError, "cannot be differentiated twice", where="backbone.attention", fix="attention: eager"):
        curvature.product(torch.ones(6))


def test_other_failures_of_torch_are_not_explained_away() -> None:
    curvature = Curvature(alone(lambda z: z.square().sum()[None]))
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        curvature.product(torch.ones(5))


def test_means_leave_out_blocks_that_cannot_move() -> None:
    around = Neighborhood(lambda z: z, torch.zeros(2), torch.tensor([0, 2]), 3)
    assert around.mean(torch.tensor([1.0, 50.0, 3.0])) == 2.0
    assert Neighborhood(lambda z: z, torch.zeros(0), torch.zeros(0, dtype=torch.long), 2).mean(torch.ones(2)) == 0.0
