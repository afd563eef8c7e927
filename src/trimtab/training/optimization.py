"""AdamW over stacked parameters, each run with its own rate, decay, clipping and step count; rate schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def schedule_factor(schedule: Literal["constant", "linear", "cosine"], warmup: float, step: int, steps: int) -> float:
    """The share of the learning rate that optimizer step `step` (0-based) of `steps` uses.

    A linear rise over the first `warmup * steps` steps, then constant, linear to 0, or half a cosine to 0.

    >>> [schedule_factor("linear", 0.0, s, 4) for s in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


class StackedAdamW:
    """AdamW (Loshchilov and Hutter 2019) on parameters [R,...], one independent optimizer per run.

        m = b1 m + (1-b1) g;   v = b2 v + (1-b2) g^2;   p -= rate (m_hat / (sqrt(v_hat) + eps) + decay p)

    Equal to torch.optim.AdamW on every run alone. Inactive runs keep parameters, moments and step count.

    Args:
        parameters: name -> [R,...].
        rates: name -> learning rate of each run [R].
        decay: weight decay of each run [R].
        betas: decay of the moments.
        epsilon: added to the root of the second moment.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, Sequence[float]],
        decay: Sequence[float],
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        first = next(iter(parameters.values()))
        self.parameters = dict(parameters)
        self.rates = {n: torch.tensor(r, device=first.device, dtype=torch.float64) for n, r in rates.items()}
        self.decay = torch.tensor(list(decay), device=first.device, dtype=torch.float64)
        self.betas, self.epsilon = betas, epsilon
        self.steps = torch.zeros(len(first), device=first.device, dtype=torch.float64)
        self.moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in self.parameters.items()}

    @torch.no_grad()
    def clip(self, largest: float) -> Float[Tensor, "R"]:
        """Scale each run's gradient to a norm of at most `largest` (0: no clipping); returns the norms before."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        squares = sum((g.float().flatten(1).square().sum(1) for g in gradients), torch.zeros_like(self.steps))
        norms = squares.sqrt().float()
        if largest > 0:
            scale = (largest / (norms + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(_like(scale, gradient))
        return norms

    @torch.no_grad()
    def step(self, factors: Sequence[float], active: Bool[Tensor, "R"]) -> None:
        """One update of the active runs.

        Args:
            factors: of the learning rate, per run, from the schedule.
            active: runs to update.
        """
        active = active.to(self.steps.device)
        self.steps += active
        b1, b2 = self.betas
        correction1 = 1 - b1**self.steps
        correction2 = 1 - b2**self.steps
        factor = torch.tensor(list(factors), device=self.steps.device, dtype=torch.float64)
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            on = _like(active, parameter)
            gradient = torch.where(on, parameter.grad, 0.0)
            m, v = self.moments[name]
            m.copy_(torch.where(on, m.lerp(gradient, 1 - b1), m))
            v.copy_(torch.where(on, v * b2 + gradient.square() * (1 - b2), v))
            rate = self.rates[name] * factor
            size = _like((rate / correction1.clamp(min=1e-12)).float(), parameter)
            root = v.sqrt() / _like(correction2.clamp(min=1e-12).sqrt().float(), parameter) + self.epsilon
            shrunk = parameter * _like((1 - rate * self.decay).float(), parameter)
            parameter.copy_(torch.where(on, shrunk - size * m / root, parameter))
            parameter.grad = None


def _like(per_run: Tensor, parameter: Tensor) -> Tensor:
    """[R] -> [R,1,...], to broadcast over a stacked parameter."""
    return per_run.view(-1, *[1] * (parameter.ndim - 1))
