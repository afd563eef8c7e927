"""Loss surfaces whose curvature is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.landscape.neighborhood import Neighborhood


def symmetric(size: int, seed: int = 0, eigenvalues: Sequence[float] | None = None) -> Tensor:
    """A matrix with random eigenvectors, and with these eigenvalues if they are given."""
    generator = torch.Generator().manual_seed(seed)
    vectors, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    values = torch.randn(size, generator=generator, dtype=torch.float64) if eigenvalues is None else eigenvalues
    return (vectors * torch.as_tensor(values, dtype=torch.float64)) @ vectors.T


def bowl(
    *matrices: Tensor, slope: Tensor | None = None, height: float = 0.5, point: Tensor | None = None
) -> Neighborhood:
    """f_g(z_g) = height + slope_g . z_g + 1/2 z_g^T H_g z_g, a block for each H_g, their coordinates interleaved."""
    sizes = [len(m) for m in matrices]
    block = torch.cat([torch.full((n,), g) for g, n in enumerate(sizes)])
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(9))
    block = block[order]
    tilt = torch.zeros(sum(sizes)) if slope is None else slope

    def losses(z: Tensor) -> Tensor:
        found = []
        for g, matrix in enumerate(matrices):
            own = z[block == g]
            found.append(height + tilt[block == g] @ own + 0.5 * own @ matrix.to(z) @ own)
        return torch.stack(found)

    at = torch.zeros(sum(sizes)) if point is None else point
    return Neighborhood(losses, at, block, len(matrices))
