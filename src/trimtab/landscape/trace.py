"""The trace of a Hessian, by Hutchinson's estimator (Hutchinson 1990).

    tr H = E[ v^T H v ],    v random signs;      estimate: the mean over n probes, with standard error sd / sqrt(n)

in nats per squared unit of the coordinates. It is the sum of all eigenvalues, so it says how curved the loss is on
average over directions, where the largest eigenvalue says how curved it is in the worst one. With signs, a diagonal
Hessian is found exactly; the variance is 2 sum_(i != j) H_ij^2.

Where the Hessian has blocks, the trace is the mean over blocks: that of an example.

Cost: a product with the Hessian per probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev

from trimtab.errors import ConfigError
from trimtab.landscape.neighborhood import Curvature
from trimtab.seeding import torch_stream


@dataclass(frozen=True)
class Trace:
    """An estimate and its standard error, in nats per squared unit."""

    estimate: float
    error: float
    probes: int


def trace(curvature: Curvature, probes: int, seed: int = 0) -> Trace:
    """The trace of an average block.

    Raises:
        ConfigError: fewer than 2 probes.
        BackboneError: see `Curvature`.
    """
    if probes < 2:
        what = f"A standard error needs at least 2 probes, got {probes}."
        raise ConfigError(what, where="probes", fix="Each costs a product with the Hessian; 16 are usual.")
    around = curvature.around
    found = []
    for i in range(probes):
        signs = around.signs(torch_stream(seed, "landscape:trace", i))
        found.append(around.mean(around.sums((signs * curvature.product(signs)).double())))
    return Trace(fmean(found), stdev(found) / probes**0.5, probes)
