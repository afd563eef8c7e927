"""Epsilon-sharpness, against maxima that are known."""

from __future__ import annotations

import pytest
import torch

from tests.unit.landscape.quadratics import bowl
from tests.unit.refusals import refused
from trimtab.errors import ConfigError
from trimtab.landscape.epsilon_sharpness import epsilon_sharpness

POINT = torch.tensor([0.0, 2.0, -3.0, 0.5])
WIDTH = 0.1 * (POINT.abs() + 1)
SLOPE = torch.tensor([1.0, -2.0, 0.5, 0.0])


def test_of_a_slope_it_is_the_corner_of_the_box() -> None:
    found = epsilon_sharpness(bowl(torch.zeros(4, 4), slope=SLOPE, point=POINT), 0.1, 5, 1)
    rise = float((SLOPE.abs() * WIDTH).sum())
    assert found.after - found.before == pytest.approx(rise, rel=1e-5)
    assert found.percent == pytest.approx(100 * rise / 1.5, rel=1e-5)


def test_at_a_minimum_it_leaves_by_a_random_start() -> None:
    bends = torch.tensor([1.0, 4.0, 2.0, 0.0])
    around = bowl(torch.diag(bends), point=POINT)
    curved = torch.diag(bends)[around.block == 0]
    assert curved.shape == (4, 4)
    expected = float(0.5 * (bends * WIDTH.square()).sum())
    assert epsilon_sharpness(around, 0.1, 5, 1).percent == 0.0
    found = epsilon_sharpness(around, 0.1, 5, 2)
    assert found.after - found.before == pytest.approx(expected, rel=1e-4)


def test_a_maximum_inside_the_box_is_found() -> None:
    """f = a z - b z^2 / 2 has its maximum a^2 / 2b at a / b, here at 0.4 of the way to the border."""
    around = bowl(-2.5 * torch.eye(4), slope=torch.full((4,), 1.0), point=torch.full((4,), 9.0))
    found = epsilon_sharpness(around, 0.1, 20, 1)
    assert found.after - found.before == pytest.approx(4 * 1 / (2 * 2.5), rel=0.02)


def test_steps_that_go_too_far_do_not_count() -> None:
    """The first step leads to the border, where this loss lies below that of the point."""
    around = bowl(-100.0 * torch.eye(4), slope=torch.full((4,), 0.1))
    assert epsilon_sharpness(around, 0.1, 1, 1).percent == 0.0


def test_blocks_have_boxes_of_their_own_and_count_as_their_mean() -> None:
    slope = torch.tensor([1.0, 1.0, 3.0])
    around = bowl(torch.zeros(1, 1), torch.zeros(2, 2), slope=slope)
    assert epsilon_sharpness(around, 0.2, 3, 1).after == pytest.approx(0.5 + 0.2 * 5.0 / 2)


def test_a_larger_box_is_sharper() -> None:
    around = bowl(torch.eye(4), slope=SLOPE)
    small, large = (epsilon_sharpness(around, e, 5, 2).percent for e in (0.01, 0.1))
    assert 0 < small < large


@pytest.mark.parametrize(("epsilon", "steps", "starts"), [(0.0, 5, 1), (0.1, 0, 1), (0.1, 5, 0)])
def test_boxes_without_room_are_refused(epsilon: float, steps: int, starts: int) -> None:
    with refused(ConfigError, f"got epsilon {epsilon}", where="sharpness.epsilon", fix="10 steps"):
        epsilon_sharpness(bowl(torch.eye(2)), epsilon, steps, starts)
