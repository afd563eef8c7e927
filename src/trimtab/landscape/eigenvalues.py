"""The largest eigenvalues of a Hessian, by implicitly restarted Lanczos (Lehoucq, Sorensen and Yang 1998: ARPACK).

    H u_k = lambda_k u_k,     lambda_1 >= lambda_2 >= ..          in nats per squared unit of the coordinates

The largest in the algebraic sense: how fast the slope grows in the steepest-growing direction. A large negative one is
curvature, too, but the loss falls there. Where the Hessian has blocks, these are the largest of all blocks together:
the sharpest directions of any example.

Cost: some 20 to 60 products with the Hessian for 5 eigenvalues; more where many are nearly equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimtab.landscape.neighborhood import Curvature
from trimtab.seeding import torch_stream

DENSE = 48
"""Up to this many coordinates the matrix itself is built."""
TOLERANCE = 1e-4
"""Relative; products are in float32, so less would be noise."""
RESTARTS = 40


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues, descending; fewer than asked for where there are not more, or where the iteration did
    not converge. `converged` says which."""

    values: tuple[float, ...]
    converged: bool = True


def top_eigenvalues(curvature: Curvature, count: int, seed: int = 0) -> Eigenvalues:
    """The `count` largest eigenvalues.

    Args:
        seed: of the vector that the iteration begins with.

    Raises:
        BackboneError: see `Curvature`.
    """
    size = curvature.around.size
    start = curvature.around.standard_normal(torch_stream(seed, "landscape:eigenvalues"))
    if not bool(curvature.product(start).any()):  # ARPACK knows no zero matrix
        return Eigenvalues((0.0,) * min(count, size))
    if size <= max(DENSE, 2 * count + 1):
        return Eigenvalues(tuple(np.linalg.eigvalsh(dense(curvature))[::-1][:count].tolist()))
    return _iterated(curvature, count, start)


def dense(curvature: Curvature) -> np.ndarray:
    """The Hessian as a matrix [M,M], float64, one product per column."""
    columns = torch.eye(curvature.around.size, dtype=curvature.around.point.dtype, device=curvature.around.point.device)
    found = np.stack([_numpy(curvature.product(column)) for column in columns])
    return np.asarray((found + found.T) / 2)


def _iterated(curvature: Curvature, count: int, start: Tensor) -> Eigenvalues:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    size = curvature.around.size

    def product(vector: np.ndarray) -> np.ndarray:
        return _numpy(curvature.product(torch.from_numpy(vector.reshape(-1)).to(curvature.around.point)))

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    try:
        found = eigsh(operator, count, which="LA", v0=_numpy(start), tol=TOLERANCE, maxiter=RESTARTS,
                      return_eigenvectors=False)  # fmt: skip
    except ArpackNoConvergence as stopped:
        return Eigenvalues(tuple(np.sort(stopped.eigenvalues)[::-1].tolist()), converged=False)
    return Eigenvalues(tuple(np.sort(found)[::-1].tolist()))


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu().numpy())
