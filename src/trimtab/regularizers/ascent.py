"""Balls around embeddings, and steps uphill within them; what adversarial regularizers share.

    l2        ||delta||_F <= eps per example,            direction g / ||g||_F
    l2_token  ||delta_i|| <= eps per token i,            direction g_i / ||g_i||
    linf      |delta_ij| <= eps per element,             direction sign(g)

`epsilon_relative` is in units of what is perturbed: of its norm, ||e||_F or ||e_i||, or (linf) of its root mean square.
Each tensor that is perturbed has a ball of its own. A direction whose gradient is zero is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trimtab.perturbations import TEXT, TrainStep, directions, norms
from trimtab.regularizers.comparison import Loss, compared

Norm = Literal["l2", "l2_token", "linf"]
Start = Literal["zero", "uniform", "normal"]


@dataclass(frozen=True)
class Ball:
    """All perturbations of at most a given size.

    Attributes:
        norm: how size is measured.
        epsilon: the radius in embedding units; None for a relative one.
        epsilon_relative: the radius in units of what is perturbed.
    """

    norm: Norm
    epsilon: float | None
    epsilon_relative: float

    def radius(self, step: TrainStep, name: str) -> float | Tensor:
        """The radius for what `name` names; broadcasts over the perturbation."""
        if self.epsilon is not None:
            return self.epsilon
        if self.norm == "linf":
            return self.epsilon_relative * step.rms[name]
        return self.epsilon_relative * norms(step.original(name).float(), per_token=self.norm == "l2_token")

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent, of length 1 in the norm."""
        if self.norm == "linf":
            return gradient.sign()
        return directions(gradient, per_token=self.norm == "l2_token")

    def project(self, delta: Tensor, radius: float | Tensor) -> Tensor:
        """The nearest point in the ball."""
        if self.norm == "linf":
            bound = torch.as_tensor(radius, device=delta.device)
            return delta.clamp(-bound, bound)
        size = norms(delta, per_token=self.norm == "l2_token")
        return delta * (radius / size.clamp(min=1e-12)).clamp(max=1.0)

    def start(self, step: TrainStep, name: str, how: Start) -> Tensor:
        """Where an ascent begins: at the centre, or at random in the ball.

        `uniform` fills the box with half-width eps / sqrt(d) that fits into an l2 ball of d dimensions (as FreeLB's
        code does), and all of an linf ball; `normal` has standard deviation eps / sqrt(d), or eps / 2 for linf, and is
        projected.
        """
        if how == "zero":
            return torch.zeros_like(step.original(name), dtype=torch.float32)
        radius, noise = self.radius(step, name), step.uniform if how == "uniform" else step.normal
        if self.norm == "linf":
            width = radius if how == "uniform" else 0.5 * radius
        else:
            width = radius / self._dimensions(step, name).sqrt()
        return self.project(width * noise(name, "start"), radius)

    def _dimensions(self, step: TrainStep, name: str) -> Tensor:
        """d of each example's ball, or of each token's."""
        like = step.original(name)
        if self.norm == "l2_token":
            return torch.tensor(float(like.shape[-1]), device=like.device)
        per_entry = float(like[0, :1].numel()) if len(like) else 0.0
        counts = step.mask.sum(1) if name == TEXT else torch.full((len(like),), like.shape[1], device=like.device)
        return (counts * per_entry).clamp(min=1.0).view(-1, *[1] * (like.ndim - 1))


def climb(
    step: TrainStep, ball: Ball, delta: Mapping[str, Tensor], gradient: Mapping[str, Tensor], step_size: float
) -> dict[str, Tensor]:
    """One step uphill, projected. `step_size` counts in radii of the ball."""
    found = {}
    for name, value in delta.items():
        radius = ball.radius(step, name)
        found[name] = ball.project(value.detach() + step_size * radius * ball.direction(gradient[name]), radius)
    return found


def slopes(step: TrainStep, delta: Mapping[str, Tensor], loss: Loss) -> dict[str, Tensor]:
    """The gradient of each example's loss at a perturbation. None is left on the prompt or the backbone."""
    leaves = {name: value.detach().requires_grad_() for name, value in delta.items()}
    value = compared(loss, step.rescore(leaves), step.detached())
    found = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(leaves.items(), found, strict=True)}
