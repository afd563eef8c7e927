from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ordered_sums import OrderedSums
from trimtab.lookup import look_up

SEVERAL = [
    ((5,), (0,)),
    ((5, 3), (0,)),
    ((5, 3), (0, 1)),
    ((2, 4, 3), (0, 1)),
    ((2, 4, 3), (0, 1, 2)),
    ((2, 0, 3), (0,)),
]


def indices(shape: tuple[int, ...], dims: tuple[int, ...], count: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(shape))
    return [torch.randint(shape[d], (count, 1 + d), generator=generator)[:, :1] for d in dims]


@pytest.mark.parametrize(("shape", "dims"), SEVERAL)
def test_it_is_indexing_and_its_gradient_too(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    table = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    index = indices(shape, dims)
    expected, found = table[tuple(index)], look_up(table, *index)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for power in (1, 2):  # of a square, the gradient has a gradient
        (one,), (other,) = (
            torch.autograd.grad(((x**power) * weights).sum(), table, create_graph=True) for x in (found, expected)
        )
        torch.testing.assert_close(one, other)
        if power == 2 and one.numel():
            (one,), (other,) = (torch.autograd.grad((g**2).sum(), table, retain_graph=True) for g in (one, other))
            torch.testing.assert_close(one, other)


def test_indices_are_broadcast() -> None:
    table = torch.arange(12.0).view(3, 4).requires_grad_()
    found = look_up(table, torch.tensor([[2], [0]]), torch.tensor([1, 3, 3]))
    assert found.tolist() == [[9, 11, 11], [1, 3, 3]]


def test_the_gradient_has_the_same_bits_whatever_the_threads_do() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generator = torch.Generator().manual_seed(1)
        table = torch.randn(4, 10, 128, generator=generator).requires_grad_()
        row, slot = torch.randint(4, (960,), generator=generator), torch.randint(10, (960,), generator=generator)
        given = torch.randn(960, 128, generator=generator)
        found = {torch.autograd.grad(look_up(table, row, slot), table, given)[0].numpy().tobytes() for _ in range(20)}
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    assert found == {torch.autograd.grad(look_up(table, row, slot), table, given)[0].numpy().tobytes()}


def test_sums_without_an_order_are_found() -> None:
    table, index = torch.zeros(3, 2).requires_grad_(), torch.tensor([2, 0, 2])
    with OrderedSums():
        look_up(table, index).sum().backward()
        table[index[:2]].sum().backward()
        with pytest.raises(AssertionError, match=r"3 gradients are added to 2 entries of a table of \(3, 2\)"):
            table[index].sum().backward()
