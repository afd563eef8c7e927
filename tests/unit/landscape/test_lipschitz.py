"""Local Lipschitz estimates, against slopes that are known."""

from __future__ import annotations

import pytest
import torch

from tests.unit.landscape.quadratics import bowl
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.landscape.lipschitz import inside, lipschitz
from trimtab.seeding import torch_stream


def test_a_plane_is_as_steep_everywhere() -> None:
    found = lipschitz(bowl(torch.zeros(3, 3), slope=torch.tensor([2.0, 3.0, 6.0])), 0.1, 20)
    assert (found.gradient, found.at_point) == (pytest.approx(7.0), pytest.approx(7.0))
    assert 0 < found.quotient <= 7.0 + 1e-4


def test_on_a_line_the_quotient_is_the_slope() -> None:
    found = lipschitz(bowl(torch.zeros(1, 1), slope=torch.tensor([3.0])), 0.5, 3)
    assert found.quotient == pytest.approx(3.0, rel=1e-4)


def test_a_bowl_is_steepest_at_the_rim() -> None:
    """|grad| = c ||z||, at most c r with r = rho sqrt(M)."""
    found = lipschitz(bowl(5.0 * torch.eye(16)), 0.25, 200)
    assert found.at_point == 0.0
    assert 0.98 * 5.0 < found.gradient <= 5.0 + 1e-5
    assert found.quotient == pytest.approx(found.gradient / 2, rel=0.01)


def test_it_never_says_more_than_the_largest_eigenvalue_allows() -> None:
    bends = torch.diag(torch.tensor([4.0, 1.0]))
    assert lipschitz(bowl(bends), 1.0, 500).gradient == pytest.approx(4.0 * 2**0.5, rel=0.1)
    assert lipschitz(bowl(bends), 1.0, 500).gradient <= 4.0 * 2**0.5


def test_places_fill_the_ball_evenly() -> None:
    """Of a ball of M dimensions, half of the volume lies within 2^(-1/M) of the radius."""
    around = bowl(torch.zeros(3, 3), torch.zeros(2, 2))
    radius = torch.tensor([3.0, 2.0]).sqrt()
    shares = torch.stack([
        around.norms(inside(around, 1.0, torch_stream(0, "test", i))) / radius for i in range(2000)
    ])  # fmt: skip
    assert bool((shares <= 1 + 1e-5).all())
    for g, size in enumerate((3, 2)):
        assert float((shares[:, g] < 0.5 ** (1 / size)).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_blocks_count_as_their_mean() -> None:
    around = bowl(torch.zeros(1, 1), torch.zeros(1, 1), slope=torch.tensor([1.0, 5.0]))
    assert lipschitz(around, 0.1, 2).gradient == pytest.approx(3.0)


@pytest.mark.parametrize(("radius", "samples"), [(0.0, 3), (-1.0, 3), (0.1, 0)])
def test_balls_without_room_are_refused(radius: float, samples: int) -> None:
    with refused(ConfigError, f"got radius {radius} and {samples}", where="sharpness.radius", fix="positive"):
        lipschitz(bowl(torch.eye(2)), radius, samples)
