"""Training: it works with defaults, all that is trained is reached, also when layers are computed anew."""

from __future__ import annotations

from pathlib import Path

from correctness.checks import TASKS, Build, Check, says_something
from correctness.subject import apart

LEARNED = 0.999
"""Of the first loss: how far it falls in a few steps on a random model says nothing, that it falls does."""
STEPS = (10, 60)
"""How long it is tried; the second only where the first is not enough, as with small rates."""


def trains(build: Build, folder: Path) -> float:
    found = float("inf")
    for steps in STEPS:
        before, after = build().train(steps)
        found = after / before if after == after else float("inf")
        if found <= LEARNED:
            break
    return found


def effect(build: Build, folder: Path) -> float:
    """1 where there is none."""
    return float(not says_something(build()))


def gradient(build: Build, folder: Path) -> float:
    """The share of trained rows that get none."""
    norms = [row for rows in build().gradients().values() for row in rows.flatten(1).norm(dim=1).tolist()]
    return sum(not norm > 0 for norm in norms) / len(norms)


def recomputed(build: Build, folder: Path) -> float:
    expected, found = build().gradients(), build().gradients(recomputed=True)
    return apart([found[name] for name in expected], list(expected.values()))


CHECKS = (
    Check("trains", "with the library's defaults the loss falls", TASKS, trains, LEARNED),
    Check("effect", "another prompt makes another score", ("head", "words"), effect, 0.0),
    Check("gradient", "every trained row gets a gradient; measured: the share that gets none", TASKS, gradient, 0.0),
    Check(
        "checkpointing", "gradient checkpointing leaves gradients as they are", ("head", "words", "text"), recomputed
    ),
)
