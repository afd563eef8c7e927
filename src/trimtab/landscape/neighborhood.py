"""A point of a loss surface and what lies around it, as numerics see them: a function of a vector and its derivatives.

    f(z) = 1/X sum_x f_x(z_x),      z = (z_1, .., z_X) the way from the point, z = 0 the point itself

The M coordinates fall into X blocks, and f_x depends on the x-th alone. In prompt space there is one block: f_1 is the
mean loss over the examples. In input space every example is a block: f_x is its own loss, z_x what is added to its own
text. Examples do not meet, so the Hessian of their sum is block-diagonal, one product with it is a product with every
block, and a number of "an example" does not depend on how many of them there are.

Here nothing is known of prompts, texts and units; `trimtab.landscape.sharpness` says what a coordinate is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trimtab.errors import BackboneError

LACKS_SECOND = ("derivative for ", "differentiate twice", "double backward")
"""What torch says of operations that have a first derivative only."""


@final
@dataclass(frozen=True)
class Neighborhood:
    """See above.

    Attributes:
        losses: f_1 .. f_X at a displacement; differentiable twice.
        point: the coordinates of the point, in the units that displacements have.
        block: the block of each coordinate, from 0. A block may have no coordinate.
        blocks: X.
    """

    losses: Callable[[Float[Tensor, "M"]], Float[Tensor, "X"]]
    point: Float[Tensor, "M"]
    block: Int[Tensor, "M"]
    blocks: int

    @property
    def size(self) -> int:
        """M."""
        return len(self.point)

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the coordinates of each block."""
        return values.new_zeros(self.blocks).index_add(0, self.block, values)

    def norms(self, values: Tensor) -> Tensor:
        """L2 norms of the blocks."""
        return self.sums(values.square()).sqrt()

    def sizes(self) -> Float[Tensor, "X"]:
        """How many coordinates each block has."""
        return self.sums(torch.ones_like(self.point))

    def mean(self, of_blocks: Tensor) -> float:
        """The mean over blocks that have coordinates: one without any has nothing that could be moved."""
        there = self.sizes() > 0
        return float(of_blocks[there].double().mean()) if bool(there.any()) else 0.0

    def origin(self) -> Float[Tensor, "M"]:
        """The point itself, as a displacement."""
        return torch.zeros_like(self.point)

    def slope(self, at: Float[Tensor, "M"]) -> tuple[Float[Tensor, "X"], Float[Tensor, "M"]]:
        """The losses at a displacement, and the gradient of their sum: block by block that of each."""
        leaf = at.detach().requires_grad_()
        losses = self.losses(leaf)
        return losses.detach(), _gradient(losses, leaf, graph=False).detach()

    def standard_normal(self, generator: torch.Generator) -> Float[Tensor, "M"]:
        """Random numbers, drawn on the CPU so that they do not depend on the device."""
        return torch.randn(self.size, generator=generator).to(self.point)

    def signs(self, generator: torch.Generator) -> Float[Tensor, "M"]:
        """-1 or 1 with equal chances (Rademacher)."""
        return (2.0 * torch.randint(2, (self.size,), generator=generator) - 1.0).to(self.point)

    def uniform(self, generator: torch.Generator) -> Float[Tensor, "M"]:
        """Numbers between -1 and 1."""
        return (2.0 * torch.rand(self.size, generator=generator) - 1.0).to(self.point)


@final
class Curvature:
    """The Hessian of f_1 + .. + f_X at the point, through products with vectors.

        H v = d/dz < d/dz sum_x f_x, v >        (Pearlmutter 1994, by a second backward pass)

    The graph of the gradient is kept, so a product costs about as much as a backward pass through it. Memory is that of
    one forward and one backward pass over all examples.

    Raises:
        BackboneError: some operation of the model has a first derivative only.
    """

    def __init__(self, around: Neighborhood) -> None:
        self.around = around
        self._leaf = around.origin().requires_grad_()
        losses = around.losses(self._leaf)
        self._gradient = _gradient(losses, self._leaf, graph=True)
        self.losses, self.gradient = losses.detach(), self._gradient.detach()
        self.products = 0

    def product(self, vector: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
        """H v, computed in the precision of the point.

        Raises:
            BackboneError: as the class.
        """
        self.products += 1
        vector = vector.to(self._leaf)
        if not self._gradient.requires_grad:  # a gradient that is constant: nothing is curved
            return torch.zeros_like(vector)
        try:
            (found,) = torch.autograd.grad(self._gradient, self._leaf, vector, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if not any(words in str(error) for words in LACKS_SECOND):
                raise
            raise BackboneError(
                f"the model cannot be differentiated twice, and without that nothing has a curvature: torch says "
                f"{str(error).splitlines()[0].rstrip('.')!r}.",
                where="backbone.attention",
                fix="Load it with attention: eager; fused attention has a first derivative only.",
            ) from None
        return torch.zeros_like(vector) if found is None else found.detach()


def _gradient(losses: Tensor, leaf: Tensor, *, graph: bool) -> Tensor:
    """The gradient of the sum of the losses; zero where they do not depend on the leaf."""
    if not losses.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(losses.sum(), leaf, create_graph=graph, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found
