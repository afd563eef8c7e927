"""Optimizers over stacked parameters, each run with its own rate, decay, clipping and step count; rate schedules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trimtab.config import TrainingConfig


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


class StackedOptimizer(ABC):
    """An optimizer on parameters [R,...], one independent optimizer per run. Inactive runs keep everything they have:
    their rate, and their share of what is new in the statistics, are 0. Updates are in place, as a whole backbone may
    be trained.

    Args:
        parameters: name -> [R,...].
        rates: name -> learning rate of each run [R].
        decays: name -> weight decay of each run [R], decoupled: p -= rate * decay * p.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, Sequence[float]],
        decays: Mapping[str, Sequence[float]],
    ) -> None:
        first = next(iter(parameters.values()), torch.zeros(0))  # nothing to train: no steps are taken
        self.parameters = dict(parameters)
        self.rates = {n: torch.tensor(r, device=first.device, dtype=torch.float64) for n, r in rates.items()}
        self.decays = {n: torch.tensor(d, device=first.device, dtype=torch.float64) for n, d in decays.items()}
        self.steps = torch.zeros(len(first), device=first.device, dtype=torch.float64)
        self.statistics: dict[str, tuple[Tensor, ...]] = {}

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that an update depends on beside parameters and gradients; the tensors themselves, no copies."""
        parts = {f"{name}.{i}": part for name, parts in self.statistics.items() for i, part in enumerate(parts)}
        return {"steps": self.steps, **parts}

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
        everyone = bool(active.all())
        active = active.to(self.steps.device)
        self.steps += active
        factor = torch.tensor(list(factors), device=self.steps.device, dtype=torch.float64) * active
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient = parameter.grad if everyone else _of(active, parameter.grad)
            direction = self._direction(name, gradient, active)
            rate = self.rates[name] * factor
            parameter.mul_(_like(1 - rate * self.decays[name], parameter))
            parameter.sub_((direction if everyone else _of(active, direction)).mul_(_like(rate, parameter)))
            parameter.grad = None

    @abstractmethod
    def _direction(self, name: str, gradient: Tensor, active: Bool[Tensor, "R"]) -> Tensor:
        """Update the statistics of the active runs; what a rate of 1 subtracts from the parameter, a tensor of its own.

        Args:
            gradient: [R,...], 0 where a run is not active.
        """


class StackedAdamW(StackedOptimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2).

        m = b1 m + (1-b1) g;   v = b2 v + (1-b2) g^2;   p -= rate (m_hat / (sqrt(v_hat) + eps) + decay p)

    Equal to torch.optim.AdamW on every run alone.

    Args:
        betas: decay of the moments.
        epsilon: added to the root of the second moment.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, Sequence[float]],
        decays: Mapping[str, Sequence[float]],
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, rates, decays)
        self.betas, self.epsilon = betas, epsilon
        self.statistics = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in self.parameters.items()}

    def _direction(self, name: str, gradient: Tensor, active: Bool[Tensor, "R"]) -> Tensor:
        m, v = self.statistics[name]
        new1, new2 = (_like((1 - b) * active.double(), gradient) for b in self.betas)
        m.lerp_(gradient, new1)
        v.mul_(_like(self.betas[1] ** active.double(), v)).add_(gradient.square().mul_(new2))
        correction1, correction2 = ((1 - b**self.steps).clamp(min=1e-12) for b in self.betas)
        root = v.sqrt().div_(_like(correction2.sqrt(), v)).add_(self.epsilon)
        return m.div(_like(correction1, m)).div_(root)


class StackedAdafactor(StackedOptimizer):
    """Adafactor (Shazeer and Stern 2018, algorithms 4 and 5) as prompt tuning uses it: a given rate, no momentum, no
    scaling by the size of the parameter (Lester et al. 2021, section 3).

        b2 = 1 - t^-0.8;   V = b2 V + (1-b2) (g^2 + 1e-30), of a matrix only its row and column means are kept
        U = g / sqrt(V);   U /= max(1, RMS(U));   p -= rate (U + decay p)

    Equal to transformers' Adafactor with `scale_parameter` and `relative_step` off, on every run alone.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, Sequence[float]],
        decays: Mapping[str, Sequence[float]],
    ) -> None:
        super().__init__(parameters, rates, decays)
        for name, p in self.parameters.items():
            factored = p.ndim >= 3
            shapes = [p.shape[:-1], (*p.shape[:-2], p.shape[-1])] if factored else [p.shape]
            self.statistics[name] = tuple(p.new_zeros(shape) for shape in shapes)

    def _direction(self, name: str, gradient: Tensor, active: Bool[Tensor, "R"]) -> Tensor:
        square = gradient.square() + 1e-30
        means = self.statistics[name]
        now = (square.mean(-1), square.mean(-2)) if len(means) == 2 else (square,)
        b2 = 1 - self.steps.clamp(min=1) ** -0.8
        for kept, new in zip(means, now, strict=True):
            share = _like(b2 ** active.double(), kept)
            kept.mul_(share).add_(new * (1 - share))
        if len(means) == 2:
            row, column = means
            tiny = torch.finfo(row.dtype).tiny
            scale = (row / row.mean(-1, keepdim=True).clamp(min=tiny)).clamp(min=tiny).rsqrt()[..., None]
            update = gradient * scale * column.clamp(min=tiny).rsqrt()[..., None, :]
        else:
            update = gradient * means[0].clamp(min=torch.finfo(gradient.dtype).tiny).rsqrt()
        size = update.flatten(1).square().mean(1).sqrt()
        return update.div_(_like(size.clamp(min=1.0), update))


def build_optimizer(
    training: TrainingConfig,
    parameters: Mapping[str, nn.Parameter],
    rates: Mapping[str, Sequence[float]],
    decays: Mapping[str, Sequence[float]],
) -> StackedOptimizer:
    """The optimizer that a training section asks for."""
    if training.optimizer == "adafactor":
        return StackedAdafactor(parameters, rates, decays)
    return StackedAdamW(parameters, rates, decays, (training.beta1, training.beta2), training.epsilon)


def _of(active: Bool[Tensor, "R"], values: Tensor) -> Tensor:
    """Values [R,...] of the active runs, 0 in place of the others', which may be no numbers."""
    return torch.where(active.view(-1, *[1] * (values.ndim - 1)), values, 0.0)


def _like(per_run: Tensor, parameter: Tensor) -> Tensor:
    """[R] -> [R,1,...] of the parameter's dtype, to broadcast over it."""
    return per_run.view(-1, *[1] * (parameter.ndim - 1)).to(parameter.dtype)
