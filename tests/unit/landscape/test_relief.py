"""Height and steepness of a surface, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.refusals import refused
from trimtab.errors import DataError
from trimtab.landscape.relief import relief

X, Y = np.linspace(-1, 1, 21), np.linspace(-2, 2, 31)


def test_a_plane() -> None:
    found = relief(3 * X[:, None] + 4 * Y[None, :], X, Y)
    assert (found.range, found.slope) == (pytest.approx(6 + 16), pytest.approx(5.0))


def test_a_cone_is_as_steep_everywhere_but_at_its_tip() -> None:
    x = np.linspace(-1, 1, 201)
    found = relief(2 * np.hypot(x[:, None], x[None, :]), x, x)
    assert found.slope == pytest.approx(2.0, abs=0.01)
    assert found.range == pytest.approx(2 * 2**0.5)


def test_axes_are_not_mixed_up() -> None:
    assert relief(Y[None, :] ** 2 + 0 * X[:, None], X, Y).range == pytest.approx(4.0)
    with refused(DataError, "(31, 21) over 21 and 31"):
        relief(np.zeros((31, 21)), X, Y)


def test_lines_and_infinite_losses_are_refused() -> None:
    with refused(DataError, "at least 2"):
        relief(np.zeros((1, 31)), X[:1], Y)
    values = np.zeros((21, 31))
    values[0, :2] = np.inf
    with refused(DataError, "2 of 651 are not", fix="smaller extent"):
        relief(values, X, Y)
