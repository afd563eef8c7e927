"""Colors for losses, and the range that surfaces share.

The colors are matplotlib's viridis (Smith and van der Walt 2015, public domain): their lightness rises evenly, so they
are read by color-blind people and in grey, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VIRIDIS = (
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c",
    "#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725",
)  # fmt: skip
"""From the lowest loss to the highest, in even steps."""


@dataclass(frozen=True)
class Scale:
    """The range of losses that colors and heights stand for.

    Attributes:
        low: never below the smallest positive loss, where the scale is logarithmic.
    """

    low: float
    high: float
    log: bool = False


def shared_scale(losses: Sequence[np.ndarray], log: bool = False) -> Scale:
    """One range for all surfaces; never empty.

    >>> shared_scale([np.array([1.0, 2.0]), np.array([0.5])])
    Scale(low=0.5, high=2.0, log=False)
    >>> shared_scale([np.array([0.0, 0.1, 10.0])], log=True)
    Scale(low=0.1, high=10.0, log=True)
    """
    values = np.concatenate([np.ravel(its) for its in losses])
    if log:
        values = values[values > 0] if (values > 0).any() else np.array([1.0])
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(abs(high), 1e-6):  # flat
        low, high = (low / 1.1, high * 1.1) if log else (low - 0.05, high + 0.05)
    return Scale(low, high, log)
