"""How high and how steep a surface is that was computed on a grid.

    range:   max_ij F_ij - min_ij F_ij                                                              in nats
    slope:   mean_ij || ( dF/dx, dF/dy )_ij ||,      central differences, one-sided at the border     in nats per unit

The slope is that within the plane of the grid. Both depend on the plane and on its extent, so compare surfaces over the
same grid only. Pure functions of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.errors import DataError


@dataclass(frozen=True)
class Relief:
    """See above."""

    range: float
    slope: float


def relief(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> Relief:
    """Height and steepness of a surface.

    Args:
        values: losses [I,J] at (x_i, y_j).
        x: at least 2 ascending coordinates; y likewise.

    Raises:
        DataError: fewer than 2 points along an axis, axes that do not fit the values, or a value that is not finite.
    """
    if values.shape != (len(x), len(y)) or min(values.shape, default=0) < 2:
        raise DataError(
            f"A surface needs a value for each pair of coordinates and at least 2 of them along each axis, got values "
            f"of shape {values.shape} over {len(x)} and {len(y)} coordinates."
        )
    if not np.isfinite(values).all():
        raise DataError(
            f"Height and slope need finite losses; {int((~np.isfinite(values)).sum())} of {values.size} are not.",
            fix="Use a smaller extent.",
        )
    across, along = np.gradient(np.asarray(values, dtype=np.float64), x, y)
    return Relief(float(values.max() - values.min()), float(np.hypot(across, along).mean()))
