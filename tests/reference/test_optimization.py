"""The stacked optimizer against torch's own, one run at a time, and the schedules against values by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from trimtab.training.optimization import StackedAdafactor, StackedAdamW, schedule_factor

RATES = [1e-2, 3e-3, 0.3]
ENCODER_RATES = [1e-3, 3e-2, 0.1]
DECAYS = [0.0, 0.1, 0.01]
SHAPES = {"rows": (5, 7), "weight": (3, 7), "bias": (3,)}


def values(seed: int, scale: float = 1.0) -> list[dict[str, Tensor]]:
    """One dictionary of tensors per run."""
    generator = torch.Generator().manual_seed(seed)
    return [{n: scale * torch.randn(s, generator=generator) for n, s in SHAPES.items()} for _ in RATES]


def stacked(per_run: list[dict[str, Tensor]]) -> dict[str, nn.Parameter]:
    return {n: nn.Parameter(torch.stack([v[n] for v in per_run])) for n in SHAPES}


def ours(parameters: dict[str, nn.Parameter], **options: Any) -> StackedAdamW:
    rates = {n: RATES if n == "rows" else ENCODER_RATES for n in SHAPES}
    return StackedAdamW(parameters, rates, dict.fromkeys(SHAPES, DECAYS), **options)


def theirs(start: dict[str, Tensor], r: int, **options: Any) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    parameters = {n: nn.Parameter(v.clone()) for n, v in start.items()}
    groups = [
        {"params": [parameters["rows"]], "lr": RATES[r]},
        {"params": [parameters["weight"], parameters["bias"]], "lr": ENCODER_RATES[r]},
    ]
    return parameters, torch.optim.AdamW(groups, weight_decay=DECAYS[r], **options)


@pytest.mark.parametrize("largest", [0.0, 1.0, 1e-2])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_each_run_is_updated_as_by_torch(largest: float, betas: tuple[float, float]) -> None:
    """Fifteen updates with a changing rate and gradients of very different sizes, clipped per run."""
    start = values(0)
    parameters = stacked(start)
    optimizer = ours(parameters, betas=betas)
    references = [theirs(start[r], r, betas=betas) for r in range(len(RATES))]
    for step in range(15):
        gradients = values(100 + step, scale=[1e-4, 1.0, 30.0][step % 3])
        factor = [schedule_factor("cosine", 0.2, step, 15), 1.0, 0.5]
        for n, p in parameters.items():
            p.grad = torch.stack([g[n] for g in gradients])
        norms = optimizer.clip(largest)
        optimizer.step(factor, torch.ones(len(RATES), dtype=torch.bool))
        for r, (own, reference) in enumerate(references):
            for n, p in own.items():
                p.grad = gradients[r][n].clone()
            norm = nn.utils.clip_grad_norm_(own.values(), largest or math.inf)
            assert float(norms[r]) == pytest.approx(float(norm), rel=1e-5)
            rates = [group["lr"] for group in reference.param_groups]
            for group in reference.param_groups:
                group["lr"] *= factor[r]
            reference.step()
            for group, rate in zip(reference.param_groups, rates, strict=True):
                group["lr"] = rate
            for n, p in own.items():
                torch.testing.assert_close(
                    parameters[n][r], p, rtol=1e-4, atol=1e-6, msg=lambda m, at=(step, r, n): f"{at}: {m}"
                )


def test_a_run_that_pauses_goes_on_as_if_nothing_had_happened() -> None:
    """Inactive runs keep parameters, moments and step count, even where their gradient is not a number."""
    start = values(0)
    parameters = stacked(start)
    optimizer = ours(parameters)
    own, reference = theirs(start[1], 1)
    for step in range(8):
        gradients = values(step)
        pauses = step in (2, 3, 6)
        for n, p in parameters.items():
            p.grad = torch.stack([g[n] for g in gradients])
            if pauses:
                p.grad[1] = torch.nan
        before = {n: p[1].detach().clone() for n, p in parameters.items()}
        optimizer.step([1.0] * 3, torch.tensor([True, not pauses, True]))
        if pauses:
            assert all(torch.equal(parameters[n][1], v) for n, v in before.items())
            continue
        for n, p in own.items():
            p.grad = gradients[1][n].clone()
        reference.step()
    assert all(bool(p.isfinite().all()) for p in parameters.values())
    for n, p in own.items():
        torch.testing.assert_close(parameters[n][1], p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pausing", [False, True])
def test_each_run_is_updated_as_by_transformers_adafactor(pausing: bool) -> None:
    """Matrices keep row and column means, vectors everything; runs that pause keep both."""
    start = values(0)
    parameters = stacked(start)
    rates = {n: RATES if n == "rows" else ENCODER_RATES for n in SHAPES}
    optimizer = StackedAdafactor(parameters, rates, dict.fromkeys(SHAPES, DECAYS))
    references = []
    for r, own in enumerate({n: nn.Parameter(v.clone()) for n, v in run.items()} for run in start):
        groups = [{"params": [p], "lr": rates[n][r]} for n, p in own.items()]
        fixed = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
        references.append((own, Adafactor(groups, weight_decay=DECAYS[r], **fixed)))
    for step in range(12):
        gradients = values(100 + step, scale=[1e-4, 1.0, 30.0][step % 3])
        active = torch.tensor([True, not pausing or step not in (3, 4), True])
        for n, p in parameters.items():
            p.grad = torch.stack([g[n] for g in gradients])
        optimizer.step([1.0] * 3, active)
        for r, (own, reference) in enumerate(references):
            if active[r]:
                for n, p in own.items():
                    p.grad = gradients[r][n].clone()
                reference.step()
            for n, p in own.items():
                torch.testing.assert_close(
                    parameters[n][r], p, rtol=1e-4, atol=1e-6, msg=lambda m, at=(step, r, n): f"{at}: {m}"
                )


def test_clipping_leaves_small_gradients_alone_and_is_per_run() -> None:
    parameters = stacked(values(0))
    gradients = values(1)
    scales = [1e-3, 10.0, 0.1]
    for n, p in parameters.items():
        p.grad = torch.stack([s * g[n] for s, g in zip(scales, gradients, strict=True)])
    before = {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}
    norms = ours(parameters).clip(1.0)
    for r in range(3):
        squares = sum(float((before[n][r].double() ** 2).sum()) for n in SHAPES)
        assert float(norms[r]) == pytest.approx(math.sqrt(squares), rel=1e-5)
        factor = min(1.0, 1.0 / (math.sqrt(squares) + 1e-6))
        for n, p in parameters.items():
            assert p.grad is not None
            torch.testing.assert_close(p.grad[r], before[n][r] * factor, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("schedule", "warmup", "steps", "expected"),
    [
        ("constant", 0.0, 4, [1, 1, 1, 1]),
        ("constant", 0.5, 4, [1 / 2, 1, 1, 1]),
        ("linear", 0.0, 5, [1, 0.8, 0.6, 0.4, 0.2]),
        ("linear", 0.25, 8, [1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("linear", 0.01, 4, [1, 1, 2 / 3, 1 / 3]),
        ("cosine", 0.0, 4, [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
        ("cosine", 0.4, 5, [1 / 2, 1, 1, 0.75, 0.25]),
        ("linear", 0.0, 1, [1]),
        ("linear", 0.9, 1, [1]),
    ],
)
def test_schedules_by_hand(schedule: Any, warmup: float, steps: int, expected: list[float]) -> None:
    assert [schedule_factor(schedule, warmup, s, steps) for s in range(steps)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
def test_every_step_has_a_positive_rate_that_never_rises_after_warmup(schedule: Any, warmup: float) -> None:
    factors = [schedule_factor(schedule, warmup, s, 37) for s in range(37)]
    assert min(factors) > 0
    assert max(factors) == 1.0
    top = factors.index(1.0)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
