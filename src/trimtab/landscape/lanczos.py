"""The spectral density of a Hessian, by stochastic Lanczos quadrature (Golub and Meurant 2010; for Hessians of networks
Ghorbani, Krishnan and Xiao 2019, arXiv 1901.10159).

    density:   phi(t) = 1/M sum_k delta(t - lambda_k)
    Lanczos:   H V = V T + ..,   V = [v_1 .. v_m] orthonormal, v_1 random, T tridiagonal (alpha on, beta beside it)
    nodes:     T = U diag(theta) U^T,   weights omega_k = U_1k^2,    sum_k omega_k = 1
    estimate:  phi(t) ~ mean over starts of sum_k omega_k N(t; theta_k, sigma^2)

Symbols: M coordinates, lambda_k eigenvalues in nats per squared unit, m steps, sigma the width that draws a sum of
points as a curve. sum_k omega_k theta_k^j = v_1^T H^j v_1 for all j < 2m, so moments are those of Hutchinson's
estimator. The largest node converges to the largest eigenvalue from below.

Where the Hessian has blocks, each has a Lanczos run of its own, all in the same products: every example is a start.

Deviations from Ghorbani et al.: blocks; no shift or rescaling. Vectors are orthogonalized against all before them,
twice, in float64; without that nodes come up again and again as ghosts.

Cost: m products with the Hessian per start, and m M numbers of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.landscape.neighborhood import Curvature
from trimtab.seeding import torch_stream

EXHAUSTED = 1e-5
"""A remainder that is this small beside what was seen is rounding: products are in float32."""
NEGLIGIBLE = 1e-9
"""Nodes of less weight are none: they belong to no direction of the start."""
_TINY = 1e-30


@dataclass(frozen=True)
class Tridiagonal:
    """T of each block: `diagonal` [X,m] and `beside` [X,m-1]. A block that was exhausted early ends in zeros."""

    diagonal: Float[Tensor, "X ..."]
    beside: Float[Tensor, "X ..."]


@final
@dataclass(frozen=True)
class Spectrum:
    """Nodes and weights of the density, by start and block [S,X,m]; weights of a start and block sum up to 1."""

    nodes: np.ndarray
    weights: np.ndarray

    def moment(self, power: int) -> float:
        """The mean of lambda^power over eigenvalues; of power 1 the trace over M."""
        return float((self.weights * self.nodes**power).sum(-1).mean())

    def largest(self) -> np.ndarray:
        """The largest node of each block [X], over starts."""
        there = np.where(self.weights > NEGLIGIBLE, self.nodes, -np.inf)
        return np.asarray(there.max((0, 2)))

    def smallest(self) -> np.ndarray:
        """The smallest node of each block [X], over starts."""
        there = np.where(self.weights > NEGLIGIBLE, self.nodes, np.inf)
        return np.asarray(there.min((0, 2)))

    def density(self, at: np.ndarray, width: float) -> np.ndarray:
        """The density at these eigenvalues, drawn with Gaussians of this standard deviation; an average block's."""
        nodes, weights = self.nodes.reshape(-1), self.weights.reshape(-1) / np.prod(self.nodes.shape[:2])
        bells = np.exp(-0.5 * ((at[:, None] - nodes) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        return np.asarray(bells @ weights)


def spectrum(curvature: Curvature, steps: int, starts: int, seed: int = 0) -> Spectrum:
    """The spectral density of the Hessian. Blocks without coordinates are left out.

    Args:
        steps: m, cut to the coordinates of the largest block.
        starts: random vectors to begin with.

    Raises:
        BackboneError: see `Curvature`.
    """
    around = curvature.around
    sizes = around.sizes()
    there = (sizes > 0).cpu().numpy()
    steps = max(1, min(steps, int(sizes.max()))) if around.size else 1
    found = []
    for i in range(starts):
        start = around.standard_normal(torch_stream(seed, "landscape:spectrum", i))
        found.append(quadrature(tridiagonal(curvature, start, steps)))
    nodes, weights = (np.stack(its)[:, there] for its in zip(*found, strict=True))
    return Spectrum(nodes, weights)


def quadrature(found: Tridiagonal) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of each block, both [X,m]."""
    diagonal, beside = (its.cpu().numpy() for its in (found.diagonal, found.beside))
    matrices = np.zeros((*diagonal.shape, diagonal.shape[1]))
    here = np.arange(diagonal.shape[1])
    matrices[:, here, here] = diagonal
    matrices[:, here[1:], here[:-1]] = matrices[:, here[:-1], here[1:]] = beside
    nodes, vectors = np.linalg.eigh(matrices)
    return nodes, vectors[:, 0, :] ** 2


def tridiagonal(curvature: Curvature, start: Float[Tensor, "M"], steps: int) -> Tridiagonal:
    """T of every block after `steps` products."""
    around = curvature.around
    device, block = around.point.device, around.block

    def scaled(vector: Tensor, lengths: Tensor) -> Tensor:
        """Each block divided by its length; those that are exhausted become zero."""
        factors = torch.where(lengths > _TINY, 1 / lengths.clamp(min=_TINY), torch.zeros_like(lengths))
        return vector * factors[block]

    vector = start.double()
    kept = [scaled(vector, around.norms(vector))]
    diagonal, beside = [], []
    seen = torch.zeros(around.blocks, dtype=torch.float64, device=device)
    for step in range(steps):
        image = curvature.product(kept[-1]).double()
        alpha = around.sums(kept[-1] * image)
        diagonal.append(alpha)
        if step == steps - 1:
            break
        for _ in range(2):
            for before in kept:
                image = image - around.sums(before * image)[block] * before
        beta = around.norms(image)
        seen = torch.maximum(seen, torch.maximum(alpha.abs(), beta))
        beta = torch.where(beta > EXHAUSTED * seen, beta, torch.zeros_like(beta))
        beside.append(beta)
        kept.append(scaled(image, beta))
    empty = torch.zeros(around.blocks, 0, dtype=torch.float64, device=device)
    return Tridiagonal(torch.stack(diagonal, 1), torch.stack(beside, 1) if beside else empty)
