"""A local Lipschitz constant of the loss, from below: the steepest that was met around a point.

    L_B = sup_(z in B) || grad f(z) ||  =  sup_(z != z' in B) |f(z) - f(z')| / ||z - z'||,    B = { z : ||z|| <= r }

The first form is sampled at the point and at n places drawn evenly from the ball, and so is the difference quotient
|f(z) - f(0)| / ||z||: how much the loss has changed, per unit of distance, on the way there (both in nats per unit; for
the equality see Hiriart-Urruty and Lemarechal 2001, section B.3). Sampling finds the steepest place of a ball of many
dimensions only if steep places are common there, so both are lower bounds; the quotient is the smaller one.

The radius is r = rho sqrt(M): rho is the root mean square over coordinates of a displacement on the ball's surface, in
units. Where f has blocks, each has its own ball and its own maximum, and numbers are means over blocks: an example's.

Cost: n + 1 gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trimtab.errors import ConfigError
from trimtab.landscape.neighborhood import Neighborhood
from trimtab.seeding import torch_stream


@dataclass(frozen=True)
class Steepest:
    """`gradient` is the largest gradient norm, `quotient` the largest difference quotient; `at_point` the gradient norm
    at the point itself. All in nats per unit."""

    gradient: float
    quotient: float
    at_point: float


def lipschitz(around: Neighborhood, radius: float, samples: int, seed: int = 0) -> Steepest:
    """The steepest slope in a ball.

    Args:
        radius: rho, in units.
        samples: n.

    Raises:
        ConfigError: a radius that is not positive, or no sample.
    """
    if not radius > 0 or samples < 1:
        raise ConfigError(
            f"the ball must be larger than a point and have at least one sample, got radius {radius} and {samples} "
            "samples.",
            where="sharpness.radius",
            fix="Give both as positive numbers.",
        )
    losses, gradient = around.slope(around.origin())
    own = around.norms(gradient)
    steepest, quotient = own, torch.zeros_like(own)
    for i in range(samples):
        at = inside(around, radius, torch_stream(seed, "landscape:lipschitz", i))
        there, slope = around.slope(at)
        steepest = torch.maximum(steepest, around.norms(slope))
        way = around.norms(at)
        quotient = torch.maximum(quotient, torch.where(way > 0, (there - losses).abs() / way.clamp(min=1e-30), 0.0))
    return Steepest(around.mean(steepest), around.mean(quotient), around.mean(own))


def inside(around: Neighborhood, radius: float, generator: torch.Generator) -> Float[Tensor, "M"]:
    """A place in each block's ball, every one equally likely: a random direction, and a length r u^(1/M)."""
    direction = around.standard_normal(generator)
    sizes = around.sizes().clamp(min=1)
    shares = torch.rand(around.blocks, generator=generator).to(around.point) ** (1 / sizes)
    lengths = radius * sizes.sqrt() * shares / around.norms(direction).clamp(min=1e-30)
    return direction * lengths[around.block]
