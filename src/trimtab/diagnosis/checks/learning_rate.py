"""Learning rate: how far the prompt moves, in the unit that the backbone sets.

    step  = RMS(prompt after a step - before) / (unit * share of the rate that the schedule gave the step)
    reach = step * sum of these shares over the run

The unit is the root mean square of the backbone's embeddings; for deep prompts that of the keys and values that the
backbone itself computes for a text. A prompt whose reach is a small part of a unit stays where it begins, as with rates
made for fine-tuning; one that makes steps of several units jumps over whatever it looks for. Prompts of words that are
searched for have no rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from trimtab.diagnosis import Check, Finding
from trimtab.diagnosis.case import Case
from trimtab.prompts import Searches
from trimtab.registry import checks
from trimtab.training.optimization import schedule_factor

LEAST_REACH, LARGEST_STEP = 0.2, 3.0
"""In units. The default rates of nine methods reach 1.6 to 200 by steps of 0.01 to 1.1 on the bundled support desk (on
nano-masked and a MiniLM); in docs/results/support_desk a deep prompt that reaches 0.05 to 0.15 is worst by far."""


_GOOD_REACH = 5.0
"""What is advised."""


@final
@checks.register("learning_rate")
class LearningRate(Check):
    """Can the prompt get anywhere, and does it not jump?"""

    topic = "training"

    def examine(self, case: Case) -> Iterator[Finding]:
        is_searched = isinstance(case.stacked.encoder[0], Searches)
        if not case.is_trained or is_searched or len(case.first.losses) < len(case.first.factors):
            return
        training, steps = case.config.training, case.steps
        shares = sum(schedule_factor(training.schedule, training.warmup, i, steps) for i in range(steps))
        for name, unit in units(case).items():
            step = step_of(case, name) / unit
            reach = step * shares
            numbers = {"part": name, "unit": unit, "step": step, "reach": reach, "rate": training.learning_rate,
                       "start": _rms(case.first.tables[0][name]) / unit}  # fmt: skip
            seen = (
                f"{name}: a step at the full rate ({training.learning_rate:g}) moves it by {step:.2g} of the RMS of "
                f"{'embeddings' if name == 'inputs' else 'keys and values'}, {steps} steps by at most {reach:.2g}"
            )
            if reach < LEAST_REACH:
                better = _rounded(float(training.learning_rate or 0) * _GOOD_REACH / max(reach, 1e-6))
                advice = f"It stays where it begins: try training.learning_rate={better:g}, or more steps."
                yield Finding("warning", seen, advice, numbers)
            elif step > LARGEST_STEP:
                better = _rounded(float(training.learning_rate or 0) * 0.3 / step)
                yield Finding("warning", seen, f"It jumps: try training.learning_rate={better:g}.", numbers)
            else:
                yield Finding("ok", seen, numbers=numbers)


def units(case: Case) -> dict[str, float]:
    """The unit of each part of the prompt that has one."""
    found: dict[str, float] = {}
    for name, value in case.first.tables[0].items():
        if not value.numel():
            continue
        if name == "inputs":
            found[name] = case.backbone.embedding_rms
        elif name.startswith("deep."):
            ids = torch.tensor(case.sample[-1].encoded.ids, device=case.backbone.device)
            layers = list(case.stacked.layers[name.removeprefix("deep.")])
            found[name] = _rms(case.backbone.keys_values(ids)[name.removeprefix("deep.")][layers])
    return found


def step_of(case: Case, name: str) -> float:
    """How far a step at the full rate moves a part, as the first steps did."""
    tables, factors = case.first.tables, case.first.factors
    moved = [_rms(after[name] - before[name]) for before, after in pairwise(tables)]
    return max(m / f for m, f in zip(moved, factors, strict=True))


def _rms(values: Tensor) -> float:
    return float(values.float().square().mean().sqrt())


def _rounded(rate: float) -> float:
    """To one digit: 1, 3 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rate))
    return float(f"{min((1, 3, 10), key=lambda n: abs(math.log(n * power / rate))) * power:.0e}")
