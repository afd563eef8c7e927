"""Epsilon-sharpness: how far the loss can rise in a small box (Keskar et al. 2017, arXiv 1609.04836, metric 2.1).

    box:     C = { z : |z_i| <= eps (|x_i| + 1) for all i }
    metric:  phi = 100 ( max_(z in C) f(z) - f(0) ) / ( 1 + f(0) )                  in percent

Symbols: x the coordinates of the point in its units, z the displacement, f the loss in nats. The maximum is sought by
projected ascent on the signs of the gradient,

    z_(t+1) = clip( z_t + eta_t w sign( grad f(z_t) ), -w, w ),    w_i = eps (|x_i| + 1),   eta_t = 1 - t / T

from the point itself and from random places in the box; the best value that was met counts, so phi is a lower bound.

Deviations: Keskar et al. maximize with L-BFGS-B for 10 iterations, over the parameters of a network. Here x is a prompt
or texts, and "+ 1", which keeps coordinates near 0 movable, is one unit of them; a raw 1 would be many times an
embedding. Where f has blocks it is their mean, and every block has its own maximum in its own box.

Cost: T + 1 gradients per start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.landscape.neighborhood import Neighborhood
from trimtab.seeding import torch_stream


@dataclass(frozen=True)
class Rise:
    """`percent` is phi; `before` and `after` are the mean losses it comes from, in nats."""

    percent: float
    before: float
    after: float


def epsilon_sharpness(around: Neighborhood, epsilon: float, steps: int, starts: int, seed: int = 0) -> Rise:
    """phi in a box of `epsilon`.

    Args:
        steps: T of each ascent.
        starts: ascents, of which the first begins at the point.

    Raises:
        ConfigError: an epsilon that is not positive, no step or no start.
    """
    if not epsilon > 0 or steps < 1 or starts < 1:
        raise ConfigError(
            f"the box must be larger than a point, and steps and starts at least 1, got epsilon {epsilon}, {steps} "
            f"steps and {starts} starts.",
            where="sharpness.epsilon",
            fix="The paper has epsilon 1e-3 and 10 steps.",
        )
    width = epsilon * (around.point.abs() + 1)
    before, best = None, None
    for i in range(starts):
        draw = around.uniform(torch_stream(seed, "landscape:epsilon", i))
        at = around.origin() if i == 0 else width * draw
        for step in range(steps + 1):
            losses, gradient = around.slope(at)
            before = losses if before is None else before  # the first ascent begins at the point
            best = losses if best is None else torch.maximum(best, losses)
            at = _clipped(at + (1 - step / steps) * width * gradient.sign(), width)
    assert before is not None, "there is a start"
    assert best is not None, "there is a start"
    low, high = float(before.double().mean()), float(best.double().mean())
    return Rise(100 * (high - low) / (1 + low), low, high)


def _clipped(at: Tensor, width: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(at, -width), width)
