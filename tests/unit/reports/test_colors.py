"""Colors of losses: they rise evenly, and surfaces that stand beside each other share a range."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.reports.colors import VIRIDIS, Scale, shared_scale


def lightness(color: str) -> float:
    """CIE L* of a color."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 116 * y ** (1 / 3) - 16


def test_lightness_rises_evenly() -> None:
    steps = np.diff([lightness(c) for c in VIRIDIS])
    assert (steps > 2.5).all()
    assert steps.max() < 2 * steps.min()


def test_a_flat_surface_has_a_range() -> None:
    for log in (False, True):
        scale = shared_scale([np.full((3, 3), 2.0)], log)
        assert scale.low < 2.0 < scale.high
    assert shared_scale([np.zeros((2, 2))]).high > 0
    assert shared_scale([np.zeros((2, 2))], log=True).low > 0


@pytest.mark.parametrize("log", [False, True])
def test_all_surfaces_count(log: bool) -> None:
    assert shared_scale([np.array([1.0, 4.0]), np.array([0.5, 2.0])], log) == Scale(0.5, 4.0, log)
